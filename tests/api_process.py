"""An API process of a test's own, on servers that are there already. It ends with its block, however the test ends."""

import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from stack.environment import child_environ
from stack.network import answers, free_port
from stack.supervisor import read_procfile, shell
from stack.up import ROOT

APP = "api.app:create_app"
START_SECONDS, STOP_SECONDS = 30.0, 15.0


@dataclass(frozen=True)
class ApiProcess:
    """A running API; ``log`` is all it has written."""

    url: str  # without /api/v1
    port: int
    process: "subprocess.Popen[bytes]"
    log: Path


@contextmanager
def api_process(
    environ: Mapping[str, str], log: Path, *, app: str = APP, graceful_seconds: int | None = None
) -> Iterator[ApiProcess]:
    """An API as the Procfile starts it, where a warning is an error.

    ``app`` names a factory in place of the API's own; ``graceful_seconds`` is how long open requests may go on after
    SIGTERM, None is the Procfile's.

    Raises:
        AssertionError: it does not start, or has not ended 15 s after SIGTERM.
    """
    command = read_procfile(ROOT / "Procfile")["api"].replace(APP, app)
    if graceful_seconds is not None:
        command += f" --timeout-graceful-shutdown {graceful_seconds}"  # the last one counts
    with ExitStack() as processes:
        for _ in range(3):  # somebody else may take the port before it does
            port = free_port()
            own = {"PORT": str(port), "PUBLIC_URL": f"http://127.0.0.1:{port}", "PYTHONWARNINGS": "error"}
            process = processes.enter_context(_running(command, child_environ(environ, own), log))
            if _answers(process, port):
                break
        else:
            raise AssertionError(f"the API did not start:\n{log.read_text()[-4000:]}")
        yield ApiProcess(own["PUBLIC_URL"], port, process, log)


@contextmanager
def _running(command: str, environ: Mapping[str, str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("ab") as sink:
        process = subprocess.Popen(shell(command), env=environ, cwd=ROOT, stdout=sink, stderr=sink)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the API did not end:\n{log.read_text()[-4000:]}") from None


def _answers(process: "subprocess.Popen[bytes]", port: int) -> bool:
    """Whether it is there; False when it has ended."""
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None:
        if answers(port, "/health/live"):
            return True
        assert time.monotonic() < deadline, "the API does not answer"
        time.sleep(0.05)
    return False
