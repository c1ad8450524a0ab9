"""How fast and how flat an upload goes through the API, against uploads straight to the same S3.

The same file goes to the same `rclone serve s3` by curl through POST /upload, which parses the form, hashes and sniffs
the bytes and passes them on, and without an API in between: by curl to a presigned PUT or by boto3's own multipart
upload, whichever is faster here. Further reports have the file as the body itself against that baseline, and a form and
a resumable upload in one PATCH against the file as the body. Eight uploads at once show how much memory they need.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.measure import Report, Run, alternate, cpu_seconds
from stack.up import running
from tests.own_settings import settings_of

MIB = 1024**2
GIB = 1024**3
AT_ONCE = 8
KEY = "inputs/benchmark"


class Bench:
    """An API process with its servers, an account, and the ways a file can go."""

    def __init__(self, api: int, store: int, url: str) -> None:
        from storage import objects

        self.api, self.store, self.url, self.objects = api, store, url, objects
        self.headers = _log_in(url)

    def ours(self, file: Path, *curl: str) -> Run:
        """CPU seconds are the API's alone: what it adds to any other way."""
        words = [word for name, value in self.headers.items() for word in ("-H", f"{name}: {value}")]
        made: dict[str, Any] = {}

        def send() -> None:
            form = ["-H", "Expect:", *curl, "-F", f"file=@{file};filename=a.bin"]
            made.update(json.loads(_curl(*words, *form, f"{self.url}/upload")))

        run = self._measured(send, file, [self.api])
        if made["size"] != file.stat().st_size:
            raise RuntimeError(f"{made['size']} bytes arrived")
        self.objects.delete([f"inputs/{made['id']}"])
        return run

    def raw(self, file: Path) -> Run:
        """The same file as the body itself."""
        words = [word for name, value in self.headers.items() for word in ("-H", f"{name}: {value}")]
        made: dict[str, Any] = {}

        def send() -> None:
            made.update(json.loads(_curl(*words, "-H", "Expect:", "-T", str(file), f"{self.url}/upload")))

        run = self._measured(send, file, [self.api])
        self.objects.delete([f"inputs/{made['id']}"])
        return run

    def tus(self, file: Path) -> Run:
        """The same file as a resumable upload, in one PATCH."""
        words = [word for name, value in self.headers.items() for word in ("-H", f"{name}: {value}")]
        words += ["-H", "Tus-Resumable: 1.0.0", "-H", "Expect:"]
        made: dict[str, Any] = {}

        def send() -> None:
            begin = httpx.post(
                f"{self.url}/uploads",
                headers={**self.headers, "Tus-Resumable": "1.0.0", "Upload-Length": str(file.stat().st_size)},
            )
            path = f"{self.url.removesuffix('/api/v1')}{begin.headers['location']}"
            patch = ["-X", "PATCH", "-H", "Upload-Offset: 0", "-H", "Content-Type: application/offset+octet-stream"]
            _curl(*words, *patch, "-T", str(file), path)
            made.update(httpx.get(path, headers=self.headers).json()["file"])

        run = self._measured(send, file, [self.api])
        self.objects.delete([f"inputs/{made['id']}"])
        return run

    def curl(self, file: Path) -> Run:
        url = self.objects.presign_put(KEY, 3600)
        return self._measured(lambda: _curl("-T", str(file), url), file, [])

    def boto3(self, file: Path) -> Run:
        client, bucket = self.objects.client(), os.environ["S3_BUCKET"]
        return self._measured(lambda: client.upload_file(str(file), bucket, KEY), file, [])

    def faster_baseline(self, file: Path, pairs: int = 2) -> str:
        """Which of the two is better, by their best runs."""
        found = alternate(pairs, lambda: self.curl(file), lambda: self.boto3(file), warm_up=False)
        by_curl, by_boto3 = max(pair.ours.value for pair in found), max(pair.baseline.value for pair in found)
        return "curl" if by_curl >= by_boto3 else "boto3"

    def memory(self, file: Path, *curl: str) -> int:
        """Resident bytes of the API above idle, at most, with eight uploads at once."""
        process = psutil.Process(self.api)
        idle = peak = process.memory_info().rss
        over = threading.Event()

        def watch() -> None:
            nonlocal peak
            while not over.wait(0.01):
                peak = max(peak, process.memory_info().rss)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(lambda _: self.ours(file, *curl), range(AT_ONCE)))
        finally:
            over.set()
            watcher.join()
        return int(peak - idle)

    def _measured(self, send: Callable[[], object], file: Path, pids: list[int]) -> Run:
        size = file.stat().st_size
        cpu, began = cpu_seconds(pids), time.perf_counter()
        send()
        seconds = time.perf_counter() - began
        return Run(value=size / MIB / seconds, cpu_seconds=cpu_seconds(pids) - cpu, units=size / GIB)


@contextmanager
def bench() -> Iterator[Bench]:
    with running(servers_only=True) as stack, settings_of({**stack.env, "LOG_LEVEL": "warning"}):
        from migrations.__main__ import upgrade
        from storage import objects
        from storage.database import engine

        upgrade()
        objects.ensure_bucket()
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
        words = ["uvicorn", "--factory", "api.app:create_app", "--port", str(port), "--no-access-log"]
        words += ["--loop", "uvloop", "--http", "httptools", "--log-level", "warning"]
        process = subprocess.Popen([sys.executable, "-m", *words], env=dict(os.environ))
        try:
            yield Bench(process.pid, stack.processes["s3"].pid or 0, f"http://127.0.0.1:{port}/api/v1")
        finally:
            process.terminate()
            process.wait(15)
            engine().dispose()


def main(pairs: int = 7, mib: int = 1024, each_mib: int = 200) -> list[Report]:
    """Measure; about two minutes and, for a while, 3 GiB of disk."""
    if shutil.which("curl") is None:
        raise SystemExit("curl is needed: it sends the file")
    with tempfile.TemporaryDirectory(prefix="millrace-benchmark-") as folder, bench() as way:
        way.ours(_random_file(Path(folder), 8 * MIB))  # what is loaded with the first upload is not an upload's
        each = _random_file(Path(folder), each_mib * MIB)
        known = way.memory(each)
        unknown = way.memory(each, "-H", "Transfer-Encoding: chunked")
        each.unlink()

        file = _random_file(Path(folder), mib * MIB)
        report = Report("upload", "MiB/s", "0.75; memory at most 64 MiB above idle", "higher")
        baseline = way.faster_baseline(file)
        store = cpu_seconds([way.store])
        report.pairs = alternate(pairs, lambda: way.ours(file), lambda: getattr(way, baseline)(file))
        report.extra = {
            "baseline": baseline,
            "bytes": mib * MIB,
            "store_cpu_seconds_per_gib": round((cpu_seconds([way.store]) - store) / (2 * pairs + 2) / mib * 1024, 2),
            "memory_mib_above_idle": round(known / MIB, 1),
            "memory_mib_above_idle_unknown_length": round(unknown / MIB, 1),
            "uploads_at_once": f"{AT_ONCE} of {each_mib} MiB",
        }
        report.show()
        raw = Report("upload-raw", "MiB/s", "0.75, then 0.95", "higher")
        raw.pairs = alternate(pairs, lambda: way.raw(file), lambda: getattr(way, baseline)(file))
        raw.extra = {"baseline": baseline}
        raw.show()
        form = Report("upload-form", "MiB/s", "0.95 of the file as the body itself", "higher")
        form.pairs = alternate(pairs, lambda: way.ours(file), lambda: way.raw(file))
        form.show()
        tus = Report("upload-tus", "MiB/s", "0.75 of the file as the body itself", "higher")
        tus.pairs = alternate(pairs, lambda: way.tus(file), lambda: way.raw(file))
        tus.show()
    return [report, raw, form, tus]


def _curl(*words: str) -> bytes:
    return subprocess.run(["curl", "-sSf", *words], check=True, capture_output=True).stdout


def _log_in(url: str) -> dict[str, str]:
    login = {"username": "benchmark", "password": "correct horse battery"}
    for _ in range(200):
        try:
            httpx.post(f"{url}/auth/register", json=login).raise_for_status()
            break
        except httpx.TransportError:  # it is still starting
            time.sleep(0.1)
    return {"Authorization": f"Bearer {httpx.post(f'{url}/auth/login', json=login).json()['access_token']}"}


def _random_file(folder: Path, size: int) -> Path:
    path = folder / f"{size}.bin"
    with path.open("wb") as file:
        for at in range(0, size, 16 * MIB):
            file.write(os.urandom(min(16 * MIB, size - at)))
    return path


if __name__ == "__main__":
    import argparse

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--mib", type=int, default=1024, help="size of the file")
    parser.add_argument("--each-mib", type=int, default=200, help="size of each of the eight uploads at once")
    options = parser.parse_args()
    main(options.pairs, options.mib, options.each_mib)
