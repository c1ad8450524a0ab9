"""PATCH of tus 1.0.0: bytes that follow, of a length known or not, with a checksum, one request at a time."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.tus_client import OCTETS, TUS, TUS_LIMIT, Tus, checksum, code, digest

MIB = 1024**2


@pytest.mark.parametrize("size", [1, 3 * MIB, 5 * MIB, 12 * MIB + 7])
def test_an_upload_in_one_request(tus: Tus, size: int) -> None:
    content = os.urandom(size)
    path = tus.create(size, filename="отчёт.bin", filetype="application/x-report")
    assert tus.offset(path) == 0
    answer = tus.patch(path, 0, content)
    assert answer.status_code == 204, answer.text
    assert answer.headers["Upload-Offset"] == str(size)
    upload = tus.read(path)
    assert upload["state"] == "complete"
    assert answer.headers["Millrace-File"] == upload["file"]["filename"]
    assert (upload["file"]["name"], upload["job_id"]) == ("отчёт.bin", None)
    assert tus.download(path) == content


def test_pieces_below_the_smallest_part_of_the_store(tus: Tus) -> None:
    content = os.urandom(13 * MIB + 11)
    path = tus.create(len(content))
    offset = 0
    while offset < len(content):
        answer = tus.patch(path, offset, content[offset : offset + MIB])
        assert answer.status_code == 204, answer.text
        offset = int(answer.headers["Upload-Offset"])
        assert offset == tus.offset(path)
    assert tus.download(path) == content


def test_a_patch_that_does_not_fit_changes_nothing(tus: Tus) -> None:
    path = tus.create(10)
    assert tus.patch(path, 0, b"12345").status_code == 204
    assert code(tus.patch(path, 0, b"12345")) == (409, "upload_offset_mismatch")
    assert code(tus.patch(path, 6, b"6789")) == (409, "upload_offset_mismatch")
    assert code(tus.patch(path, 5, b"5", Content_Type="text/plain")) == (415, "unsupported_media_type")
    assert code(tus.patch(path, 5, b"678901")) == (413, "body_too_large")
    assert code(tus.patch(path, 5, b"5", Upload_Offset="five")) == (400, "upload_header")
    without = tus.http.patch(f"{tus.url}{path}", headers={**TUS, "Content-Type": OCTETS}, content=b"5")
    assert code(without) == (400, "upload_header")
    assert tus.offset(path) == 5
    assert tus.patch(path, 5, b"67890").status_code == 204
    assert tus.download(path) == b"1234567890"


def test_a_finished_upload_refuses_more_and_its_last_patch_sent_again_makes_nothing(tus: Tus) -> None:
    path = tus.create(4, filename="a.txt", job="inference")
    assert tus.patch(path, 0, b"abcd").status_code == 204
    before = tus.read(path)
    assert code(tus.patch(path, 0, b"abcd")) == (409, "upload_offset_mismatch")
    assert code(tus.patch(path, 4, b"e")) == (409, "conflict")
    assert code(tus.patch(path, 4, b"")) == (409, "conflict")
    assert tus.read(path) == before
    assert len(tus.http.get("/files").json()["items"]) == 1
    assert len(tus.http.get("/jobs").json()["items"]) == 1


def test_more_than_announced_is_refused_where_no_length_is_sent(tus: Tus) -> None:
    path = tus.create(10)
    assert code(tus.patch(path, 0, iter([b"12345", b"67890", b"1"]))) == (413, "body_too_large")
    assert tus.offset(path) in (0, 5, 10)


@pytest.mark.parametrize("size", [3, 5 * MIB, 7 * MIB])
def test_the_length_may_be_said_later(tus: Tus, size: int) -> None:
    content = os.urandom(size)
    path = tus.create(headers={"Upload-Defer-Length": "1"})
    assert tus.head(path).headers["Upload-Defer-Length"] == "1"
    assert "Upload-Length" not in tus.head(path).headers
    assert tus.patch(path, 0, content).status_code == 204
    assert tus.read(path)["state"] == "receiving"
    assert code(tus.patch(path, size, b"", Upload_Length=str(size - 1))) == (400, "upload_header")
    assert code(tus.patch(path, size, b"", Upload_Length=str(TUS_LIMIT + 1))) == (413, "body_too_large")
    assert tus.patch(path, size, b"", Upload_Length=str(size)).status_code == 204
    assert tus.head(path).headers["Upload-Length"] == str(size)
    assert tus.download(path) == content


def test_the_length_once_said_stays(tus: Tus) -> None:
    path = tus.create(headers={"Upload-Defer-Length": "1"})
    assert tus.patch(path, 0, b"ab", Upload_Length="4").status_code == 204
    assert code(tus.patch(path, 2, b"c", Upload_Length="5")) == (400, "upload_header")
    assert tus.patch(path, 2, b"cd", Upload_Length="4").status_code == 204
    assert tus.download(path) == b"abcd"


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "md5"])
def test_bytes_with_another_checksum_are_not_kept(tus: Tus, algorithm: str) -> None:
    path = tus.create(6)
    assert tus.patch(path, 0, b"abc", Upload_Checksum=checksum(algorithm, b"abc")).status_code == 204
    wrong = tus.patch(path, 3, b"dxf", Upload_Checksum=checksum(algorithm, b"def"))
    assert code(wrong) == (460, "checksum_mismatch")
    assert tus.offset(path) == 3
    assert tus.patch(path, 3, b"def", Upload_Checksum=checksum(algorithm, b"def")).status_code == 204
    assert tus.download(path) == b"abcdef"


def test_a_large_body_is_verified_before_anything_of_it_is_kept(tus: Tus) -> None:
    content = os.urandom(17 * MIB)
    path = tus.create(len(content))
    assert tus.patch(path, 0, content[:MIB]).status_code == 204
    rest = content[MIB:]
    wrong = tus.patch(path, MIB, rest[:-1] + bytes([rest[-1] ^ 1]), Upload_Checksum=checksum("sha256", rest))
    assert code(wrong) == (460, "checksum_mismatch")
    assert tus.offset(path) == MIB
    chunks = iter([rest[: 8 * MIB], rest[8 * MIB :]])
    assert tus.patch(path, MIB, chunks, Upload_Checksum=checksum("sha256", rest)).status_code == 204
    assert tus.download(path) == content


def test_a_checksum_must_be_one(tus: Tus) -> None:
    path = tus.create(3)
    for said in ("crc32 YWJj", "sha1", "sha1 YWJj", "sha1 ???"):
        assert code(tus.patch(path, 0, b"abc", Upload_Checksum=said)) == (400, "upload_header")
    assert tus.offset(path) == 0


@pytest.mark.parametrize("field", ["Content_Digest", "Repr_Digest"])
def test_bytes_with_another_digest_are_not_kept(tus: Tus, field: str) -> None:
    content = os.urandom(7 * MIB)
    path = tus.create(len(content) + 3)
    for size, chunked in ((MIB, False), (6 * MIB, True)):  # held in memory, and beside
        offset = tus.offset(path)
        piece = content[offset : offset + size]
        for wrong in (digest(b"abc"), f"{digest(piece)}, {digest(b'abc', 'sha512')}"):
            answer = tus.patch(path, offset, iter([piece]) if chunked else piece, **{field: wrong})
            assert code(answer) == (422, "digest_mismatch")
            assert answer.json()["field"] == field.replace("_", "-")
            assert tus.offset(path) == offset
        right = f"{digest(piece)}, {digest(piece, 'sha512')}, md5=:AAAA:"
        assert tus.patch(path, offset, iter([piece]) if chunked else piece, **{field: right}).status_code == 204
    assert code(tus.patch(path, 7 * MIB, b"abc", **{field: "sha-256=:AAAA:"})) == (400, "malformed_request")
    both = {field: digest(b"abc"), "Upload_Checksum": checksum("sha256", b"abd")}
    assert code(tus.patch(path, 7 * MIB, b"abc", **both)) == (460, "checksum_mismatch")
    assert tus.patch(path, 7 * MIB, b"abc", **{field: digest(b"abc")}).status_code == 204
    assert tus.download(path) == content + b"abc"


def test_of_two_at_once_one_wins_and_nothing_is_mixed(tus: Tus) -> None:
    size = 8 * MIB
    contents = [bytes([which]) * size for which in (1, 2, 3, 4)]
    path = tus.create(size)
    begin = threading.Barrier(len(contents))

    def send(content: bytes) -> httpx.Response:
        begin.wait()
        return tus.patch(path, 0, content)

    with ThreadPoolExecutor(len(contents)) as pool:
        answers = list(pool.map(send, contents))
    assert sorted(answer.status_code for answer in answers)[0] == 204
    assert {answer.status_code for answer in answers if answer.status_code != 204} <= {409, 423}
    (winner,) = [content for content, answer in zip(contents, answers, strict=True) if answer.status_code == 204]
    assert tus.download(path) == winner
