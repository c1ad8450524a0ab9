"""Jobs as the state machine orders, changes and looks at them, and everything that must hold of them at any moment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from uuid import UUID

from sqlalchemy import text

from domain.errors.inference import MlFailed, MlTimeout
from domain.errors.requests import Conflict
from domain.identity import new_id
from domain.jobs import FINAL, TERMINAL, TRANSITIONS, EventType, Priority, Status
from domain.pipelines import Pipeline, ResultFile, Retry, Step
from storage.database import autocommit, transaction
from storage.jobs import commands, transitions
from storage.jobs.sweep import Due
from tests.job_rows import account

OWNERS, OWNER_LIMIT, REPUBLISH = 2, 2, 30.0
_retry = Retry(attempts=3, base_seconds=0, cap_seconds=0)


def _pipeline(name: str, *steps: Step) -> Pipeline:
    return Pipeline(name=name, steps=steps, read_params=lambda ordered, config: {})


# One asks when nothing was said by the deadline, the other fails; else they go straight on, or are handed over.
PIPELINES = {
    "asking": _pipeline(
        "asking",
        Step(name="inspect", queue="io", until=10, retry=_retry),
        Step(name="submit", queue="io", until=60, retry=_retry, short=lambda job: True, overdue=MlTimeout, asks="ask"),
        Step(name="ask", queue="io", until=60, retry=_retry, aside=True),
        Step(name="parse", queue="cpu", until=90, retry=_retry, short=lambda job: job.result is not None),
        Step(name="finish", queue="io", until=100, retry=_retry, short=lambda job: True),
    ),
    "failing": _pipeline(
        "failing",
        Step(name="submit", queue="io", until=60, retry=_retry, overdue=MlTimeout),
        Step(name="parse", queue="cpu", until=100, retry=_retry),
    ),
}
KINDS = list(PIPELINES)

_rows = text("SELECT * FROM jobs")
_events = text("""
    SELECT job_id, seq, type, data->>'status' AS status, data->>'stage' AS stage
    FROM job_events ORDER BY job_id, seq""")
_counts = text("""
    SELECT job_id, step, count(*) - count(outcome) AS effects, count(*) FILTER (WHERE outcome = 'done') AS done,
        count(outcome) AS ended, count(DISTINCT (worker, started_at)) FILTER (WHERE outcome IS NOT NULL) AS begun
    FROM (SELECT job_id, step, worker, NULL AS outcome, NULL AS started_at FROM effects_of_steps
        UNION ALL SELECT job_id, step, worker, outcome, started_at FROM job_attempts) AS happened
    GROUP BY job_id, step""")
_age = text(
    """
    UPDATE jobs SET lease_until = lease_until - :by, run_at = run_at - :by, republish_at = republish_at - :by,
        published_at = published_at - :by, deadline_at = deadline_at - :by, created_at = created_at - :by
    WHERE completed_at IS NULL""".replace(":by", "make_interval(secs => :seconds)")
)
_age_circuits = text(
    """
    UPDATE circuits SET opened_until = opened_until - :by, probe_until = probe_until - :by,
        closed_at = closed_at - :by""".replace(":by", "make_interval(secs => :seconds)")
)
_file = text("""
    INSERT INTO files (id, owner_id, filename, object_key, name, size, content_type, sha256, kind)
    VALUES (:id, :owner, :key, :key, 'a.txt', 3, 'text/plain', 'x', 'single')""")


@dataclass
class Known:
    """What must stay true of a job from now on."""

    id: UUID
    owner: UUID
    kind: str
    progress: int = 0
    final: dict[str, Any] | None = None
    told: bool | None = None  # the signal that counted: well, or not
    effects: int = 0
    effects_at_most: int | None = None  # cancelled or deleted: none may follow


@dataclass
class Jobs:
    """Every job there is, with the answers its clients had."""

    known: list[Known] = field(default_factory=list)
    deleted: list[Known] = field(default_factory=list)
    dead: set[str] = field(default_factory=set)  # workers

    def __post_init__(self) -> None:
        self.owners = [account() for _ in range(OWNERS)]

    def order(self, owner: int, kind: str, priority: Priority, *, file: bool) -> Due | None:
        job = commands.NewJob(
            id=new_id(),
            owner_id=self.owners[owner % OWNERS],
            kind=kind,
            title="a",
            description=None,
            params={},
            first_step=PIPELINES[kind].steps[0].name,
            priority=priority,
            input_file_id=self._file(self.owners[owner % OWNERS]) if file else None,
            owns_input=file,
        )
        return self._create(job)

    def _create(self, job: commands.NewJob) -> Due | None:
        with transaction() as connection:
            ordered = commands.create(connection, job, limit=OWNER_LIMIT, republish=REPUBLISH)
        self.known.append(Known(id=job.id, owner=job.owner_id, kind=job.kind))
        return ordered.due

    def _file(self, owner: UUID) -> UUID:
        file = new_id()
        with autocommit() as connection:
            connection.execute(_file, {"id": file, "owner": owner, "key": f"inputs/{file}"})
        return file

    def attach(self, job: Known) -> Due | None:
        with transaction() as connection:
            ordered = commands.attach(
                connection,
                job.id,
                job.owner,
                self._file(job.owner),
                owns_input=True,
                first_step=PIPELINES[job.kind].steps[0].name,
                limit=OWNER_LIMIT,
                republish=REPUBLISH,
            )
        return ordered and ordered.due

    def run_again(self, job: Known) -> Due | None:
        with autocommit() as connection:
            try:
                again = commands.rerun(connection, job.id, job.owner, new_id(), PIPELINES[job.kind].steps[0].name)
            except Conflict:
                return None
        assert job.final, "a job that had not ended was run again"
        assert again
        return self._create(again)

    def cancel(self, job: Known) -> UUID | None:
        """The owner, when another of his jobs may be begun for it."""
        with autocommit() as connection:
            asked, moved = commands.cancel(connection, job.id, job.owner)
        assert asked == (job.final is None), "a job is cancelled until it has ended"
        if asked and job.effects_at_most is None:
            job.effects_at_most = job.effects
        return moved.owner_id if moved and moved.backlog else None

    def delete(self, job: Known) -> None:
        with transaction() as connection:
            assert commands.delete(connection, job.id, job.owner) is not None
        job.effects_at_most = job.effects
        self.known.remove(job)
        self.deleted.append(job)

    def signal(self, job: Known, *, well: bool) -> tuple[Due | None, UUID | None]:
        """What the API does with a completion: (what to publish, the owner of whom another job may be begun)."""
        asks = PIPELINES[job.kind].step("submit").asks
        with autocommit() as connection:
            if well:
                moved = transitions.signal(
                    connection,
                    job.id,
                    {"outcome": "succeeded"},
                    waits="submit",
                    until=60,
                    republish=REPUBLISH,
                    result=ResultFile(key=f"results/{job.id}/1", name="x", size=1),
                    asks=asks,
                )
            else:
                error = MlFailed(reason="told so")
                moved = transitions.fail_signalled(connection, job.id, {}, error, waits="submit", asks=asks)
        if moved is None:
            return None, None
        assert job.told is None, "a second signal counted"
        job.told = well
        owner = moved.owner_id if moved.backlog else None
        if moved.step is None or moved.held:
            return None, owner
        return Due(job_id=job.id, kind=job.kind, step=moved.step, lane=moved.lane), owner

    def remote_progress(self, job: Known, percent: int) -> None:
        with autocommit() as connection:
            asks = PIPELINES[job.kind].step("submit").asks
            transitions.remote_progress(connection, job.id, percent, None, waits="submit", asks=asks)

    def age(self, seconds: float) -> None:
        """So much time passes for every job that has not ended."""
        with autocommit() as connection:
            connection.execute(_age, {"seconds": seconds})
            connection.execute(_age_circuits, {"seconds": seconds})

    def check(self, working: Mapping[str, UUID]) -> None:
        """Look at everything; ``working`` says which worker is at which job."""
        with autocommit() as connection:
            rows = {row.id: row for row in connection.execute(_rows)}
            events: dict[UUID, list[Any]] = {}
            for event in connection.execute(_events):
                events.setdefault(event.job_id, []).append(event)
            counts: dict[UUID, dict[str, Any]] = {}
            for count in connection.execute(_counts):
                counts.setdefault(count.job_id, {})[count.step] = count
        assert rows.keys() == {job.id for job in self.known}
        for job in self.known:
            self._check_row(rows[job.id], working)
            self._check_record(job, rows[job.id], events[job.id])
            self._check_effects(job, rows[job.id], counts.get(job.id, {}))
        for job in self.deleted:
            done = sum(count.effects for count in counts.get(job.id, {}).values())
            assert done == job.effects_at_most, "a step of a deleted job had an effect"
        for owner in self.owners:
            running = [row for row in rows.values() if row.owner_id == owner and row.admitted and row.step]
            assert len(running) <= OWNER_LIMIT, "more jobs of an owner run than may"

    def _check_row(self, row: Any, working: Mapping[str, UUID]) -> None:
        if row.claim:
            assert row.lease_until
            assert row.status == Status.PROCESSING
            assert row.claimed_by in self.dead or working.get(row.claimed_by) == row.id, "nobody knows of the claim"
        if row.awaiting:
            assert not row.claim
            assert row.deadline_at
            assert row.signal is None, "it waits for what has come"

    def _check_record(self, job: Known, row: Any, events: list[Any]) -> None:
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert row.event_seq == len(events)
        assert [event.type for event in events[:-1] if event.type in TERMINAL] == [], "nothing follows the end"
        assert (events[-1].type in TERMINAL) == (row.status in FINAL)
        assert events[0].type in (EventType.CREATED, EventType.QUEUED)
        for one, other in pairwise(events):
            assert one.status == other.status or other.status in TRANSITIONS[Status(one.status)]
        assert row.status == events[-1].status
        self._check_claims(events)
        assert row.progress >= job.progress, "progress fell"
        job.progress = row.progress
        if row.status in FINAL:
            end = {name: value for name, value in row._mapping.items() if name != "parent_id"}
            job.final = job.final or end
            assert end == job.final, "a job changed after its end"
        if job.told and row.status == Status.FAILED:
            lost = row.error_code in ("worker_lost", "step_timeout")
            assert lost or row.error_stage in ("parse", "finish"), "it failed to get what it had got"

    def _check_claims(self, events: list[Any]) -> None:
        held = None
        for event in events:
            if event.type == EventType.STAGE:
                assert event.stage != held, "a step was given to two workers at once"
                held = event.stage
            elif event.type != EventType.RESUMED:
                held = None

    def _check_effects(self, job: Known, row: Any, counts: Mapping[str, Any]) -> None:
        steps = [step for step in PIPELINES[job.kind].steps if not step.aside]
        for step, count in counts.items():
            assert count.effects == count.done, f"the effect of {step} and its record differ"
            assert count.ended == count.begun, f"an attempt of {step} ended twice: its worker came back and counted"
            assert count.effects <= 1 or PIPELINES[job.kind].step(step).aside, f"{step} was done twice"
        passed = [step.name for step in steps]
        if row.status != Status.SUCCEEDED:
            passed = passed[: passed.index(row.step)] if row.step in passed else []
        for name in passed:
            done = counts[name].effects if name in counts else 0
            assert done == 1, f"{name} was passed and has had {done} effects"
        job.effects = sum(count.effects for count in counts.values())
        assert job.effects_at_most in (None, job.effects), "a step had an effect after the job was cancelled"

    def unfinished(self) -> list[dict[str, Any]]:
        """The jobs with a file that have not ended."""
        with autocommit() as connection:
            rows = [dict(row) for row in connection.execute(_rows).mappings()]
        return [row for row in rows if row["input_file_id"] and row["status"] not in FINAL]

    def clear(self) -> None:
        with autocommit() as connection:
            for table in ("jobs", "files", "accounts", "effects_of_steps", "circuits"):
                connection.execute(text(f"DELETE FROM {table}"))
