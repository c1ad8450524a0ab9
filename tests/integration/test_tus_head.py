"""HEAD of tus 1.0.0: where an upload stands."""

from email.utils import parsedate_to_datetime

import psycopg

from stack.up import Stack
from tests.tus_client import TUS, Tus, code, meta, partial


def test_head_tells_where_an_upload_stands(tus: Tus) -> None:
    path = tus.create(10, filename="a.txt")
    tus.patch(path, 0, b"12345")
    answer = tus.head(path)
    assert answer.status_code == 200
    assert (answer.headers["Upload-Offset"], answer.headers["Upload-Length"]) == ("5", "10")
    assert answer.headers["Upload-Metadata"] == meta(filename="a.txt")
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Upload-Concat" not in answer.headers
    assert "Millrace-File" not in answer.headers


def test_until_when_an_upload_can_be_gone_on_with_is_said(tus: Tus) -> None:
    created = tus.post(6)
    path = created.headers["Location"]
    answers = [created, tus.patch(path, 0, b"abc"), tus.head(path)]
    times = [parsedate_to_datetime(answer.headers["Upload-Expires"]) for answer in answers]
    assert times == sorted(times)
    assert all(answer.headers["Upload-Expires"].endswith("GMT") for answer in answers)


def test_nobody_else_sees_an_upload(tus: Tus, tus_stack: Stack) -> None:
    path = tus.create(3)
    with Tus(tus_stack.url) as other:
        assert other.head(path).status_code == 404
        assert code(other.patch(path, 0, b"abc")) == (404, "not_found")
        assert other.http.get(f"{tus.url}{path}").status_code == 404
        assert other.http.delete(f"{tus.url}{path}", headers=TUS).status_code == 404
    assert tus.patch(path, 0, b"abc").status_code == 204


def test_the_offset_of_a_final_upload_is_said_when_it_is_whole(tus: Tus, tus_stack: Stack) -> None:
    pieces = [partial(tus, b"abc"), partial(tus, b"de")]
    path = tus.create(headers={"Upload-Concat": "final;" + " ".join(pieces)})
    assert tus.offset(path) == 5
    with psycopg.connect(tus_stack.env["DATABASE_URL"], autocommit=True) as connection:
        became = "UPDATE uploads SET state = %s, finishing_at = now() WHERE id = %s"
        connection.execute(became, ("finishing", path.rpartition("/")[2]))
        head = tus.head(path)
        connection.execute(became, ("complete", path.rpartition("/")[2]))
    assert head.status_code == 200
    assert "Upload-Offset" not in head.headers, "tus 1.0.0, Concatenation"
    assert head.headers["Upload-Length"] == "5"
    assert head.headers["Upload-Concat"] == "final;" + " ".join(pieces)
    assert tus.offset(path) == 5
    assert [tus.offset(piece) for piece in pieces] == [3, 2]
