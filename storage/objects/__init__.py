"""The one way to S3-compatible storage: a boto3 client per process, built at first use.

Keys never hold user text: an input is ``inputs/{uuid}``, the n-th result of a job ``results/{job_id}/{n}``. The two
never share a key, so a result cannot replace what it was made from.

Every function raises ObjectMissing when the key is not there and StorageUnavailable when the store refuses the
connection, does not answer in time or answers 5xx or "slow down". Anything else S3 says (access denied, a wrong
signature) is a mistake in our configuration and surfaces as botocore's own ClientError.

boto3 takes about half a second to import, so it is imported with the first client and not with this module.
"""

from uuid import UUID

from storage.objects.connection import client, close, ensure_bucket, hurry
from storage.objects.multipart import (
    MIB,
    PARTS,
    SMALLEST_PART,
    abort_multipart,
    complete_multipart,
    create_multipart,
    knows_multipart,
    parts_of,
    sweep,
    unfinished,
    upload_part,
)
from storage.objects.presigned import presign_get, presign_part, presign_put
from storage.objects.whole import Listed, below, delete, listed, put, read, read_range, size_of

__all__ = [
    "MIB",
    "PARTS",
    "SMALLEST_PART",
    "Listed",
    "abort_multipart",
    "below",
    "client",
    "close",
    "complete_multipart",
    "create_multipart",
    "delete",
    "ensure_bucket",
    "hurry",
    "input_key",
    "knows_multipart",
    "listed",
    "parts_of",
    "presign_get",
    "presign_part",
    "presign_put",
    "put",
    "read",
    "read_range",
    "result_key",
    "result_prefix",
    "size_of",
    "sweep",
    "unfinished",
    "upload_part",
]


def input_key(object_id: UUID) -> str:
    return f"inputs/{object_id}"


def result_key(job_id: UUID, number: int) -> str:
    return f"{result_prefix(job_id)}{number}"


def result_prefix(job_id: UUID) -> str:
    """What the keys of all results of a job begin with."""
    return f"results/{job_id}/"
