"""The step `inspect`: what is in the uploaded archive, read from its directory alone."""

from functools import partial

from domain.archives import Limits, inspect, is_zip_name
from domain.errors import ArchiveNotZip
from domain.pipelines import Context, Done, JobInStep, Outcome
from storage import archives, objects
from storage.configuration import settings


def inspect_archive(job: JobInStep, context: Context) -> Outcome:
    """List a ZIP by ranged reads of its end; a single file passes through.

    Raises:
        ArchiveRefused: by its subclasses, when the archive is not safe to hand on.
    """
    file = job.file
    if file is None:
        return Done()
    if file.kind != "zip":
        if is_zip_name(file.name):
            raise ArchiveNotZip
        return Done(message="1 file")
    listing = inspect(partial(objects.read_range, file.key), file.size, _limits())
    return Done(
        message=f"{listing.summary.files} files in the archive",
        effects=(partial(archives.store, job_id=job.id, listing=listing),),
    )


def _limits() -> Limits:
    config = settings()
    return Limits(
        max_entries=config.archive_max_entries,
        max_unpacked_bytes=config.archive_max_unpacked_bytes,
        max_ratio=config.archive_max_ratio,
        max_directory_bytes=config.archive_max_directory_bytes,
        refuse=config.refused_warnings,
    )


steps = {"inspect": inspect_archive}
