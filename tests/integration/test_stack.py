"""The stack on one machine: real servers, a real supervisor, processes of a few lines."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import psutil
import psycopg
import pytest
import redis
from botocore.config import Config

from stack import StackFailed
from stack.up import Stack, running, temporary_folder

NO_REAL_SERVERS = dict.fromkeys(("DATABASE_URL", "REDIS_URL", "S3_ENDPOINT_URL", "ML_SERVICE_URL"), "")

API = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health/ready" else 404)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
POOL = """
import subprocess, sys, time
print("pool started", flush=True)
subprocess.run([sys.executable, "-c", "import time; time.sleep(600)"])
"""
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import signal, time; signal.pause()"])
while True:
    time.sleep(600)
"""


@pytest.fixture
def data_dir() -> Iterator[Path]:
    # not tmp_path: its parents are closed to the user Postgres runs as when the tests run as root
    with contextlib.ExitStack() as cleanup:
        yield temporary_folder(cleanup)


@pytest.fixture
def procfile(tmp_path: Path) -> Callable[..., Path]:
    def write(**programs: str) -> Path:
        lines = []
        for name, source in programs.items():
            (tmp_path / f"{name}.py").write_text(source)
            lines.append(f"{name}: python {tmp_path}/{name}.py")
        (tmp_path / "Procfile").write_text("# of a test\n" + "\n".join(lines) + "\n")
        return tmp_path / "Procfile"

    return write


class Up:
    """``millrace up`` in a process of its own."""

    def __init__(self, data_dir: Path, *options: str) -> None:
        self.output = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "stack.cli", "up", f"--data-dir={data_dir}", "--no-migrate", *options],
            env={**os.environ, **NO_REAL_SERVERS, "PORT": "", "FLOWER_PORT": "", "ML_PORT": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_for(self, text: str) -> None:
        assert self.process.stdout is not None
        while text not in self.output:
            line = self.process.stdout.readline()
            assert line, f"ended without saying {text!r}:\n{self.output}"
            self.output += line

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def finish(self) -> int:
        rest, _ = self.process.communicate(timeout=20)
        self.output += rest
        return self.process.returncode


@contextlib.contextmanager
def up(data_dir: Path, *options: str) -> Iterator[Up]:
    supervisor = Up(data_dir, *options)
    try:
        yield supervisor
    finally:
        if supervisor.process.poll() is None:
            supervisor.process.terminate()
        with contextlib.suppress(ValueError):  # its output was read to the end before
            supervisor.finish()


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    left = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                left.append(process)
    return left


def eventually(check: Callable[[], Any], seconds: float = 40) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := check()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)
    return value


def s3_client(stack: Stack) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=stack.env["S3_ENDPOINT_URL"],
        aws_access_key_id=stack.env["S3_ACCESS_KEY_ID"],
        aws_secret_access_key=stack.env["S3_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def test_the_servers_answer_and_what_they_keep_survives_a_restart(data_dir: Path) -> None:
    with running(data_dir, servers_only=True, env=NO_REAL_SERVERS) as stack:
        with psycopg.connect(stack.env["DATABASE_URL"]) as database:
            database.execute("CREATE TABLE grain (name text)")
            database.execute("INSERT INTO grain VALUES ('рожь')")
        with contextlib.closing(redis.Redis.from_url(stack.env["REDIS_URL"])) as broker:
            assert broker.ping()
            assert broker.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        with contextlib.closing(s3_client(stack)) as s3:
            s3.put_object(Bucket=stack.env["S3_BUCKET"], Key="in/one", Body=b"flour")
        secrets = (data_dir / "secrets.json").read_bytes()

    assert not (data_dir / "stack.env").exists()
    with running(data_dir, servers_only=True, env=NO_REAL_SERVERS) as stack:
        with psycopg.connect(stack.env["DATABASE_URL"]) as database:
            assert database.execute("SELECT upper(name) FROM grain").fetchall() == [("РОЖЬ",)]
            assert database.execute("SHOW fsync").fetchone() == ("on",)
        with contextlib.closing(s3_client(stack)) as s3:
            assert s3.get_object(Bucket=stack.env["S3_BUCKET"], Key="in/one")["Body"].read() == b"flour"
        assert (data_dir / "secrets.json").read_bytes() == secrets


def test_no_server_lets_anyone_in_without_its_password() -> None:
    with running(servers_only=True, env=NO_REAL_SERVERS) as stack:
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(stack.env["DATABASE_URL"].replace("millrace:", "millrace:x", 1)).close()
        address = stack.env["REDIS_URL"].partition("@")[2]
        with (
            contextlib.closing(redis.Redis.from_url(f"redis://{address}")) as broker,
            pytest.raises(redis.AuthenticationError),
        ):
            broker.ping()
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{stack.env['S3_ENDPOINT_URL']}/{stack.env['S3_BUCKET']}/x")
        refused.value.close()
        secrets = [value for name, value in stack.env.items() if "SECRET" in name or "PASSWORD" in name]
        command_lines = [psutil.Process(process.pid).cmdline() for process in stack.processes.values()]
        assert not [secret for secret in secrets if secret in str(command_lines)]


def test_s3_does_what_the_storage_needs() -> None:
    part = os.urandom(5 * 1024**2)
    with running(servers_only=True, env=NO_REAL_SERVERS) as stack, contextlib.closing(s3_client(stack)) as s3:
        at = {"Bucket": stack.env["S3_BUCKET"], "Key": "in/big"}
        upload = s3.create_multipart_upload(**at)["UploadId"]
        tags = [s3.upload_part(**at, UploadId=upload, PartNumber=number, Body=part)["ETag"] for number in (1, 2)]
        parts = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, 1)]
        s3.complete_multipart_upload(**at, UploadId=upload, MultipartUpload={"Parts": parts})
        assert s3.head_object(**at)["ContentLength"] == 2 * len(part)
        assert s3.get_object(**at, Range="bytes=10-19")["Body"].read() == part[10:20]

        left = {**at, "Key": "in/left"}
        upload = s3.create_multipart_upload(**left)["UploadId"]
        s3.upload_part(**left, UploadId=upload, PartNumber=1, Body=part)
        assert [each["Key"] for each in s3.list_multipart_uploads(Bucket=at["Bucket"])["Uploads"]] == ["in/left"]
        s3.abort_multipart_upload(**left, UploadId=upload)
        assert not s3.list_multipart_uploads(Bucket=at["Bucket"]).get("Uploads")

        small = {**at, "Key": "in/small"}
        url = s3.generate_presigned_url("put_object", Params=small, ExpiresIn=60)
        urllib.request.urlopen(urllib.request.Request(url, data=b"bran", method="PUT")).close()
        with urllib.request.urlopen(s3.generate_presigned_url("get_object", Params=small, ExpiresIn=60)) as answer:
            assert answer.read() == b"bran"
        assert [each["Key"] for each in s3.list_objects_v2(Bucket=at["Bucket"])["Contents"]] == ["in/big", "in/small"]


def test_a_real_server_is_used_where_its_variable_names_one() -> None:
    with (
        running(servers_only=True, env=NO_REAL_SERVERS) as real,
        running(servers_only=True, env={**NO_REAL_SERVERS, "REDIS_URL": real.env["REDIS_URL"]}) as stack,
    ):
        assert set(stack.processes) == {"postgres", "s3"}
        published = (stack.data_dir / "stack.env").read_text().splitlines()
        assert f"REDIS_URL={real.env['REDIS_URL']}" in published


def test_a_process_or_server_that_dies_is_started_again(procfile: Callable[..., Path]) -> None:
    listed = procfile(worker=POOL)
    with running(procfile=listed, migrate=False, env=NO_REAL_SERVERS) as stack:
        worker, broker = stack.processes["worker"], stack.processes["redis"]
        first, port = psutil.Process(worker.pid), stack.env["REDIS_URL"]
        children = eventually(first.children)
        first.kill()
        eventually(lambda: worker.pid not in (None, first.pid))
        assert alive([first, *children]) == [], "what a dead process leaves does not go on working"

        broker.kill()
        eventually(lambda: broker.deaths == 1)

        def answers() -> bool:
            with contextlib.closing(redis.Redis.from_url(port)) as client, contextlib.suppress(redis.ConnectionError):
                return bool(client.ping())
            return False

        eventually(answers)

        stack.processes["postgres"].signal(signal.SIGKILL)
        eventually(lambda: _connects(stack))


def _connects(stack: Stack) -> bool:
    with contextlib.suppress(psycopg.OperationalError):
        psycopg.connect(stack.env["DATABASE_URL"], connect_timeout=2).close()
        return stack.processes["postgres"].deaths > 0
    return False


def test_ctrl_c_leaves_no_process_within_15_seconds(data_dir: Path, procfile: Callable[..., Path]) -> None:
    listed = procfile(api=API, worker=POOL, sweeper=STUBBORN)
    with up(data_dir, f"--procfile={listed}") as stack:
        stack.wait_for("Ctrl-C stops everything")
        started = stack.descendants()
        assert {"postgres", "redis-server", "rclone"} <= {process.name() for process in started}
        assert len(started) > 10
        published = (data_dir / "stack.env").read_text()
        begin = time.monotonic()
        stack.process.send_signal(signal.SIGINT)
        assert stack.finish() == 0
        assert time.monotonic() - begin < 15
        assert alive(started) == []
        assert "sweeper did not end within" in stack.output
        assert "MILLRACE_ENV=development" in published
        assert not (data_dir / "stack.env").exists()


def test_a_killed_supervisor_leaves_no_process_and_the_next_start_works(
    data_dir: Path, procfile: Callable[..., Path]
) -> None:
    listed = procfile(api=API, worker=POOL, sweeper=STUBBORN)
    with up(data_dir, f"--procfile={listed}") as stack:
        stack.wait_for("Ctrl-C stops everything")
        started = stack.descendants()
        stack.process.kill()
        assert stack.finish() == -signal.SIGKILL
        with up(data_dir, f"--procfile={listed}", "--only=api") as successor:
            successor.wait_for("ready http://127.0.0.1:")
            assert alive(started) == []


def test_a_second_stack_runs_beside_the_first_but_not_on_its_data(
    data_dir: Path, procfile: Callable[..., Path]
) -> None:
    listed = procfile(api=API)
    with running(data_dir, procfile=listed, migrate=False, env=NO_REAL_SERVERS) as first:
        with running(procfile=listed, migrate=False, env=NO_REAL_SERVERS) as second:
            for stack in (first, second):
                with urllib.request.urlopen(f"{stack.url}/health/ready") as answer:
                    assert answer.status == 200
            assert first.url != second.url
        with up(data_dir) as refused:
            assert refused.finish() == 1
            expected = f"millrace: another `millrace up` (process {os.getpid()}) is using {data_dir}\n"
            assert refused.output == expected
        assert first.processes["api"].deaths == 0


def test_a_process_that_cannot_start_ends_the_start_with_its_log(procfile: Callable[..., Path]) -> None:
    listed = procfile(api=API, worker="raise SystemExit('no such mill')")
    with (
        pytest.raises(StackFailed, match=r"^worker died 3 times while starting") as failed,
        running(procfile=listed, migrate=False, env=NO_REAL_SERVERS),
    ):
        pytest.fail("it was handed over")
    assert "no such mill" in failed.value.tail


def test_a_bad_setting_or_a_taken_port_is_one_line(data_dir: Path) -> None:
    with pytest.raises(StackFailed, match=r"^SWEEP_SECONDS: "):
        running(data_dir, servers_only=True, env={**NO_REAL_SERVERS, "SWEEP_SECONDS": "soon"}).__enter__()
    with running(servers_only=True, env=NO_REAL_SERVERS) as stack:
        taken = int(stack.env["S3_ENDPOINT_URL"].rpartition(":")[2])
        with pytest.raises(StackFailed, match=f"^port {taken} for api is in use"):
            running(data_dir, port=taken, env=NO_REAL_SERVERS).__enter__()
