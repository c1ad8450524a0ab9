"""The command line as people and scripts use it: real processes of ``millrace`` against a running stack."""

import csv
import io
import json
import os
import pty
import re
import secrets
import select
import signal
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from domain.results import parse
from stack.samples import make_archive
from stack.up import Stack
from tests.client import User

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
MILLRACE = str(BIN / "millrace")
PASSWORD = "correct horse battery"


class Terminal:
    """A user's environment: a home, an account (unless ``token`` is the way in), and the command."""

    def __init__(self, url: str, home: Path, token: str = "") -> None:
        self.url, self.home = url, home
        self.config = home / "config"
        self.username = f"user-{secrets.token_hex(6)}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MILLRACE_", "LC_", "XDG_"))}
        self.env = {**kept, "XDG_CONFIG_HOME": str(self.config), "LANG": "en_GB.UTF-8", "COLUMNS": "150"}
        self.env |= {"MILLRACE_URL": url, "MILLRACE_TOKEN": token, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}

    def start(self, *words: str, **more: Any) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [MILLRACE, *words], env=self.env, cwd=self.home, stdin=pipe, stdout=pipe, stderr=pipe, text=True, **more
        )

    def run(self, *words: str, said: str = "", exit_code: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [MILLRACE, *words],
            env=self.env | env,
            cwd=self.home,
            input=said,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == exit_code, (words, done)
        assert "Traceback" not in done.stderr
        return done


@pytest.fixture
def http(stack: Stack) -> Iterator[User]:
    with User(stack.url) as user:
        yield user


@pytest.fixture
def at(http: User, tmp_path: Path) -> Terminal:
    """Signed in by ``MILLRACE_TOKEN`` as ``http`` is."""
    (tmp_path / "sample.zip").write_bytes(make_archive())
    (tmp_path / "note.txt").write_text("some text\n" * 30)
    (tmp_path / "broken.zip").write_text("this is a text and no archive, whatever its name says")
    return Terminal(http.url, tmp_path, http.http.headers["Authorization"].removeprefix("Bearer "))


def pending(http: User) -> str:
    """A job that stays as it is until it is given a file."""
    job_id: str = http.http.post("/jobs", json={"title": "later"}).raise_for_status().json()["id"]
    return job_id


# ---------------------------------------------------------------- who


def test_the_token_is_kept_for_its_server_and_readable_by_its_owner_only(stack: Stack, tmp_path: Path) -> None:
    at = Terminal(stack.url, tmp_path)
    said = at.run("login", at.username, "--register", said=f"{PASSWORD}\n")
    assert PASSWORD not in said.stdout + said.stderr
    tokens = at.config / "millrace" / "tokens"
    (path,) = tokens.iterdir()
    assert [stat.S_IMODE(one.stat().st_mode) for one in (path, tokens)] == [0o600, 0o700]
    token = json.loads(path.read_text())["access_token"]
    assert at.run("whoami").stdout == f"{at.username}\n"
    assert "(wrong_credentials, " in at.run("login", at.username, said="wrong\n", exit_code=4).stderr
    assert json.loads(path.read_text())["access_token"] == token
    at.run("login", at.username, MILLRACE_PASSWORD=PASSWORD)
    at.run("logout")
    assert list(tokens.iterdir()) == []
    assert "millrace login" in at.run("whoami", exit_code=4).stderr
    assert json.loads(at.run("whoami", "--json", MILLRACE_TOKEN=token).stdout)["username"] == at.username


# ---------------------------------------------------------------- the whole way


def test_a_file_goes_the_whole_way_with_plain_lines_in_a_pipe(at: Terminal) -> None:
    job_id = at.run("upload", "sample.zip", "--title", "Архив \x1b[31m").stdout.strip()
    watched = at.run("watch", job_id).stdout
    assert "\x1b" not in watched
    stages = [line.split()[2] for line in watched.splitlines()]
    assert [stages[0], stages[-1]] == ["queued", "succeeded"]
    assert {"inspect", "submit", "parse"} <= set(stages)

    rows = list(csv.DictReader(io.StringIO(at.run("results", job_id, "--csv").stdout)))
    document = json.loads(at.run("results", job_id, "--json").stdout)
    assert [row["path"] for row in rows] == [row["path"] for row in document["rows"]]
    assert len(rows) == document["summary"]["rows"] == len(zipfile.ZipFile(at.home / "sample.zip").namelist())
    assert {row["flagged"] for row in rows} == {"true", "false"}
    at.run("results", job_id, "--xlsx")
    assert len(parse((at.home / f"{job_id}.xlsx").read_bytes()).rows) == len(rows)
    at.run("results", job_id, "--json", "-o", "results.json")
    assert json.loads((at.home / "results.json").read_text()) == document

    (line,) = at.run("jobs").stdout.splitlines()
    assert line.split("\t")[:3] == [job_id, "succeeded", "100"]
    (job,) = json.loads(at.run("jobs", "--json", "--status", "succeeded").stdout)
    assert (job["id"], job["title"]) == (job_id, "Архив \x1b[31m")
    assert at.run("jobs", "--status", "failed").stdout == ""

    again = at.run("retry", job_id, "--watch", "--json").stdout
    assert [json.loads(again)[name] for name in ("parent_id", "status")] == [job_id, "succeeded"]


def test_several_files_are_several_jobs_and_the_worst_end_counts(at: Terminal) -> None:
    done = at.run("upload", "--watch", "note.txt", "broken.zip", "sample.zip", "--priority", "high", exit_code=1)
    ids = done.stdout.split()
    jobs = {job["id"]: job for job in json.loads(at.run("jobs", "--json").stdout)}
    assert [jobs[job_id]["title"] for job_id in ids] == ["note.txt", "broken.zip", "sample.zip"]
    assert [jobs[job_id]["status"] for job_id in ids] == ["succeeded", "failed", "succeeded"]
    assert f"{ids[1]} failed in inspect: archive_not_zip: " in done.stderr
    done = at.run("upload", "--watch", "--json", "--deep", "sample.zip")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["status"], line["inspection"]) for line in lines] == [("succeeded", "deep")]


def test_events_as_json_are_those_of_the_stream(at: Terminal, http: User) -> None:
    job_id = at.run("upload", "note.txt").stdout.strip()
    at.run("watch", job_id)
    lines = [json.loads(line) for line in at.run("watch", job_id, "--json").stdout.splitlines()]
    assert lines == [event.body for event in http.events(job_id)]


def test_one_upload_key_is_one_job(at: Terminal) -> None:
    words = ("upload", "note.txt", "--idempotency-key", "once-is-enough")
    assert at.run(*words).stdout == at.run(*words).stdout
    assert len(json.loads(at.run("jobs", "--json").stdout)) == 1


# ---------------------------------------------------------------- exit codes


def test_a_job_that_is_cancelled_ends_the_watching_with_5(at: Terminal, http: User) -> None:
    job_id = pending(http)
    watching = at.start("watch", job_id)
    assert watching.stdout is not None
    assert watching.stdout.readline() == "  0 % created\n"
    assert "cancelled" in at.run("cancel", job_id).stderr
    _, said = watching.communicate(timeout=20)
    assert (watching.returncode, said) == (5, f"millrace: {job_id} was cancelled\n")
    assert json.loads(at.run("cancel", job_id, "--json").stdout)["status"] == "cancelled"


def test_what_the_server_refuses_is_6(at: Terminal, http: User) -> None:
    nothing = "01994d2e-6a50-7b3d-8c21-5d1f0e9a4b77"
    for words in (("watch", nothing), ("cancel", nothing), ("retry", nothing), ("results", nothing)):
        assert "(not_found, " in at.run(*words, exit_code=6).stderr
    assert "(job_not_ready, " in at.run("results", pending(http), "--csv", "-o", "none.csv", exit_code=6).stderr
    assert not (at.home / "none.csv").exists()
    assert "(unknown_profile, " in at.run("upload", "note.txt", "--profile", "x-ray", exit_code=6).stderr


@pytest.mark.parametrize(
    "words",
    [
        ("upload", "not-there.zip"),
        ("upload", "note.txt", "--threshold", "7"),
        ("upload", "note.txt", "note.txt", "--idempotency-key", "k"),
        ("watch", "not-an-id"),
        ("login",),
        ("jobs", "--url", "ftp://example.org"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_2(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "note.txt").touch()
    Terminal("http://127.0.0.1:9", tmp_path).run(*words, exit_code=2)


def test_a_server_that_is_not_there_is_3_and_says_how_to_go_on(at: Terminal) -> None:
    at.env["MILLRACE_URL"] = "http://127.0.0.1:9"
    said = at.run("upload", "note.txt", exit_code=3).stderr
    assert "http://127.0.0.1:9 cannot be reached" in said
    command = re.search(r"try again with: millrace (upload --idempotency-key \S+ note\.txt)", said)
    assert command
    at.env["MILLRACE_URL"] = at.url
    assert at.run(*command[1].split()).stdout


def test_the_codes_of_the_help_are_those_of_the_documentation(tmp_path: Path) -> None:
    helped = Terminal("http://127.0.0.1:9", tmp_path).run("watch", "--help").stdout
    table = re.findall(r"^\| (\d+) \| .+ \|$", (ROOT / "docs/client.md").read_text(), re.MULTILINE)
    said = re.findall(r"^    (\d+)  +.+$", helped, re.MULTILINE)
    assert said == table == ["0", "1", "2", "3", "4", "5", "6", "130"]


# ---------------------------------------------------------------- what it outlives


def test_watching_outlives_a_killed_api_without_losing_or_repeating_an_event(
    at: Terminal, http: User, stack: Stack
) -> None:
    job_id = pending(http)
    watching = at.start("watch", job_id, "--json")
    assert watching.stdout is not None
    first = watching.stdout.readline()
    assert json.loads(first)["seq"] == 1
    stack.processes["api"].kill()
    attach(http, job_id)
    rest, _ = watching.communicate(timeout=60)
    assert watching.returncode == 0
    seen = [json.loads(line) for line in (first + rest).splitlines()]
    numbered = [event for event in seen if "seq" in event]
    assert [event["seq"] for event in numbered] == list(range(1, len(numbered) + 1))
    assert numbered == [event.body for event in http.events(job_id)]


def attach(http: User, job_id: str) -> None:
    """As soon as there is somebody to take the file."""
    deadline = time.monotonic() + 30
    while True:
        try:
            http.http.put(f"/jobs/{job_id}/file", files={"file": ("a.txt", b"some text\n")}).raise_for_status()
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


def test_ctrl_c_leaves_the_jobs_and_says_how_to_go_on(at: Terminal, http: User) -> None:
    ended, *going = (pending(http) for _ in range(3))
    watching = at.start("watch", *going, ended)
    assert watching.stdout is not None
    http.http.post(f"/jobs/{ended}/cancel").raise_for_status()
    while "cancelled" not in watching.stdout.readline():
        pass
    http.job(ended)  # as the command does after the last event
    watching.send_signal(signal.SIGINT)
    _, said = watching.communicate(timeout=10)
    assert watching.returncode == 130
    again = said.splitlines()[-1].partition("goes on; to go on watching: millrace watch ")[2].split()
    assert again[:2] == going
    assert {http.job(job_id)["status"] for job_id in going} == {"pending"}


# ---------------------------------------------------------------- at a terminal


class Screen:
    """A process at a terminal of its own, and all it has drawn."""

    def __init__(self, at: Terminal, *words: str) -> None:
        self.drawn = ""
        pid, self._terminal = pty.fork()
        if pid == 0:
            os.chdir(at.home)
            os.execve(MILLRACE, ["millrace", *words], at.env | {"TERM": "xterm-256color"})
        self._pid = pid

    def until(self, there: Callable[[str], object]) -> None:
        deadline = time.monotonic() + 30
        while not there(self.drawn):
            assert time.monotonic() < deadline, self.drawn
            if not self._read():
                raise AssertionError(f"ended: {self.drawn}")

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def ended(self) -> int:
        while self._read():
            pass
        os.close(self._terminal)
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])

    def _read(self) -> bool:
        if not select.select([self._terminal], [], [], 30)[0]:
            return False
        try:
            piece = os.read(self._terminal, 65536)
        except OSError:  # EIO: the other side has gone
            return False
        self.drawn += piece.decode(errors="replace")
        return bool(piece)


def test_a_terminal_is_asked_without_echo_and_shown_a_bar_and_tables(stack: Stack, at: Terminal) -> None:
    somebody = Terminal(stack.url, at.home)
    login = Screen(somebody, "login", "--register")
    login.until(lambda drawn: "Username: " in drawn)
    login.type(f"{somebody.username}\n")
    login.until(lambda drawn: "Password: " in drawn)
    login.type(f"{PASSWORD}\n")
    login.until(lambda drawn: "Repeat for confirmation: " in drawn)
    login.type(f"{PASSWORD}\n")
    assert login.ended() == 0
    assert PASSWORD not in login.drawn

    at.env["LANG"] = "ru_RU.UTF-8"
    upload = Screen(at, "upload", "--watch", "sample.zip", "--title", "A [bold]title[/]")
    assert upload.ended() == 0
    for word in ("━", "100 %", "inspect", "succeeded", "42 rows, 6 flagged"):
        assert word in upload.drawn
    table = Screen(at, "jobs")
    assert table.ended() == 0
    assert "A [bold]title[/]" in table.drawn
    assert "состояние" in table.drawn
    (job_id,) = re.findall(r"[0-9a-f-]{36}", table.drawn)
    rows = Screen(at, "results", job_id)
    assert rows.ended() == 0
    assert "detected_type" in rows.drawn
    assert "… и ещё 22" in rows.drawn


def test_messages_are_in_the_language_of_the_terminal(at: Terminal) -> None:
    said = at.run("whoami", exit_code=4, LANG="ru_RU.UTF-8", MILLRACE_TOKEN="no.good.token").stderr
    assert "Нужен действующий токен" in said
    assert "войти: millrace login" in said


# ---------------------------------------------------------------- completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_given_a_completion(at: Terminal, shell: str) -> None:
    assert f"_MILLRACE_COMPLETE={shell}_complete" in at.run("completion", shell).stdout


def test_bash_completes_commands_and_jobs(at: Terminal, http: User) -> None:
    job_id = pending(http)
    program = """
eval "$(millrace completion bash)"
COMP_WORDS=(millrace up); COMP_CWORD=1; COMPREPLY=(); _millrace_completion millrace; echo "${COMPREPLY[@]}"
COMP_WORDS=(millrace watch ""); COMP_CWORD=2; COMPREPLY=(); _millrace_completion millrace; echo "${COMPREPLY[@]}"
"""
    done = subprocess.run(["bash", "-c", program], env=at.env, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["up upload", job_id]


# ---------------------------------------------------------------- the documentation's examples, and memory


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / "docs/client.md").read_text(), re.MULTILINE | re.DOTALL)


def test_the_examples_of_the_documentation_run_as_they_are_written(stack: Stack, tmp_path: Path) -> None:
    at = Terminal(stack.url, tmp_path)
    (tmp_path / "sample.zip").write_bytes(make_archive())
    env = at.env | {"name": at.username}
    (commands,) = blocks("sh")
    typed = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands], env=env, cwd=tmp_path, capture_output=True, text=True
    )
    assert typed.returncode == 0, typed.stderr
    assert typed.stdout.startswith(f"{at.username}\n")
    assert json.loads((tmp_path / "job.json").read_text())["status"] == "succeeded"

    (tmp_path / "results.xlsx").unlink()
    printed = [
        subprocess.run([sys.executable, "-c", block], env=env, cwd=tmp_path, capture_output=True, text=True, check=True)
        for block in blocks("python")
    ]
    assert "succeeded" in printed[0].stdout
    assert re.search(r"^\S+ True$", printed[0].stdout, re.MULTILINE)
    assert zipfile.is_zipfile(tmp_path / "results.xlsx")
    assert printed[1].stdout.startswith("profile default Неизвестный профиль")
    assert "\n404 not_found " in printed[1].stdout


def test_a_file_of_any_size_is_sent_in_little_memory(at: Terminal) -> None:
    big = at.home / "big.bin"
    with big.open("wb") as file:
        file.truncate(64 * 1024**2)
    program = (
        "import resource, sys\n"
        "from millrace.client import Client\n"
        "client = Client()\n"
        "client.me()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "job = client.upload(sys.argv[1])\n"
        "print(job.file.size, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
        "client.cancel(job)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(big)], env=at.env, capture_output=True, text=True, check=True
    )
    size, grown = map(int, done.stdout.split())
    assert size == 64 * 1024**2
    assert grown < 16 * 1024  # KiB
