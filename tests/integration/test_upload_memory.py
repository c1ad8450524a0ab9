"""Many slow uploads at once need little memory: what comes is passed on, however slowly it comes."""

import time
from collections.abc import Iterator
from contextlib import ExitStack

import psutil
import pytest

from tests.uploading import FORM, User, answer_on, chunk, connection, form, servers, sound_api

KIB, MIB = 1024, 1024**2
AT_ONCE = 64
PIECE = 64 * KIB
HEAD, END = form(('name="file"; filename="a"', b""), end=b"")[:-2], b"\r\n--xyz--\r\n"
WAYS = {"form": (FORM, HEAD, END), "body": ({"Content-Type": "application/x-test"}, b"", b"")}


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    with servers() as environ, sound_api(environ, tmp_path_factory.mktemp("api") / "log") as api:
        user = User(api)
        user.upload(b"what is loaded with the first upload is not an upload's")
        yield user


@pytest.mark.parametrize(
    ("way", "size"),
    [("form", 1 * MIB), ("body", 1 * MIB), ("form", 6 * MIB)],
    ids=["form, one PUT", "body, one PUT", "form, parts"],
)
def test_sixty_four_slow_uploads_at_once_are_under_80_mib(user: User, way: str, size: int) -> None:
    kind, start, end = WAYS[way]
    length = {"Content-Length": str(len(start) + size + len(end))}
    process = psutil.Process(user.api.process.pid)
    peak = idle = process.memory_info().rss
    slow = min(size, 1 * MIB)
    with ExitStack() as open_ones:
        clients = [open_ones.enter_context(connection(user, {**kind, **length})) for _ in range(AT_ONCE)]
        for client in clients:
            client.sendall(start)
        for _ in range(0, slow, PIECE):  # a piece of each in turn, and all of them unfinished
            for client in clients:
                client.sendall(bytes(PIECE))
            time.sleep(0.05)
            peak = max(peak, process.memory_info().rss)
        for client in clients:  # then each to its end
            client.sendall(bytes(size - slow) + end)
            assert answer_on(client).status_code == 201
            peak = max(peak, process.memory_info().rss)
    print(f"{(peak - idle) / MIB:.1f} MiB above idle")  # noqa: T201
    assert peak - idle < 80 * MIB


def test_clients_that_have_hardly_begun_hold_no_memory_of_others(user: User) -> None:
    """What comes without a length is held back part by part, and there is memory for four of them."""
    unknown = {"Content-Type": "application/x-test", "Transfer-Encoding": "chunked"}
    with ExitStack() as open_ones:
        clients = [open_ones.enter_context(connection(user, unknown)) for _ in range(AT_ONCE)]
        for client in clients:
            client.sendall(chunk(bytes(PIECE)))
        began = time.monotonic()
        assert user("POST", "/upload", unknown, content=iter([bytes(6 * MIB)])).status_code == 201
        assert time.monotonic() - began < 5
        for client in clients:
            client.sendall(chunk(bytes(5 * MIB)) + b"0\r\n\r\n")
            assert answer_on(client).status_code == 201
