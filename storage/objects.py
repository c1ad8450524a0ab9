"""The one way to S3-compatible storage: a boto3 client per process, built at first use.

Keys never hold user text: an input is ``inputs/{uuid}``, the n-th result of a job ``results/{job_id}/{n}``. The two
never share a key, so a result cannot replace what it was made from.

Every function raises ObjectMissing when the key is not there and StorageUnavailable when the store refuses the
connection, does not answer in time or answers 5xx or "slow down". Anything else S3 says (access denied, a wrong
signature) is a mistake in our configuration and surfaces as botocore's own ClientError.

boto3 takes about half a second to import, so it is imported with the first client and not with this module.
"""

import os
import threading
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from uuid import UUID

import httpx

from domain.direct import Arrived
from domain.errors.neighbours import ObjectMissing, StorageUnavailable
from domain.errors.requests import BodyTooLarge
from domain.errors.uploads import UploadIncomplete
from domain.files import attachment
from storage.configuration import settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MISSING = frozenset({"404", "NoSuchKey", "NotFound", "NoSuchUpload"})
PARTS_REFUSED = frozenset({"InvalidPart", "InvalidPartOrder", "EntityTooSmall"})
MIB = 1024**2
SMALLEST_PART = 5 * MIB  # of all parts of a multipart upload but the last (S3 user guide, multipart upload limits)
PARTS = 10_000  # the most there may be
DELETE_BATCH = 1000  # what one DeleteObjects may name (S3 API reference)

HURRY_SECONDS = 2.0  # for the answer to a call within ``hurry``
ATTEMPTS = 3  # of a call, unless it is made in a hurry

Pace = Literal["usual", "hurried", "patient"]
_clients: dict[tuple[str, Pace], "S3Client"] = {}
_pace: ContextVar[Pace] = ContextVar("_pace", default="usual")
_building = threading.Lock()


def input_key(object_id: UUID) -> str:
    return f"inputs/{object_id}"


def result_key(job_id: UUID, number: int) -> str:
    return f"{result_prefix(job_id)}{number}"


def result_prefix(job_id: UUID) -> str:
    """What the keys of all results of a job begin with."""
    return f"results/{job_id}/"


# ---------------------------------------------------------------- whole objects and ranges


def read_range(key: str, start: int, length: int) -> bytes:
    """``length`` bytes from offset ``start``; fewer where the object ends earlier, none where it ends before ``start``.

    Judged by the length of what comes and not by status 206: ``rclone serve s3`` answers a ranged GET with 200.
    """
    if length <= 0:
        return b""
    with _getting(key, {"Range": f"bytes={start}-{start + length - 1}"}) as response:
        if response.status_code == 416:
            return b""
        if int(response.headers["Content-Length"]) > length:
            # the store ignored the range: never read gigabytes for a few bytes
            raise StorageUnavailable(key=key)
        return response.read()


def read(key: str, limit: int) -> bytes:
    """The whole object.

    Raises:
        BodyTooLarge: it is larger than ``limit`` bytes; nothing of it was read.
    """
    with _getting(key, {}) as response:
        if int(response.headers["Content-Length"]) > limit:
            raise BodyTooLarge(limit=limit)
        return response.read()


@contextmanager
def _getting(key: str, headers: dict[str, str]) -> Iterator[httpx.Response]:
    """A GET that boto3 signs and httpx sends: half the CPU time of boto3's own, and workers do little else.

    A kept connection may turn out closed, so a second try is made before the store counts as unavailable.
    """
    url = presign_get(key, 300)
    for last in (False, True):
        try:
            request = _http().build_request("GET", url, headers={**headers, "Accept-Encoding": "identity"})
            response = _http().send(request, stream=True)
            break
        except httpx.TransportError as error:
            if last:
                raise StorageUnavailable(retry_after=1, key=key) from error
    try:
        if response.status_code == 404:
            raise ObjectMissing(key=key)
        if response.status_code == 429 or response.status_code >= 500:
            raise StorageUnavailable(retry_after=1, key=key)
        if response.status_code != 416:
            response.raise_for_status()
        yield response
    except httpx.TransportError as error:
        raise StorageUnavailable(retry_after=1, key=key) from error
    finally:
        response.close()


def _http() -> httpx.Client:
    with _building:  # of threads that come first together each would get one of its own
        return _one_http()


@cache
def _one_http() -> httpx.Client:
    return httpx.Client(timeout=httpx.Timeout(settings().s3_answer_seconds, connect=5), trust_env=False)


def put(key: str, data: bytes, content_type: str = "application/octet-stream") -> None:
    """Write a whole small object; a second write of the same key replaces the first.

    Signed by boto3 and sent by httpx, as in ``_getting``. When that does not succeed, boto3 tries again in its own
    patient way, and what it says in the end is what is raised.
    """
    try:
        headers = {"Content-Type": content_type}
        if _http().put(presign_put(key, 300, content_type), content=data, headers=headers).is_success:
            return
    except httpx.TimeoutException as error:
        raise StorageUnavailable(retry_after=1, key=key) from error  # a store that hangs does so for boto3 too
    except httpx.TransportError:
        pass
    with _translated(key):
        client().put_object(Bucket=_bucket(), Key=key, Body=data, ContentType=content_type)


def size_of(key: str) -> int:
    """Size in bytes."""
    with _translated(key):
        return client().head_object(Bucket=_bucket(), Key=key)["ContentLength"]


def below(prefix: str) -> list[str]:
    """The keys that begin with ``prefix``."""
    with _translated(prefix):
        pages = client().get_paginator("list_objects_v2").paginate(Bucket=_bucket(), Prefix=prefix)
        return [one["Key"] for page in pages for one in page.get("Contents", [])]


class Listed(NamedTuple):
    key: str
    age: timedelta  # by the store's own clock, so that nobody's clock but one has a say


def listed(prefix: str, after: str, limit: int = 1000) -> tuple[list[Listed], bool]:
    """At most ``limit`` (up to 1000) objects below ``prefix`` whose keys follow ``after``, by the bytes of their keys;
    and whether there are more."""
    with _translated(prefix):
        page = client().list_objects_v2(Bucket=_bucket(), Prefix=prefix, StartAfter=after, MaxKeys=limit)
    now = _store_time(page)
    found = [Listed(one["Key"], now - one["LastModified"]) for one in page.get("Contents", [])]
    return found, page["IsTruncated"]


def _store_time(answer: Any) -> datetime:
    """When the store gave the answer, by its `Date` header (RFC 9110, 6.6.1), which knows no parts of a second."""
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    return parsedate_to_datetime(headers["date"]) + timedelta(seconds=1)


def delete(keys: Iterable[str]) -> None:
    """Delete objects; a key that is not there counts as deleted."""
    rest = iter(keys)
    while batch := list(islice(rest, DELETE_BATCH)):
        with _translated(batch[0]):
            answer = client().delete_objects(
                Bucket=_bucket(), Delete={"Objects": [{"Key": key} for key in batch], "Quiet": True}
            )
            if left := [error for error in answer.get("Errors", []) if error.get("Code") not in MISSING]:
                raise StorageUnavailable(key=left[0].get("Key"))


# ---------------------------------------------------------------- presigned URLs (signed locally, nothing is sent)


def presign_get(
    key: str,
    seconds: int,
    download_name: str | None = None,
    content_type: str | None = None,
    *,
    public: bool = False,
) -> str:
    """A URL that reads the object for ``seconds``.

    With ``download_name`` the store is asked to answer with that name as an attachment (RFC 6266), so that a browser
    saves the file and never shows it; with ``content_type`` to answer with that one.
    ``public`` signs for S3_PUBLIC_ENDPOINT_URL, where clients outside reach it.
    """
    params = {"Bucket": _bucket(), "Key": key}
    if download_name is not None:
        params["ResponseContentDisposition"] = attachment(download_name)
    if content_type is not None:
        params["ResponseContentType"] = content_type
    return client(public=public).generate_presigned_url("get_object", Params=params, ExpiresIn=seconds)


def presign_put(key: str, seconds: int, content_type: str | None = None, *, public: bool = False) -> str:
    """A URL that writes the object within ``seconds``; with ``content_type`` the PUT must carry that very header.

    It cannot limit the size: check ``size_of`` afterwards.
    """
    params = {"Bucket": _bucket(), "Key": key} | ({"ContentType": content_type} if content_type else {})
    return client(public=public).generate_presigned_url("put_object", Params=params, ExpiresIn=seconds)


def presign_part(
    key: str, upload_id: str, number: int, seconds: int, size: int | None = None, *, public: bool = False
) -> str:
    """A URL that writes part ``number`` (from 1) of a multipart upload.

    With ``size`` its Content-Length is signed too. Not every server looks at that: check ``parts_of`` afterwards.
    """
    params: dict[str, Any] = {"Bucket": _bucket(), "Key": key, "UploadId": upload_id, "PartNumber": number}
    if size is not None:
        params["ContentLength"] = size
    return client(public=public).generate_presigned_url("upload_part", Params=params, ExpiresIn=seconds)


# ---------------------------------------------------------------- multipart uploads


def create_multipart(key: str, content_type: str) -> str:
    """Begin a multipart upload; the answer is its upload id."""
    with _translated(key):
        return client().create_multipart_upload(Bucket=_bucket(), Key=key, ContentType=content_type)["UploadId"]


def upload_part(key: str, upload_id: str, number: int, data: bytes) -> str:
    """Write part ``number`` (from 1), the ETag is the answer; every part but the last has 5 MiB at least."""
    with _translated(key):
        return client().upload_part(Bucket=_bucket(), Key=key, UploadId=upload_id, PartNumber=number, Body=data)["ETag"]


def knows_multipart(key: str, upload_id: str) -> bool:
    """Whether the store (still) has the multipart upload."""
    try:
        with _translated(key):
            client().list_parts(Bucket=_bucket(), Key=key, UploadId=upload_id, MaxParts=1)
    except ObjectMissing:
        return False
    return True


def complete_multipart(key: str, upload_id: str, etags: list[str]) -> None:
    """Make the object of its parts; ``etags`` are theirs in order of part number.

    Raises:
        UploadIncomplete: the store has another part under that number by now.
    """
    parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
    with _translated(key), _at("patient"):  # the store may well think for a while about gigabytes
        client().complete_multipart_upload(
            Bucket=_bucket(),
            Key=key,
            UploadId=upload_id,
            MultipartUpload={"Parts": parts},  # type: ignore[typeddict-item]  # the stubs want a literal dict
        )


def parts_of(key: str, upload_id: str) -> dict[int, Arrived]:
    """The parts of an unfinished multipart upload by number. Raises ObjectMissing when there is no such upload."""
    with _translated(key):
        pages = client().get_paginator("list_parts").paginate(Bucket=_bucket(), Key=key, UploadId=upload_id)
        return {
            one["PartNumber"]: Arrived(size=one["Size"], etag=one["ETag"])
            for page in pages
            for one in page.get("Parts", [])
        }


def abort_multipart(key: str, upload_id: str) -> None:
    """Drop a multipart upload with its parts; one that is gone already counts as dropped."""
    try:
        with _translated(key):
            client().abort_multipart_upload(Bucket=_bucket(), Key=key, UploadId=upload_id)
    except ObjectMissing:
        pass


def unfinished(older_than: timedelta = timedelta(0)) -> list[tuple[str, str]]:
    """(key, upload id) of multipart uploads begun longer ago than that: what processes that died have left."""
    found: list[tuple[str, str]] = []
    try:
        with _translated("inputs/"):
            for page in client().get_paginator("list_multipart_uploads").paginate(Bucket=_bucket()):
                until = _store_time(page) - older_than
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


def ensure_bucket() -> None:
    """Create the bucket where there is none."""
    with _translated(""):
        try:
            client().head_bucket(Bucket=_bucket())
        except _client_error() as error:
            if error.response.get("Error", {}).get("Code") not in {"404", "NoSuchBucket"}:
                raise
            client().create_bucket(Bucket=_bucket())


# ---------------------------------------------------------------- the client


def client(*, public: bool = False) -> "S3Client":
    """The boto3 client of this process (thread-safe); ``public`` is one that signs for S3_PUBLIC_ENDPOINT_URL."""
    config = settings()
    endpoint = (public and config.s3_public_endpoint_url) or config.s3_endpoint_url
    which = endpoint, _pace.get()
    if which not in _clients:
        with _building:
            if which not in _clients:
                _clients[which] = _build(*which)
    return _clients[which]


@contextmanager
def hurry() -> Iterator[None]:
    """Within the block a call is given up when the store says nothing for two seconds."""
    with _at("hurried"):
        yield


@contextmanager
def _at(pace: Pace) -> Iterator[None]:
    token = _pace.set(pace)
    try:
        yield
    finally:
        _pace.reset(token)


def close() -> None:
    """Close the connections of this process; the next call makes new ones, by the settings of that moment."""
    for built in _clients.values():
        built.close()
    if _one_http.cache_info().currsize:
        _one_http().close()
    _forget_after_fork()


def _build(endpoint: str, pace: Pace) -> "S3Client":
    import boto3.session
    from botocore.config import Config

    config = settings()
    # all attempts together within the limit, so that a store that hangs holds nobody for three times as long
    attempts = 2 if pace == "hurried" else ATTEMPTS  # twice: a kept connection may have died unnoticed
    answer = {"hurried": HURRY_SECONDS / attempts, "usual": config.s3_answer_seconds / ATTEMPTS}
    return boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint,
        region_name=config.s3_region,
        aws_access_key_id=config.s3_access_key_id,
        aws_secret_access_key=config.s3_secret_access_key,
        config=Config(
            signature_version="s3v4",  # presigned URLs of the default version get 400 from `rclone serve s3`
            s3={"addressing_style": "path"},  # a bucket as host name needs DNS most self-hosted stores do not have
            # boto3 >= 1.36 sends checksums by default, which several S3-compatible servers refuse (botocore #3352)
            request_checksum_calculation=config.s3_checksums,
            response_checksum_validation=config.s3_checksums,
            connect_timeout=1 if pace == "hurried" else 5,
            read_timeout=answer.get(pace, config.s3_answer_seconds),
            retries={"mode": "standard", "total_max_attempts": attempts},
            max_pool_connections=40,  # one for each of anyio's threads
        ),
    )


def _bucket() -> str:
    return settings().s3_bucket


def _client_error() -> Any:
    from botocore.exceptions import ClientError

    return ClientError


@contextmanager
def _translated(key: str) -> Iterator[None]:
    from botocore import exceptions as boto

    try:
        yield
    except boto.ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if status >= 500 or status == 429 or code in {"SlowDown", "RequestTimeout", "NoSuchBucket"}:
            raise StorageUnavailable(retry_after=1, key=key) from error
        if code in MISSING:
            raise ObjectMissing(key=key) from error
        if code in PARTS_REFUSED:
            raise UploadIncomplete(reason=f"the storage refuses its parts ({code})") from error
        raise
    except (boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError) as error:
        raise StorageUnavailable(retry_after=1, key=key) from error


def _forget_after_fork() -> None:
    # A forked child must not share the parent's sockets, nor wait for a lock that one of its threads held.
    global _building  # noqa: PLW0603  # a lock held at the fork stays held for ever in the child
    _building = threading.Lock()
    _clients.clear()
    _one_http.cache_clear()


os.register_at_fork(after_in_child=_forget_after_fork)
