"""Pipelines as they are declared, and the capabilities they belong to."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors.inference import MlTimeout
from domain.errors.neighbours import BadSetting
from domain.errors.requests import Invalid
from domain.modules import CORE, enabled, floor, known
from domain.pipelines import Pipeline, Retry, Step, declared, named
from domain.settings import Settings
from stack.up import ROOT

PIPELINES = declared(known())
QUEUES = {"io", "cpu", "mail", "default"}


def _no_params(ordered: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    return dict(ordered)


LINE = Pipeline(
    name="line",
    read_params=_no_params,
    steps=(
        Step(name="a", queue="io", until=10),
        Step(name="b", queue="io", until=60, overdue=MlTimeout),
        Step(name="c", queue="cpu", until=90),
        Step(name="d", queue="io", until=100),
    ),
)


@pytest.mark.parametrize(("start", "steps"), [("a", "ab"), ("b", "b"), ("c", "cd"), ("d", "d")])
def test_a_segment_goes_up_to_the_next_step_that_waits(start: str, steps: str) -> None:
    assert [step.name for step in LINE.segment(start)] == list(steps)


def test_steps_follow_each_other_and_begin_where_the_last_one_ended() -> None:
    following = [LINE.after(name) for name in "abcd"]
    assert [step.name if step else None for step in following] == ["b", "c", "d", None]
    assert [LINE.starts_at(name) for name in "abcd"] == [0, 10, 60, 90]


@given(
    attempt=st.integers(1, 60),
    jitter=st.floats(0, 1, exclude_max=True),
    base=st.floats(0.01, 100),
    cap=st.floats(0.01, 1000),
)
def test_a_delay_is_never_negative_nor_above_the_cap(attempt: int, jitter: float, base: float, cap: float) -> None:
    retry = Retry(attempts=5, base_seconds=base, cap_seconds=cap)
    assert 0 <= retry.delay(attempt, jitter) <= cap
    assert retry.delay(attempt, jitter) <= base * 2.0 ** (attempt - 1)
    assert retry.delay(attempt, jitter) <= retry.delay(attempt + 1, jitter)


def test_delays_double_up_to_the_cap_with_full_jitter() -> None:
    retry = Retry(attempts=5, base_seconds=1, cap_seconds=6)
    assert [retry.delay(attempt, 0.5) for attempt in (1, 2, 3, 4, 5)] == [0.5, 1, 2, 3, 3]
    assert retry.delay(3, 0) == 0


def test_the_thousandth_attempt_does_not_overflow() -> None:
    assert Retry(attempts=2000, base_seconds=1, cap_seconds=60).delay(1000, 0.5) == 30


def test_an_unknown_pipeline_is_refused_with_those_there_are() -> None:
    with pytest.raises(Invalid, match=r"known kinds: .*inference") as caught:
        named(PIPELINES, "nonsense")
    assert caught.value.field == "kind"


# ---------------------------------------------------------------- what is declared


@pytest.mark.parametrize("pipeline", list(PIPELINES.values()), ids=lambda pipeline: pipeline.name)
def test_a_declared_pipeline_is_consistent(pipeline: Pipeline) -> None:
    names = [step.name for step in pipeline.steps]
    assert len(set(names)) == len(names)
    assert {step.queue for step in pipeline.steps} <= QUEUES
    until = [step.until for step in pipeline.steps if not step.aside]
    assert until == sorted(set(until)), "the bar rises with every step"
    assert until[-1] == 100
    assert pipeline.steps[-1].overdue is None, "nothing follows the last step that could wait"
    # the row has one `signal` and the sweep asks for deadlines by the job's kind: a second waiting would find the first
    assert sum(step.overdue is not None for step in pipeline.steps) <= 1


@pytest.mark.parametrize("pipeline", list(PIPELINES.values()), ids=lambda pipeline: pipeline.name)
def test_every_step_has_one_function_in_workers(pipeline: Pipeline) -> None:
    defining = [name for module in floor("workers", known()) for name in getattr(module, "steps", {})]
    for step in pipeline.steps:
        assert defining.count(step.name) == 1, step.name


def test_the_procfile_has_a_worker_for_every_queue() -> None:
    procfile = (ROOT / "Procfile").read_text()
    served = {queue for part in procfile.split(" -Q ")[1:] for queue in part.split()[0].split(",")}
    assert {step.queue for pipeline in PIPELINES.values() for step in pipeline.steps} | {"default"} <= served


# ---------------------------------------------------------------- capabilities


def test_choosing_none_switches_every_capability_on() -> None:
    assert enabled(()) == known()
    assert known()[: len(CORE)] == CORE


def test_what_is_required_comes_along() -> None:
    assert set(enabled(["inference"])) == {*CORE, "inference", "archives", "results"}


def test_the_core_is_always_on() -> None:
    assert set(enabled(["archives"])) == {*CORE, "archives"}
    assert enabled(["jobs"]) == CORE


def test_an_unknown_capability_is_refused_with_those_there_are() -> None:
    with pytest.raises(BadSetting) as caught:
        enabled(["inferense"])
    assert "MILLRACE_MODULES: 'inferense' is not one of accounts, files, jobs, " in str(caught.value)
    assert "inference" in str(caught.value)


_ENVIRON = {
    "MILLRACE_ENV": "development",
    "PUBLIC_URL": "http://127.0.0.1:1",
    "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "S3_ENDPOINT_URL": "http://127.0.0.1:1",
    "S3_ACCESS_KEY_ID": "none",
    "S3_SECRET_ACCESS_KEY": "none",
    "JWT_SECRET": "only for this test, and long enough",
    "ML_SERVICE_URL": "http://127.0.0.1:1",
    "ML_SERVICE_TOKEN": "only for this test",
    "FLOWER_PASSWORD": "only for this test",
}
_LOOK = """
import json
from api.app import create_app
from storage.dispatch import pipelines
from workers.app import app
print(json.dumps({
    "routes": sorted(route.path for route in create_app().routes),
    "tasks": sorted(name for name in app.tasks if not name.startswith("celery.")),
    "beat": sorted(app.conf.beat_schedule),
    "pipelines": sorted(pipelines()),
}))
"""


def house(modules: str) -> "subprocess.CompletedProcess[str]":
    """Start API and workers with these capabilities, and tell what they offer."""
    environ = {name: value for name, value in os.environ.items() if name not in Settings.__struct_fields__}
    return subprocess.run(
        [sys.executable, "-c", _LOOK],
        env={**environ, **_ENVIRON, "MILLRACE_MODULES": modules},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_capability_that_is_left_out_leaves_no_trace() -> None:
    with_it, without = (json.loads(house(modules).stdout) for modules in ("inference", "files,jobs"))
    assert {"inference.inspect", "inference.submit", "inference.parse", "inference.finish"} <= set(with_it["tasks"])
    assert with_it["pipelines"] == ["inference"]
    assert any("/completion" in route for route in with_it["routes"])
    assert without["pipelines"] == []
    assert not [name for kind in ("tasks", "beat") for name in without[kind] if name.startswith("inference")]
    assert not [route for route in without["routes"] if "completion" in route or "results" in route or "zip" in route]
    assert "jobs.sweep" in without["beat"], "the core is there"
    assert any(route.startswith("/api/v1/jobs") for route in without["routes"])


def test_a_misspelt_capability_stops_the_start_with_one_clear_sentence() -> None:
    done = house("inference,recordigns")
    assert done.returncode != 0
    assert "'recordigns' is not one of accounts, files, jobs" in done.stderr


ASKING = Pipeline(
    name="asking",
    read_params=_no_params,
    steps=(
        Step(name="a", queue="io", until=10),
        Step(name="b", queue="io", until=60, overdue=MlTimeout, asks="q"),
        Step(name="q", queue="io", until=60, aside=True),
        Step(name="c", queue="cpu", until=90),
    ),
)


def test_a_step_aside_is_on_nobodys_way() -> None:
    following = [ASKING.after(name) for name in "abqc"]
    assert [step.name if step else None for step in following] == ["b", "c", "c", None]
    assert ["".join(step.name for step in ASKING.segment(name)) for name in "abqc"] == ["ab", "b", "q", "c"]
    assert ASKING.starts_at("c") == 60
