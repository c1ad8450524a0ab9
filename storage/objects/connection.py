"""How this process reaches the store: its clients, how long they wait, and what their errors mean here."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import httpx

from domain.errors.neighbours import ObjectMissing, StorageUnavailable
from domain.errors.uploads import UploadIncomplete
from storage.configuration import settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MISSING = frozenset({"404", "NoSuchKey", "NotFound", "NoSuchUpload"})
PARTS_REFUSED = frozenset({"InvalidPart", "InvalidPartOrder", "EntityTooSmall"})
HURRY_SECONDS = 2.0  # for the answer to a call within ``hurry``
ATTEMPTS = 3  # of a call, unless it is made in a hurry

Pace = Literal["usual", "hurried", "patient"]
_clients: dict[tuple[str, Pace], "S3Client"] = {}
_pace: ContextVar[Pace] = ContextVar("_pace", default="usual")
_building = threading.Lock()


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
def patiently() -> Iterator[None]:
    """Within the block the store may think for as long as it is given, at each try."""
    with _at("patient"):
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


def bucket() -> str:
    return settings().s3_bucket


def client_error() -> Any:
    from botocore.exceptions import ClientError

    return ClientError


@contextmanager
def translated(key: str) -> Iterator[None]:
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


def http() -> httpx.Client:
    with _building:  # of threads that come first together each would get one of its own
        return _one_http()


@cache
def _one_http() -> httpx.Client:
    return httpx.Client(timeout=httpx.Timeout(settings().s3_answer_seconds, connect=5), trust_env=False)


def ensure_bucket() -> None:
    """Create the bucket where there is none."""
    with translated(""):
        try:
            client().head_bucket(Bucket=bucket())
        except client_error() as error:
            if error.response.get("Error", {}).get("Code") not in {"404", "NoSuchBucket"}:
                raise
            client().create_bucket(Bucket=bucket())


def store_time(answer: Any) -> datetime:
    """When the store gave the answer, by its `Date` header (RFC 9110, 6.6.1), which knows no parts of a second."""
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    return parsedate_to_datetime(headers["date"]) + timedelta(seconds=1)
