"""Many slow uploads at once need little memory: what comes is passed on, however slowly it comes."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import psutil
import pytest

from storage import objects
from tests.tus_client import OCTETS, TUS
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


@contextmanager
def peak_of(process: psutil.Process) -> Iterator[list[int]]:
    """The highest resident bytes above those of the beginning, after the block."""
    idle = highest = process.memory_info().rss
    over, peak = threading.Event(), [0]

    def watch() -> None:
        nonlocal highest
        while not over.wait(0.005):
            highest = max(highest, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        over.set()
        watcher.join()
        peak[0] = highest - idle


@pytest.mark.parametrize("at_once", [1, 4])
def test_a_resumable_upload_needs_a_mib_beside_its_two_parts(user: User, at_once: int) -> None:
    size, parts = 60 * MIB, 2 * objects.SMALLEST_PART

    def send(_: int) -> int:
        begun = user("POST", "/uploads", {**TUS, "Upload-Length": str(size)})
        path = f"/uploads/{begun.json()['id']}"
        said = {**TUS, "Upload-Offset": "0", "Content-Type": OCTETS}
        return user("PATCH", path, said, content=(bytes(MIB) for _ in range(size // MIB))).status_code

    send(0)  # what is loaded with the first one is not an upload's
    with peak_of(psutil.Process(user.api.process.pid)) as peak, ThreadPoolExecutor(at_once) as pool:
        assert list(pool.map(send, range(at_once))) == [204] * at_once
    print(f"{peak[0] / MIB:.1f} MiB above idle")  # noqa: T201
    assert peak[0] < at_once * (parts + MIB)
