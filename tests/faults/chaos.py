"""Rounds of kills under load, checked at the end: ``python -m tests.faults.chaos --kills 1000 --seed 7``.

Prints what was killed and what became of the jobs, writes benchmarks/results/chaos.json, and ends with 1 when a job was
lost or an effect happened twice. The seed decides what dies and in which order; the moments depend on the machine.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stack.up import Stack, running
from storage.failpoints import VARIABLE
from tests.brokers import broker_env
from tests.client import User
from tests.faults.history import History
from tests.faults.kills import Killer
from tests.faults.ml import PatientMl
from tests.faults.verdict import Verdict, judge, settled

TOKEN = "token-of-the-patient-ml-service"
RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "chaos.json"
SHARE = 0.3  # of the jobs that are cancelled or deleted as they run, and of those that are rerun or deleted later
APPS = ("api", "worker", "sweeper", "beat")
# Everything waits less than by default, so that a round has many recoveries in it.
QUICK = {"LEASE_SECONDS": "3", "SWEEP_SECONDS": "0.5", "REDISPATCH_SECONDS": "4", "RETRY_BASE_SECONDS": "0.2"}
# Every gap is held open for a moment, so that deaths at random moments fall into gaps and not between jobs.
GAPS = {"step.running": 0.1, "effects.written": 0.05, "outcome.before": 0.05, "outcome.committed": 0.05}
GAPS |= {"submit.after": 0.05, "outcome.announced": 0.05, "signal.committed": 0.02, "order.committed": 0.02}
WIDE = {VARIABLE: ",".join(f"{place}=pause:{seconds}@every" for place, seconds in GAPS.items())}


@dataclass
class Round:
    """What one round did and found."""

    seed: int
    kills: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    settled_after: float = 0.0
    orders: int = 0
    answered: int = 0
    unanswered: int = 0
    wanted: dict[str, int] = field(default_factory=dict)
    verdict: Verdict = field(default_factory=Verdict)

    def report(self) -> dict[str, Any]:
        found = self.verdict
        return {
            "seed": self.seed,
            "kills": sum(self.kills.values()),
            "kills_by_kind": self.kills,
            "seconds": round(self.seconds, 1),
            "settled_after_seconds": round(self.settled_after, 1),
            "orders": self.orders,
            "answered": self.answered,
            "unanswered": self.unanswered,
            "wanted": self.wanted,
            "jobs": found.jobs,
            "ended": dict(found.ended),
            "interruptions": found.interruptions,
            "lost": len(found.lost),
            "duplicate_effects": len(found.duplicates),
            "other_violations": len(found.other),
            "violations": found.violations[:100],
            "orphans": found.orphans,
            "noticed_seconds": _percentiles(found.noticed),
            "recovery_seconds": _percentiles(found.recoveries),
        }


def _percentiles(seconds: list[float]) -> dict[str, float]:
    if len(seconds) < 2:
        return {"count": len(seconds), **({"max": round(seconds[0], 2)} if seconds else {})}
    of = statistics.quantiles(seconds, n=100, method="inclusive")
    figures = {"p50": of[49], "p95": of[94], "p99": of[98], "max": max(seconds)}
    return {"count": len(seconds), **{name: round(value, 2) for name, value in figures.items()}}


@contextmanager
def house(
    env: dict[str, str] | None = None, *, ml: PatientMl | None = None, only: Collection[str] = APPS
) -> Iterator[tuple[Stack, PatientMl]]:
    """A stack of its own with the patient ML service (a new one, if none is given) in place of the reference one."""
    with ExitStack() as cleanup:
        service = ml or cleanup.enter_context(PatientMl(TOKEN))
        settings = {"ML_SERVICE_TOKEN": TOKEN, "LOG_FORMAT": "json", "ML_SERVICE_URL": service.url}
        settings |= {**broker_env(), **(env or {})}
        with running(env=settings, only=only) as stack:
            yield stack, service


def play(stack: Stack, ml: PatientMl, *, kills: int, seconds: float, seed: int, settle: float, resend: bool) -> Round:
    """One round: load, kills, the end of every job, the verdict. The stack is a QUICK one without other jobs."""
    played = Round(seed=seed)
    killer = Killer(stack, seed, lease=float(QUICK["LEASE_SECONDS"]))
    with User(stack.url) as user:
        with History(user, resend=resend, share=SHARE, seed=seed) as history:
            played.seconds = killer.run(kills, seconds)
        played.settled_after = settled(stack.env, settle)
        played.verdict = judge(history, stack.env, ml, killer.deaths)
    played.kills = dict(killer.kills)
    played.orders, played.answered = len(history.orders), len(history.answered)
    played.unanswered = len(history.unanswered)
    played.wanted = dict(history.wanted)
    return played


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, help="at most; by default 4 s a kill")
    options = parser.parse_args()
    seconds = options.seconds or options.kills * 4
    with house({**QUICK, **WIDE}) as (stack, ml):
        played = play(stack, ml, kills=options.kills, seconds=seconds, seed=options.seed, settle=90, resend=True)
    report = played.report()
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    return 1 if played.verdict.violations else 0


if __name__ == "__main__":
    sys.exit(main())
