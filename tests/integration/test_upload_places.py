"""How many uploads of one owner are under way at once: in all processes together, and no place outlives its upload."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from litestar import Litestar

from tests.api_process import ApiProcess, api_process
from tests.tus_client import OCTETS, TUS
from tests.uploading import User, app_with_echo, connection, servers, sound_api

PLACES = 2
HOLD = 3.0  # seconds, in place of twenty: the place of a dead process is free after so long
PATIENT = 120.0  # seconds a silent client is borne here: these tests are not about slow ones
LENGTH = 10**7
RAW = {"Content-Type": "application/x-test"}
PATCH = {**TUS, "Upload-Offset": "0", "Content-Type": OCTETS}
APP = f"{__name__}:app_with_short_places"


def app_with_short_places() -> Litestar:
    from api.uploads import body, places

    body.WINDOW_SECONDS = PATIENT
    places.HOLD_SECONDS = HOLD
    return app_with_echo()


@pytest.fixture(scope="module")
def environ() -> Iterator[dict[str, str]]:
    with servers(OWNER_UPLOADS_AT_ONCE=str(PLACES)) as environ:
        yield environ


@pytest.fixture(scope="module")
def api(environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiProcess]:
    with sound_api(environ, tmp_path_factory.mktemp("api") / "log", APP) as api:
        yield api


@pytest.fixture
def user(api: ApiProcess) -> User:
    return User(api)


def occupy(user: User, places: ExitStack) -> socket.socket:
    """An upload under way."""
    client = places.enter_context(connection(user, {**RAW, "Content-Length": str(LENGTH)}))
    client.sendall(b"x" * 1000)
    return client


def resumable(user: User, length: int) -> str:
    answer = user("POST", "/uploads", {**TUS, "Upload-Length": str(length)})
    assert answer.status_code == 201, answer.text
    return f"/uploads/{answer.json()['id']}"


def one_more(user: User) -> int:
    answer = user("POST", "/upload", RAW, content=b"x")
    if answer.status_code == 429:
        assert answer.json()["code"] == "too_many_uploads"
        assert int(answer.headers["retry-after"]) >= 1
    else:
        user("DELETE", f"/files/{answer.json()['filename']}")
    return answer.status_code


def until(user: User, status: int, seconds: float = 20) -> float:
    began = time.monotonic()
    while one_more(user) != status:
        assert time.monotonic() - began < seconds, f"no {status} within {seconds} s"
        time.sleep(0.05)
    return time.monotonic() - began


def test_only_so_many_uploads_are_under_way_and_an_end_makes_room(api: ApiProcess, user: User) -> None:
    with ExitStack() as places:
        clients = [occupy(user, places) for _ in range(PLACES)]
        until(user, 429)
        assert one_more(User(api)) == 201, "others have places of their own"
        time.sleep(1.5 * HOLD)
        assert one_more(user) == 429, "a place is kept as long as the upload lasts"
        clients[0].close()  # aborted
        assert until(user, 201) < HOLD, "given back, not run out"


def test_resumable_uploads_take_places_too(api: ApiProcess, user: User) -> None:
    paths = [resumable(user, LENGTH) for _ in range(PLACES + 1)]
    said = {**PATCH, "X-HTTP-Method-Override": "PATCH", "Content-Length": str(LENGTH)}
    with ExitStack() as places:
        clients = [places.enter_context(connection(user, said, path)) for path in paths[:PLACES]]
        for client in clients:
            client.sendall(b"x" * 1000)
        until(user, 429)
        answer = user("PATCH", paths[-1], PATCH, content=b"x")
        assert (answer.status_code, answer.json()["code"]) == (429, "too_many_uploads")
        assert int(answer.headers["retry-after"]) >= 1
        others = User(api)
        assert others("PATCH", resumable(others, 1), PATCH, content=b"x").status_code == 204
        clients[0].close()
        assert until(user, 201) < HOLD, "given back, not run out"


def test_the_places_of_a_process_that_was_killed_are_free_soon(
    environ: dict[str, str], api: ApiProcess, tmp_path: Path
) -> None:
    with api_process(environ, tmp_path / "log", app=APP) as doomed, ExitStack() as places:
        user = User(doomed)
        for _ in range(PLACES):
            occupy(user, places)
        until(user, 429)
        doomed.process.kill()
        doomed.process.wait(5)
    user.api = api  # the same account at another process
    assert until(user, 201, 3 * HOLD) > 0
