"""The command line as scripts use it: the whole way of a file, and exit codes."""

import csv
import io
import json
import re
import stat
import zipfile
from pathlib import Path

import pytest

from domain.results import parse
from stack.up import Stack
from tests.client import User
from tests.terminal import PASSWORD, ROOT, Terminal, pending

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
