"""Two clients of others, unmodified, interrupted and resumed: tuspy, and tus-js-client where there are node and npm."""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import pytest
from tusclient.client import TusClient
from tusclient.exceptions import TusUploadFailed

from stack.up import Stack, running
from tests.faults.proxy import Proxy
from tests.tus_client import Tus

MIB = 1024**2
JS = Path(__file__).parents[1] / "tus_js"


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running(only=["api"], env={"LEASE_SECONDS": "3"}) as stack:
        yield stack


@pytest.fixture
def tus(stack: Stack) -> Iterator[Tus]:
    with Tus(stack.url) as user:
        yield user


@pytest.fixture
def proxy(stack: Stack) -> Iterator[Proxy]:
    """What the clients reach the API through."""
    with Proxy(urlsplit(stack.url).port or 0) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample") / "scans.bin"
    path.write_bytes(os.urandom(23 * MIB + 7))
    return path


def only_file(tus: Tus) -> dict[str, Any]:
    (file,) = tus.http.get("/files").json()["items"]
    found: dict[str, Any] = file
    return found


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ---------------------------------------------------------------- tuspy


def endpoint(proxy: Proxy) -> str:
    return f"http://127.0.0.1:{proxy.port}/api/v1/uploads"


def client(tus: Tus, proxy: Proxy) -> TusClient:
    return TusClient(endpoint(proxy), headers={"Authorization": tus.http.headers["Authorization"]})


@pytest.fixture
def content(sample: Path) -> Iterator[BinaryIO]:
    with sample.open("rb") as content:  # a path would be opened by tuspy again and again, and never closed
        yield content


def test_tuspy_goes_on_where_its_connection_broke(tus: Tus, proxy: Proxy, sample: Path, content: BinaryIO) -> None:
    uploader = client(tus, proxy).uploader(file_stream=content, metadata={"filename": "снимки.bin", "job": "inference"})
    proxy.faults.drop_after = 9 * MIB
    with pytest.raises(TusUploadFailed):
        uploader.upload()
    proxy.heal()
    again = client(tus, proxy).uploader(file_stream=content, url=uploader.url)
    assert 5 * MIB <= again.offset <= 9 * MIB
    again.upload()
    file = only_file(tus)
    assert (file["name"], file["sha256"]) == ("снимки.bin", sha256(sample))
    (job,) = tus.http.get("/jobs").json()["items"]
    assert again.request.response_headers["millrace-job"] == job["id"]


def test_tuspy_retries_by_itself_and_sends_checksums(tus: Tus, proxy: Proxy, sample: Path, content: BinaryIO) -> None:
    proxy.faults.lose_answer_to, proxy.faults.lose_answers = b"PATCH ", 1  # done, and the client does not know
    uploader = client(tus, proxy).uploader(
        file_stream=content, chunk_size=6 * MIB, retries=3, retry_delay=0, upload_checksum=True
    )
    uploader.upload()
    assert proxy.lost == 1
    assert only_file(tus)["sha256"] == sha256(sample)


# ---------------------------------------------------------------- tus-js-client


@pytest.fixture(scope="module")
def script(request: pytest.FixtureRequest) -> Path:
    """The script beside the client it imports, installed once into pytest's cache."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("tus-js-client needs node and npm")
    lock = hashlib.sha256((JS / "package-lock.json").read_bytes()).hexdigest()[:12]
    folder: Path = request.config.cache.mkdir(f"tus-js-{lock}")
    for name in ("package.json", "package-lock.json", "upload.js"):
        shutil.copy(JS / name, folder)
    if not (folder / "node_modules/tus-js-client").exists():
        words = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        try:
            installed = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=60)
        except subprocess.TimeoutExpired:
            pytest.skip("npm could not install tus-js-client within a minute")
        if installed.returncode:
            pytest.skip(f"npm could not install tus-js-client: {installed.stderr[-300:]}")
    return folder / "upload.js"


def started(script: Path, tus: Tus, proxy: Proxy, sample: Path, **options: Any) -> "subprocess.Popen[str]":
    said = {
        "path": str(sample),
        "endpoint": endpoint(proxy),
        "headers": {"Authorization": tus.http.headers["Authorization"]},
        "metadata": {"filename": sample.name},
        "retryDelays": [0, 200, 500, 1000, 3000],
        **options,
    }
    return subprocess.Popen(["node", script, json.dumps(said)], stdout=subprocess.PIPE, text=True)


def said(process: "subprocess.Popen[str]") -> list[dict[str, Any]]:
    output, _ = process.communicate(timeout=60)
    lines = [json.loads(line) for line in output.splitlines()]
    assert process.returncode == 0, lines
    return lines


def test_tus_js_client_retries_by_itself(tus: Tus, proxy: Proxy, sample: Path, script: Path) -> None:
    proxy.faults.drop_after = 13 * MIB
    lines = said(started(script, tus, proxy, sample))
    assert any("retry" in line for line in lines)
    resumed = [int(line["offset"]) for line in lines if line.get("method") == "HEAD"]
    # a reset also takes what lay in the buffers of the sockets, some MiB
    assert resumed[0] >= 5 * MIB, "what had come before the break was kept"
    assert only_file(tus)["sha256"] == sha256(sample)


def test_another_tus_js_client_goes_on_with_what_a_killed_one_began(
    tus: Tus, proxy: Proxy, sample: Path, script: Path
) -> None:
    proxy.faults.bytes_per_second = 12 * MIB
    first = started(script, tus, proxy, sample)
    assert first.stdout is not None
    lines = (json.loads(line) for line in first.stdout)
    url = next(line["url"] for line in lines if "url" in line)
    path = urlsplit(url).path
    while tus.read(path)["offset"] < 5 * MIB:
        assert first.poll() is None
    first.kill()
    first.communicate()
    proxy.heal()
    rest = said(started(script, tus, proxy, sample, uploadUrl=url))
    assert [line["method"] for line in rest if "method" in line] == ["HEAD", "PATCH"]
    assert rest[-1] == {"success": url}
    assert only_file(tus)["sha256"] == sha256(sample)


def test_tus_js_client_begins_with_the_first_bytes(tus: Tus, proxy: Proxy, sample: Path, script: Path) -> None:
    lines = said(started(script, tus, proxy, sample, uploadDataDuringCreation=True, chunkSize=4 * MIB))
    assert [line["status"] for line in lines if "status" in line] == [201, *[204] * 5]
    assert only_file(tus)["sha256"] == sha256(sample)
