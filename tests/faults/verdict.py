"""The check at the end: what was answered against what Postgres, the object storage and the ML service hold."""

import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.rows import dict_row

from tests.client import FINAL
from tests.faults.history import MEMBERS, History
from tests.faults.ml import ROWS, PatientMl
from tests.faults.stored import stored

_UNFINISHED = "SELECT count(*) AS n FROM jobs WHERE status <> ALL(%s::job_status[])"
_JOBS = """
    SELECT jobs.id::text, title, status::text, error_code, event_seq, progress, result_key, object_key,
        (SELECT count(*) FROM results WHERE job_id = jobs.id) AS results,
        (SELECT count(*) FROM result_rows WHERE job_id = jobs.id) AS result_rows,
        (SELECT count(*) FROM archives WHERE job_id = jobs.id) AS archives,
        (SELECT count(*) FROM archive_entries WHERE job_id = jobs.id) AS archive_entries
    FROM jobs LEFT JOIN files ON files.id = jobs.input_file_id"""
_EVENTS = "SELECT job_id::text, seq, type, at, data FROM job_events ORDER BY job_id, seq"
_ATTEMPTS = "SELECT job_id::text, step, attempt, outcome, worker, finished_at FROM job_attempts ORDER BY id"
_FILES = "SELECT object_key FROM files"

Row = dict[str, Any]


@dataclass
class Verdict:
    """``violations`` is empty when every promise was kept."""

    jobs: int = 0
    ended: Counter[str] = field(default_factory=Counter)  # jobs by status, failures by code
    lost: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)  # effects that happened twice
    other: list[str] = field(default_factory=list)
    interruptions: int = 0
    orphans: int = 0  # objects no row names; the sweep of leftovers takes them
    noticed: list[float] = field(default_factory=list)  # seconds from a worker's death to the step being free again
    recoveries: list[float] = field(default_factory=list)  # seconds from a worker's death to the step's next claim

    @property
    def violations(self) -> list[str]:
        return [*self.lost, *self.duplicates, *self.other]


def settled(env: Mapping[str, str], seconds: float) -> float:
    """Wait until no job is under way, at most so long; the seconds it took."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        # the server may be recovering from the last of its deaths
        with suppress(psycopg.OperationalError), psycopg.connect(env["DATABASE_URL"], autocommit=True) as connection:
            ((left,),) = connection.execute(_UNFINISHED, [list(FINAL)]).fetchall()
            if not left:
                break
        time.sleep(0.1)
    return time.monotonic() - began


def judge(history: History, env: Mapping[str, str], ml: PatientMl, deaths: Mapping[int, float]) -> Verdict:
    """Compare everything; ``deaths`` is when each killed process (by id) died, in epoch seconds."""
    verdict = Verdict()
    with psycopg.connect(env["DATABASE_URL"], autocommit=True, row_factory=dict_row) as connection:
        jobs = {row["id"]: row for row in connection.execute(_JOBS)}
        events = _grouped(connection.execute(_EVENTS).fetchall())
        attempts = _grouped(connection.execute(_ATTEMPTS).fetchall())
        files = {row["object_key"] for row in connection.execute(_FILES)}
    ours = {order.key for order in history.orders}
    jobs = {job_id: job for job_id, job in jobs.items() if job["title"] in ours}
    verdict.jobs = len(jobs)
    verdict.other += [f"answered with {answer}" for answer in history.unclean]
    _check_answers(verdict, history, jobs)
    for job_id, job in jobs.items():
        verdict.ended[job["error_code"] or job["status"]] += 1
        _check_events(verdict, job, events.get(job_id, []))
        _check_effects(verdict, job, history)
        _check_submissions(verdict, job, attempts.get(job_id, []), ml)
        _measure(verdict, events.get(job_id, []), attempts.get(job_id, []), deaths)
    _check_objects(verdict, env, jobs, files)
    return verdict


def _grouped(rows: list[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["job_id"], []).append(row)
    return groups


def _check_answers(verdict: Verdict, history: History, jobs: Mapping[str, Row]) -> None:
    titles = Counter(job["title"] for job in jobs.values())
    reruns: Counter[str] = Counter()
    for order in history.orders:
        reruns[order.key] += order.reruns
    for order in history.orders:
        if order.answered:
            job = jobs.get(order.job_id or "")
            if job is None:
                if not order.deletion_sent:
                    verdict.lost.append(f"{order.job_id} was answered and is not there")
            elif order.deleted:
                verdict.other.append(f"{order.job_id} was deleted and is still there ({job['status']})")
            elif order.cancelled and job["status"] == "succeeded":
                verdict.other.append(f"{order.job_id} was cancelled, and succeeded")
            elif job["status"] not in FINAL:
                verdict.lost.append(f"{order.job_id} is still {job['status']}")
        if titles[order.key] > 1 + reruns[order.key]:
            verdict.duplicates.append(f"order {order.key} ({order.statuses}) made {titles[order.key]} jobs")
    for job in jobs.values():
        if job["status"] not in FINAL and job["id"] not in {order.job_id for order in history.answered}:
            verdict.lost.append(f"{job['id']}, committed and not answered, is still {job['status']}")


def _check_events(verdict: Verdict, job: Row, events: list[Row]) -> None:
    numbers = [event["seq"] for event in events]
    if numbers != list(range(1, job["event_seq"] + 1)):
        verdict.other.append(f"{job['id']}: events {numbers}, the row says {job['event_seq']}")
    terminal = [event for event in events if event["type"] in FINAL]
    if job["status"] in FINAL and (len(terminal) != 1 or terminal[0] is not events[-1]):
        verdict.duplicates.append(f"{job['id']}: terminal events {terminal}, the last is {events[-1]}")
    progress = [event["data"]["progress"] for event in events if "progress" in event["data"]]
    if progress != sorted(progress):
        verdict.other.append(f"{job['id']}: progress fell: {progress}")
    verdict.interruptions += sum(event["type"] == "interrupted" for event in events)


def _check_effects(verdict: Verdict, job: Row, history: History) -> None:
    order = next((order for order in history.orders if order.key == job["title"]), None)
    archive = order is not None and order.archive
    done = job["status"] == "succeeded"
    expected = {
        "results": int(done),
        "result_rows": ROWS * done,
        "archives": int(archive),
        "archive_entries": MEMBERS * archive,
    }
    whole = {"results": 1, "result_rows": ROWS, "archives": int(archive), "archive_entries": MEMBERS * archive}
    for table, count in expected.items():
        # a job that ended badly may have got so far, but never half of it
        if job[table] not in ((count,) if done else (0, whole[table])):
            verdict.duplicates.append(f"{job['id']} ({job['status']}): {job[table]} rows in {table}, not {count}")


def _check_submissions(verdict: Verdict, job: Row, attempts: list[Row], ml: PatientMl) -> None:
    """One submission for each attempt as the service counts them, by its key; repeats of a key have no effect."""
    tried = {f"{job['id']}:{row['attempt']}" for row in attempts if row["step"] == "submit"}
    sent = {key for key in ml.received if key.startswith(job["id"])}
    if unknown := sent - tried:
        verdict.duplicates.append(f"{job['id']}: the ML service has {unknown}, the record only {tried}")
    if job["status"] == "succeeded" and not sent:
        verdict.other.append(f"{job['id']} succeeded without the ML service")
    verdict.duplicates += [f"{key} was worked on {ml.done[key]} times" for key in sent if ml.done[key] > 1]


def _check_objects(verdict: Verdict, env: Mapping[str, str], jobs: Mapping[str, Row], files: set[str]) -> None:
    objects = stored(env)
    for job in jobs.values():
        if job["object_key"] not in objects:
            verdict.lost.append(f"{job['id']} ({job['status']}): its object {job['object_key']} is gone")
        results = [key for key in objects if key.startswith(f"results/{job['id']}/")]
        if job["status"] == "succeeded" and results != [job["result_key"]]:
            verdict.duplicates.append(f"{job['id']}: objects {results}, the row names {job['result_key']}")
    verdict.orphans = len([key for key in objects if key.startswith("inputs/") and key not in files])


def _measure(verdict: Verdict, events: list[Row], attempts: list[Row], deaths: Mapping[int, float]) -> None:
    """From the death of the process that held the step to its release, and to its next claim (behind others' steps)."""
    for attempt in attempts:
        pid = (attempt["worker"] or "").rpartition(":")[2]
        died_at = deaths.get(int(pid)) if pid.isdecimal() else None
        if attempt["outcome"] != "lost" or died_at is None:
            continue
        freed = [event["at"].timestamp() for event in events if event["type"] in ("interrupted", "failed")]
        verdict.noticed += (
            [min(at for at in freed if at > died_at) - died_at] if max(freed, default=0) > died_at else []
        )
        claims = [event["at"].timestamp() for event in events if event["type"] == "stage"]
        if later := [claim for claim in claims if claim > died_at]:
            verdict.recoveries.append(min(later) - died_at)
