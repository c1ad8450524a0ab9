"""Objects that come in parts: begun, filled, joined or given up."""

from collections.abc import Callable, Container, Iterable
from datetime import timedelta

from domain.direct import Arrived
from domain.errors.neighbours import ObjectMissing
from storage.objects.connection import bucket, client, patiently, store_time, translated

MIB = 1024**2
SMALLEST_PART = 5 * MIB  # of all parts of a multipart upload but the last (S3 user guide, multipart upload limits)
PARTS = 10_000  # the most there may be


def create_multipart(key: str, content_type: str) -> str:
    """Begin a multipart upload; the answer is its upload id."""
    with translated(key):
        return client().create_multipart_upload(Bucket=bucket(), Key=key, ContentType=content_type)["UploadId"]


def upload_part(key: str, upload_id: str, number: int, data: bytes) -> str:
    """Write part ``number`` (from 1), the ETag is the answer; every part but the last has 5 MiB at least."""
    with translated(key):
        return client().upload_part(Bucket=bucket(), Key=key, UploadId=upload_id, PartNumber=number, Body=data)["ETag"]


def knows_multipart(key: str, upload_id: str) -> bool:
    """Whether the store (still) has the multipart upload."""
    try:
        with translated(key):
            client().list_parts(Bucket=bucket(), Key=key, UploadId=upload_id, MaxParts=1)
    except ObjectMissing:
        return False
    return True


def complete_multipart(key: str, upload_id: str, etags: list[str]) -> None:
    """Make the object of its parts; ``etags`` are theirs in order of part number.

    Raises:
        UploadIncomplete: the store has another part under that number by now.
    """
    parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
    with translated(key), patiently():  # the store may well think for a while about gigabytes
        client().complete_multipart_upload(
            Bucket=bucket(),
            Key=key,
            UploadId=upload_id,
            MultipartUpload={"Parts": parts},  # type: ignore[typeddict-item]  # the stubs want a literal dict
        )


def parts_of(key: str, upload_id: str) -> dict[int, Arrived]:
    """The parts of an unfinished multipart upload by number. Raises ObjectMissing when there is no such upload."""
    with translated(key):
        pages = client().get_paginator("list_parts").paginate(Bucket=bucket(), Key=key, UploadId=upload_id)
        return {
            one["PartNumber"]: Arrived(size=one["Size"], etag=one["ETag"])
            for page in pages
            for one in page.get("Parts", [])
        }


def abort_multipart(key: str, upload_id: str) -> None:
    """Drop a multipart upload with its parts; one that is gone already counts as dropped."""
    try:
        with translated(key):
            client().abort_multipart_upload(Bucket=bucket(), Key=key, UploadId=upload_id)
    except ObjectMissing:
        pass


def unfinished(older_than: timedelta = timedelta(0)) -> list[tuple[str, str]]:
    """(key, upload id) of multipart uploads begun longer ago than that: what processes that died have left."""
    found: list[tuple[str, str]] = []
    try:
        with translated("inputs/"):
            for page in client().get_paginator("list_multipart_uploads").paginate(Bucket=bucket()):
                until = store_time(page) - older_than
                found += [(one["Key"], one["UploadId"]) for one in page.get("Uploads", []) if one["Initiated"] <= until]
    except ObjectMissing:  # what `rclone serve s3` answers as long as there has been no multipart upload at all
        return []
    return found


def sweep(
    older_than: timedelta, limit: int = 1000, under_way: Callable[[Iterable[str]], Container[str]] = lambda _: ()
) -> int:
    """Abort the unfinished multipart uploads of dead processes, at most ``limit``; safe to run twice. The answer is
    their number. ``under_way`` tells which of the keys are those of uploads that will go on."""
    found = unfinished(older_than)
    spared = under_way(key for key, _ in found) if found else ()
    left = [one for one in found if one[0] not in spared][:limit]
    for key, upload_id in left:
        abort_multipart(key, upload_id)
    return len(left)
