"""What an owner may keep holds for resumable uploads at every step of theirs, and a refusal leaves nothing behind."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from domain.errors.neighbours import ObjectMissing
from stack.up import Stack, running
from storage import objects
from storage.database import autocommit
from tests.own_settings import settings_of
from tests.tus_client import TUS, Tus, checksum, eventually

MIB = 1024**2
BYTES = 10 * MIB


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    env = {"OWNER_MAX_BYTES": str(BYTES), "OWNER_MAX_FILES": "2"}
    with running(only=["api"], env=env) as stack, settings_of({**stack.env, **env}):
        yield stack


@pytest.fixture
def tus(stack: Stack) -> Iterator[Tus]:
    with Tus(stack.url) as user:
        yield user


def refused(answer: httpx.Response) -> dict[str, Any]:
    assert (answer.status_code, answer.json()["code"]) == (413, "storage_quota_exceeded"), answer.text
    details: dict[str, Any] = answer.json()["details"]
    return details


def deferred(tus: Tus, **headers: str) -> str:
    return tus.create(headers={"Upload-Defer-Length": "1", **headers})


def end(tus: Tus, path: str) -> None:
    tus.http.delete(f"{tus.url}{path}", headers=TUS).raise_for_status()


@pytest.fixture
def nothing_left() -> Iterator[None]:
    before = set(objects.below(""))
    yield
    assert (set(objects.below("")), objects.unfinished()) == (before, [])


# ---------------------------------------------------------------- the end


@pytest.mark.parametrize("size", [3 * MIB, 7 * MIB], ids=["without a part", "with parts"])
def test_a_whole_upload_that_may_be_no_file_is_deleted_with_what_it_had(
    tus: Tus, nothing_left: None, size: int
) -> None:
    path = tus.create(size)
    with autocommit() as connection:  # the room is taken after its beginning: as when the limit is made smaller
        take = text("""
            INSERT INTO direct_uploads (id, owner_id, name, size, part_size, upload_id, expires_at)
            SELECT :other, owner_id, 'a', :bytes, :bytes, 'none', now() + interval '1 hour' FROM uploads WHERE id = :id
            """)
        values = {"other": uuid4(), "bytes": BYTES, "id": path.rpartition("/")[2]}
        connection.execute(take, values)
    assert refused(tus.patch(path, 0, os.urandom(size))) == {
        "unit": "bytes", "limit": BYTES, "used": BYTES, "asked": size,
    }  # fmt: skip
    assert tus.head(path).status_code == 404


# ---------------------------------------------------------------- of unknown length


def test_bytes_of_unknown_length_count_as_they_come(tus: Tus) -> None:
    first, second = deferred(tus), deferred(tus)
    assert tus.patch(first, 0, bytes(9 * MIB)).status_code == 204
    assert refused(tus.patch(second, 0, bytes(2 * MIB)))["used"] == 9 * MIB
    assert tus.patch(second, 0, bytes(MIB)).status_code == 204, "to the last byte"
    refused(tus.patch(first, 9 * MIB, b"x"))
    refused(tus.patch(first, 9 * MIB, b"", Upload_Length=str(9 * MIB + 1)))
    end(tus, second)
    assert tus.patch(first, 9 * MIB, b"", Upload_Length=str(9 * MIB)).status_code == 204
    assert tus.read(first)["file"]["size"] == 9 * MIB


def test_a_body_of_unknown_length_ends_where_the_room_does(tus: Tus) -> None:
    path = deferred(tus)
    refused(tus.patch(path, 0, iter([bytes(MIB)] * 14)))
    kept = tus.offset(path)
    assert kept == 10 * MIB, "whole parts"
    assert tus.patch(path, kept, b"", Upload_Length=str(kept)).status_code == 204
    assert tus.read(path)["file"]["size"] == kept


def test_a_body_that_is_kept_whole_or_not_at_all_is_not_kept_in_part(tus: Tus, nothing_left: None) -> None:
    path, content = deferred(tus), os.urandom(11 * MIB)
    refused(tus.patch(path, 0, iter([content]), Upload_Checksum=checksum("sha256", content)))
    assert tus.offset(path) == 0
    end(tus, path)


def test_several_of_unknown_length_at_once_do_not_pass_it_together(tus: Tus, nothing_left: None) -> None:
    """Not for a moment: what is in the storage is looked at all the while."""
    paths, over, most = [deferred(tus, **{"Upload-Concat": "partial"}) for _ in range(4)], threading.Event(), [0]

    def watch() -> None:
        while not over.wait(0.05):
            most[0] = max(most[0], stored())

    def send(path: str) -> int:
        return tus.patch(path, 0, iter([bytes(MIB)] * 7)).status_code

    with ThreadPoolExecutor(5) as pool:
        watching = pool.submit(watch)
        answers = list(pool.map(send, paths))
        over.set()
        watching.result()
    kept = [tus.offset(path) for path in paths]
    assert 413 in answers
    assert set(answers) <= {204, 413}
    assert sum(kept) <= BYTES
    assert most[0] <= BYTES, "not even until they end"
    for path in paths:
        end(tus, path)


def stored() -> int:
    """Bytes of unfinished uploads in the storage: whole parts, and the tails beside them."""
    with autocommit() as connection:
        rows = connection.execute(text("SELECT object_key, multipart_id FROM uploads WHERE multipart_id IS NOT NULL"))
        begun = [(row.object_key, row.multipart_id) for row in rows]
    parts = 0
    for key, multipart_id in begun:
        with suppress(ObjectMissing):  # it has just ended
            parts += sum(part.size for part in objects.parts_of(key, multipart_id).values())
    return parts


def test_those_that_end_together_keep_what_there_is_room_for(tus: Tus, nothing_left: None) -> None:
    paths = [deferred(tus) for _ in range(2)]

    def send(path: str) -> httpx.Response:
        return tus.patch(path, 0, os.urandom(6 * MIB), Upload_Length=str(6 * MIB))

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(send, paths))
    assert sorted(answer.status_code for answer in answers) == [204, 413]
    for path, answer in zip(paths, answers, strict=True):
        if answer.status_code == 413:
            assert refused(answer)["limit"] == BYTES
            assert tus.offset(path) == 0
        else:
            tus.http.delete(f"/files/{answer.headers['Millrace-File']}").raise_for_status()
        end(tus, path)


# ---------------------------------------------------------------- partial uploads


def test_partial_uploads_count_from_their_beginning(tus: Tus, nothing_left: None) -> None:
    paths = [tus.create(4 * MIB, {"Upload-Concat": "partial"}) for _ in range(2)]
    for path in paths:
        assert tus.patch(path, 0, bytes(4 * MIB)).status_code == 204
    assert refused(tus.post(4 * MIB, {"Upload-Concat": "partial"}))["used"] == 8 * MIB
    later = deferred(tus, **{"Upload-Concat": "partial"})
    refused(tus.patch(later, 0, bytes(4 * MIB)))
    refused(tus.post(3 * MIB))
    for path in (*paths, later):
        end(tus, path)
    whole = tus.create(BYTES)
    end(tus, whole)


def test_what_a_final_upload_is_made_of_counts_with_it_and_goes_after_it(tus: Tus) -> None:
    paths = [tus.create(size, {"Upload-Concat": "partial"}) for size in (3 * MIB, 6 * MIB)]
    for path, size in zip(paths, (3 * MIB, 6 * MIB), strict=True):
        assert tus.patch(path, 0, bytes(size)).status_code == 204
    concat = {"Upload-Concat": "final;" + " ".join(paths)}
    refused(tus.post(headers={"Upload-Concat": "final;" + " ".join([*paths, paths[0]])}))
    answer = tus.post(headers=concat)
    assert answer.status_code == 201, answer.text
    file = answer.json()["file"]
    assert file["size"] == 9 * MIB
    refused(tus.post(2 * MIB))
    refused(tus.post(headers=concat))
    with autocommit() as connection:
        soon = text("SELECT expires_at < now() + interval '2 minutes' FROM uploads WHERE id = ANY(:ids)")
        values = {"ids": [path.rpartition("/")[2] for path in paths]}
        assert connection.execute(soon, values).scalars().all() == [True, True]
    tus.http.delete(f"/files/{file['filename']}").raise_for_status()
    again = tus.post(headers=concat)
    assert again.status_code == 201, "whoever lost the answer may order it once more"
    eventually(lambda: tus.read(again.headers["Location"])["file"])


def test_partial_uploads_are_no_files(tus: Tus) -> None:
    paths = [tus.create(1, {"Upload-Concat": "partial"}) for _ in range(3)]
    for path in paths:
        assert tus.patch(path, 0, b"x").status_code == 204
    for _ in range(2):
        assert tus.post(0).status_code == 201
    assert refused(tus.post(headers={"Upload-Concat": "final;" + " ".join(paths)}))["unit"] == "files"
