"""An API whose way to the object storage can be shut, and what may be left behind it."""

import time
from collections.abc import Iterator

import httpx
import pytest

from storage import objects
from tests.api_process import ApiProcess
from tests.gate import Gate
from tests.uploading import LIMIT, User, servers, sound_api


@pytest.fixture(scope="module")
def environ() -> Iterator[dict[str, str]]:
    with servers(MAX_UPLOAD_BYTES=str(LIMIT)) as environ:
        public = environ["S3_ENDPOINT_URL"].replace("127.0.0.1", "localhost")
        yield environ | {"S3_PUBLIC_ENDPOINT_URL": public}


@pytest.fixture(scope="module")
def gate(environ: dict[str, str]) -> Iterator[Gate]:
    gate = Gate(httpx.URL(environ["S3_ENDPOINT_URL"]).port or 0)
    yield gate
    gate.listener.close()
    gate.shut()
    for copying in gate.copying:
        copying.join(5)


@pytest.fixture(scope="module")
def api(environ: dict[str, str], gate: Gate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiProcess]:
    log = tmp_path_factory.mktemp("api") / "log"
    through_gate = environ | {"S3_ENDPOINT_URL": f"http://127.0.0.1:{gate.port}"}
    with sound_api(through_gate, log, "tests.uploading:app_with_echo") as api:
        yield api
    assert "Warning" not in log.read_text()


@pytest.fixture(scope="module")
def user(api: ApiProcess) -> User:
    return User(api)


@pytest.fixture(scope="module")
def stranger(api: ApiProcess) -> User:
    return User(api)


@pytest.fixture
def kept_nothing(gate: Gate) -> Iterator[None]:
    """After the test there is no object and no unfinished upload that was not there before."""
    before = objects.below("inputs/")
    yield
    gate.reopen()
    deadline = time.monotonic() + 10
    while (objects.below("inputs/"), objects.unfinished()) != (before, []) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (objects.below("inputs/"), objects.unfinished()) == (before, [])
