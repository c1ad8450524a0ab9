"""The command line as people use it: what it outlives, what it draws, completes, and documents."""

import json
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import httpx
import pytest

from stack.samples import make_archive
from stack.up import Stack
from tests.client import User
from tests.terminal import PASSWORD, ROOT, Screen, Terminal, pending

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
