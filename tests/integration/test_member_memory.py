"""A member of a gibibyte is unpacked on the way: memory stays flat, whoever reads it and however slowly."""

import random
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import psutil
import pytest

from stack.up import Stack, running
from tests.client import User
from tests.tus_client import eventually
from tests.unit.archive_corpus import Member, archive

MIB = 1024**2
SIZE = 1024 * MIB
FLAT = 32 * MIB


def packed() -> tuple[bytes, int]:
    """(deflated data of a gibibyte, checksum): one piece, packed so that it can be repeated, again and again."""
    block = random.Random(1).randbytes(16 * 1024)
    piece = block * (16 * MIB // len(block))
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    once = packer.compress(piece) + packer.flush(zlib.Z_FULL_FLUSH)
    crc = 0
    for _ in range(SIZE // len(piece)):
        crc = zlib.crc32(piece, crc)
    return once * (SIZE // len(piece)) + packer.flush(), crc


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running(env={"ML_SERVICE_URL": "http://127.0.0.1:1"}, only=["api", "worker"]) as stack:
        yield stack


@pytest.fixture(scope="module")
def member(stack: Stack) -> Iterator[tuple[User, str, int]]:
    """(its owner, its path, its checksum)"""
    with User(stack.url) as owner:
        data, crc = packed()
        job = owner.order("a.zip", archive(Member(name=b"a.raw", data=data, size=SIZE, crc=crc, method=8)))
        info = f"/jobs/{job['id']}/zip-info"
        eventually(lambda: owner.http.get(info).status_code == 200, 30)
        yield owner, f"/jobs/{job['id']}/zip-contents/0", crc


@contextmanager
def api_watched(stack: Stack) -> Iterator[dict[str, int]]:
    """``grown``: how many bytes more than at the beginning the API has had resident at most."""
    process, over = psutil.Process(stack.processes["api"].pid), threading.Event()
    idle = process.memory_info().rss
    seen = {"grown": 0}

    def watch() -> None:
        while not over.wait(0.02):
            seen["grown"] = max(seen["grown"], process.memory_info().rss - idle)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def cpu(stack: Stack) -> float:
    times = psutil.Process(stack.processes["api"].pid).cpu_times()
    return float(times.user + times.system)


def url_of(owner: User, path: str) -> str:
    return f"{owner.url}/api/v1{path}"


def first_bytes(owner: User, path: str) -> None:
    with owner.http.stream("GET", path) as answer:
        next(answer.iter_raw())


def test_a_gibibyte_comes_whole_in_flat_memory(stack: Stack, member: tuple[User, str, int]) -> None:
    owner, path, crc = member
    first_bytes(owner, path)  # what is loaded with the first one is not a download's
    size = got = 0
    began = time.monotonic()
    with api_watched(stack) as seen, owner.http.stream("GET", path) as answer:
        for piece in answer.iter_raw():
            size, got = size + len(piece), zlib.crc32(piece, got)
    print(f"{seen['grown'] / MIB:.1f} MiB above idle, {SIZE / MIB / (time.monotonic() - began):.0f} MiB/s")  # noqa: T201
    assert (size, got) == (SIZE, crc)
    assert seen["grown"] < FLAT


def test_readers_that_stop_reading_hold_no_more_than_their_sockets(stack: Stack, member: tuple[User, str, int]) -> None:
    owner, path, _ = member
    with api_watched(stack) as seen, ExitStack() as open_ones:
        for _ in range(8):
            client = open_ones.enter_context(httpx.Client(timeout=30, trust_env=False))
            answer = open_ones.enter_context(client.stream("GET", url_of(owner, path), headers=owner.http.headers))
            next(answer.iter_raw())
        eventually(lambda: still(stack))  # everything is full, up to the store
    print(f"{seen['grown'] / MIB:.1f} MiB above idle")  # noqa: T201
    assert seen["grown"] < 2 * FLAT


def test_nobody_unpacks_for_a_reader_that_has_left(stack: Stack, member: tuple[User, str, int]) -> None:
    owner, path, _ = member
    store = psutil.Process(stack.processes["s3"].pid)
    first_bytes(owner, path)
    before = connections(store)
    for _ in range(8):
        with httpx.Client(timeout=30, trust_env=False) as leaving:
            request = leaving.build_request("GET", url_of(owner, path), headers=owner.http.headers)
            next(leaving.send(request, stream=True).iter_raw())
    eventually(lambda: still(stack))
    eventually(lambda: connections(store) <= before)


def still(stack: Stack) -> bool:
    """Whether the API has nothing to do: a second of unpacking is a second of CPU."""
    before = cpu(stack)
    time.sleep(0.5)
    return cpu(stack) - before < 0.1


def connections(process: psutil.Process) -> int:
    return sum(one.status == psutil.CONN_ESTABLISHED for one in process.net_connections("tcp"))
