"""Whole objects, ranges of them, and lists of what is there."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import islice
from typing import NamedTuple

import httpx

from domain.errors.neighbours import ObjectMissing, StorageUnavailable
from domain.errors.requests import BodyTooLarge
from storage.objects.connection import MISSING, bucket, client, http, store_time, translated
from storage.objects.presigned import presign_get, presign_put

DELETE_BATCH = 1000  # what one DeleteObjects may name (S3 API reference)


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
            request = http().build_request("GET", url, headers={**headers, "Accept-Encoding": "identity"})
            response = http().send(request, stream=True)
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


def put(key: str, data: bytes, content_type: str = "application/octet-stream") -> None:
    """Write a whole small object; a second write of the same key replaces the first.

    Signed by boto3 and sent by httpx, as in ``_getting``. When that does not succeed, boto3 tries again in its own
    patient way, and what it says in the end is what is raised.
    """
    try:
        headers = {"Content-Type": content_type}
        if http().put(presign_put(key, 300, content_type), content=data, headers=headers).is_success:
            return
    except httpx.TimeoutException as error:
        raise StorageUnavailable(retry_after=1, key=key) from error  # a store that hangs does so for boto3 too
    except httpx.TransportError:
        pass
    with translated(key):
        client().put_object(Bucket=bucket(), Key=key, Body=data, ContentType=content_type)


def size_of(key: str) -> int:
    """Size in bytes."""
    with translated(key):
        return client().head_object(Bucket=bucket(), Key=key)["ContentLength"]


def below(prefix: str) -> list[str]:
    """The keys that begin with ``prefix``."""
    with translated(prefix):
        pages = client().get_paginator("list_objects_v2").paginate(Bucket=bucket(), Prefix=prefix)
        return [one["Key"] for page in pages for one in page.get("Contents", [])]


class Listed(NamedTuple):
    key: str
    age: timedelta  # by the store's own clock, so that nobody's clock but one has a say


def listed(prefix: str, after: str, limit: int = 1000) -> tuple[list[Listed], bool]:
    """At most ``limit`` (up to 1000) objects below ``prefix`` whose keys follow ``after``, by the bytes of their keys;
    and whether there are more."""
    with translated(prefix):
        page = client().list_objects_v2(Bucket=bucket(), Prefix=prefix, StartAfter=after, MaxKeys=limit)
    now = store_time(page)
    found = [Listed(one["Key"], now - one["LastModified"]) for one in page.get("Contents", [])]
    return found, page["IsTruncated"]


def delete(keys: Iterable[str]) -> None:
    """Delete objects; a key that is not there counts as deleted."""
    rest = iter(keys)
    while batch := list(islice(rest, DELETE_BATCH)):
        with translated(batch[0]):
            answer = client().delete_objects(
                Bucket=bucket(), Delete={"Objects": [{"Key": key} for key in batch], "Quiet": True}
            )
            if left := [error for error in answer.get("Errors", []) if error.get("Code") not in MISSING]:
                raise StorageUnavailable(key=left[0].get("Key"))
