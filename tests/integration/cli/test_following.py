"""All jobs followed at once, and what a script is told when it is broken off in the middle."""

import json
import signal
import subprocess
from pathlib import Path

import pytest

from millrace.client import Client
from millrace.errors import NotFound
from stack.up import Stack
from tests.client import User
from tests.terminal import Terminal, pending


def test_without_a_job_all_of_ones_jobs_are_followed(at: Terminal, http: User, stack: Stack) -> None:
    following = at.start("watch", "--json")
    people = at.start("watch", bufsize=1)
    assert following.stdout is not None
    assert people.stdout is not None
    heard: list[dict[str, str]] = []
    first = ""
    while not first:  # it follows from the moment it is connected on
        cancelled = pending(http)
        http.http.post(f"/jobs/{cancelled}/cancel").raise_for_status()
        first = line_of(following)
    job_id = at.run("upload", "note.txt", "--title", "Заметка").stdout.strip()
    stack.processes["api"].kill()
    while not [one for one in heard if (one["job_id"], one["type"]) == (job_id, "succeeded")]:
        heard.append(json.loads(following.stdout.readline()))
    seqs = [one["seq"] for one in heard if one["job_id"] == job_id and "seq" in one]
    assert seqs == [event.id for event in http.events(job_id) if event.id]
    while not (said := people.stdout.readline()).endswith("(Заметка)\n") or "succeeded" not in said:
        assert said
    for one in (following, people):
        one.send_signal(signal.SIGINT)
        _, ended = one.communicate(timeout=10)
        assert (one.returncode, ended.strip()) == (130, "millrace: interrupted")


def line_of(process: subprocess.Popen[str]) -> str:
    """A line if there is one within a second."""
    import select

    assert process.stdout is not None
    return process.stdout.readline() if select.select([process.stdout], [], [], 1)[0] else ""


def test_the_client_follows_all_jobs_from_their_first_event(http: User) -> None:
    job_id = pending(http)
    http.http.post(f"/jobs/{job_id}/cancel").raise_for_status()
    with Client(http.url, http.http.headers["Authorization"].removeprefix("Bearer ")) as client:
        seen = []
        for event in client.all_events(after="0"):
            seen.append((str(event.job_id), event.type, event.seq))
            if event.type == "cancelled":
                break
        assert seen == [(job_id, "created", 1), (job_id, "cancelled", 2)]
        with pytest.raises(TimeoutError, match=r"followed for 0\.5 s"):
            list(client.all_events(timeout=0.5))


def test_an_upload_that_is_broken_off_has_said_what_it_ordered(at: Terminal) -> None:
    names = [f"{number}.zip" for number in range(10)]
    for name in names:
        (at.home / name).write_bytes((at.home / "sample.zip").read_bytes())
    sending = at.start("upload", "--watch", "--json", *names)
    assert sending.stderr is not None
    while f"({names[-1]})" not in (said := sending.stderr.readline()):
        assert said
    sending.send_signal(signal.SIGINT)
    out, _ = sending.communicate(timeout=20)
    assert sending.returncode == 130
    known = {job["id"]: job["title"] for job in json.loads(at.run("jobs", "--json").stdout)}
    told = [json.loads(line) for line in out.splitlines()]
    assert [job["title"] for job in told] == names[: len(told)]
    assert len(told) in (9, 10), "the last one may have been on its way"
    assert {job["id"] for job in told} <= known.keys()


def test_a_job_is_downloaded_and_deleted(at: Terminal, http: User) -> None:
    job_id = at.run("upload", "note.txt").stdout.strip()
    content = (at.home / "note.txt").read_bytes()
    assert "note.txt is there already" in at.run("download", job_id, exit_code=2).stderr
    at.run("download", job_id, "-o", "copy.txt")
    (at.home / "note.txt").unlink()
    assert at.run("download", job_id).stderr == "millrace: saved as note.txt\n"
    assert (at.home / "note.txt").read_bytes() == (at.home / "copy.txt").read_bytes() == content
    assert "has no file" in at.run("download", pending(http), exit_code=2).stderr
    at.run("watch", job_id)
    assert job_id in at.run("delete", job_id, LANG="ru_RU.UTF-8").stderr
    assert "(not_found, " in at.run("delete", job_id, exit_code=6).stderr
    with (
        Client(http.url, http.http.headers["Authorization"].removeprefix("Bearer ")) as client,
        pytest.raises(NotFound),
    ):
        client.job(job_id)


def test_forms_that_exclude_each_other_and_places_that_cannot_be_written_are_refused(at: Terminal) -> None:
    job_id = at.run("upload", "--watch", "note.txt").stdout.strip()
    assert "one of --csv, --json and --xlsx" in at.run("results", job_id, "--csv", "--json", exit_code=2).stderr
    for words in (("results", job_id, "--csv"), ("results", job_id, "--xlsx"), ("download", job_id)):
        said = at.run(*words, "-o", "nowhere/at/all", exit_code=2).stderr
        assert "nowhere/at/all cannot be written (No such file or directory); name another place with --output" in said
        assert "Errno" not in said
    assert not Path(at.home / "nowhere").exists()
