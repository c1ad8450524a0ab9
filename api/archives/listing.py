"""The inspected archive of a job: its entries, a page at a time, and its summary."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter
from msgspec import Meta

from api.jobs.reading import found
from api.openapi.operation import documented
from domain.accounts import Principal
from domain.archives import Summary
from domain.errors.jobs import JobNotReady
from domain.errors.requests import NotFound
from domain.jobs import Status
from storage import archives
from storage.database import autocommit

_DOCUMENTED = documented(
    NotFound(what="archive in this job"), JobNotReady(what="archive listing", status=Status.QUEUED)
)


class EntryView(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the archive, as its directory declares it. Sizes are bytes."""

    index: Annotated[int, Meta(description="Place in the directory", examples=[0])]
    name: Annotated[str, Meta(description="A folder keeps its closing slash", examples=["scans/0001.dcm"])]
    size: Annotated[int, Meta(examples=[8963])]
    compressed_size: Annotated[int, Meta(examples=[3693])]
    ratio: Annotated[float | None, Meta(description="Null where nothing is packed", examples=[2.43])]
    crc32: Annotated[str, Meta(examples=["4b69ced3"])]
    method: Annotated[str, Meta(description="`stored`, `deflated`, `bzip2` or `lzma`", examples=["deflated"])]
    encrypted: Annotated[
        bool, Meta(description="Always false: an archive with encrypted entries is refused", examples=[False])
    ]
    modified_at: Annotated[
        datetime | None,
        Meta(description="The writer's local time, without an offset", examples=["2025-09-14T09:30:18"]),
    ]
    is_folder: Annotated[bool, Meta(examples=[False])]
    content_type: Annotated[str | None, Meta(description="Guessed by the extension", examples=["application/dicom"])]


class EntryPage(msgspec.Struct, frozen=True, kw_only=True):
    """Entries in the archive's own order; pass ``next`` as ``after`` for the following page, null after the last."""

    items: list[EntryView]
    next: Annotated[int | None, Meta(examples=[None])]


@get(
    "/jobs/{job_id:uuid}/zip-contents",
    operation_id="list_archive_entries",
    tags=["archives"],
    summary="What is in the archive",
    sync_to_thread=True,
    **_DOCUMENTED,
)
def list_entries(
    job_id: FromPath[UUID],
    principal: NamedDependency[Principal],
    name: Annotated[str | None, QueryParameter(max_length=255, description="Part of the name")] = None,
    content_type: Annotated[str | None, QueryParameter(max_length=100, description="Its start, e.g. image/")] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=1000, description="Entries on a page")] = 100,
    after: Annotated[int, QueryParameter(ge=-1, description="`next` of the page before")] = -1,
) -> EntryPage:
    """In the archive's own order, as its directory declares it; nothing was unpacked. 404 `not_found` when the
    job's file is no archive, 409 `job_not_ready` before it was inspected."""
    read_summary.fn(job_id, principal)
    with autocommit() as connection:
        rows = archives.page(connection, job_id, after=after, limit=limit + 1, name=name, content_type=content_type)
    items = [_view(row) for row in rows[:limit]]
    return EntryPage(items=items, next=items[-1].index if len(rows) > limit else None)


@get(
    "/jobs/{job_id:uuid}/zip-info",
    operation_id="read_archive_summary",
    tags=["archives"],
    summary="The archive as a whole",
    sync_to_thread=True,
    **_DOCUMENTED,
)
def read_summary(job_id: FromPath[UUID], principal: NamedDependency[Principal]) -> Summary:
    """Counts, sizes and what was unusual about it. 404 `not_found` when the job's file is no archive, 409
    `job_not_ready` before it was inspected."""
    job = found(job_id, principal)
    with autocommit() as connection:
        summary = archives.summary(connection, job_id)
    if summary is not None:
        return summary
    if job.file is not None and job.file.type != "zip":
        raise NotFound(what="archive in this job")
    raise JobNotReady(what="archive listing", status=job.status)


def _view(row: dict[str, object]) -> EntryView:
    size, packed, crc = int(str(row["size"])), int(str(row["compressed_size"])), int(str(row["crc32"]))
    ratio = round(size / packed, 2) if packed else None
    # an archive with encrypted entries is refused, so what was stored has none
    return msgspec.convert(row | {"crc32": f"{crc:08x}", "ratio": ratio, "encrypted": False}, EntryView)


routes = [list_entries, read_summary]
