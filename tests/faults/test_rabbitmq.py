"""Promise 3 with RabbitMQ as the broker: killed, lost with all it held, emptied or silent, it costs no job."""

import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from stack.guard import Guard
from stack.process import Process
from tests.brokers import lose_messages, messages, on_rabbitmq
from tests.client import User
from tests.faults.chaos import QUICK, house
from tests.faults.conftest import House
from tests.faults.history import History
from tests.faults.nodes import ProcessContainer, containers, eventually
from tests.faults.verdict import judge, settled
from tests.rabbitmq import RabbitMq

pytestmark = [pytest.mark.skipif(not on_rabbitmq(), reason="make test-rabbitmq"), pytest.mark.timeout(240)]

JOBS = 30
ORDER_SECONDS = 3.0  # the API waits two for a confirmation
STEP_SECONDS, HEARTBEAT_SECONDS = 600.0, 10.0  # of celeryconfig, which cannot be imported without settings
_CONSUMER_TIMEOUT = "{ok, T} = application:get_env(rabbit, consumer_timeout), T."


@pytest.fixture(scope="module")
def node() -> Iterator[RabbitMq]:
    with RabbitMq() as node:
        yield node


@pytest.fixture(scope="module")
def burning(node: RabbitMq) -> Iterator[House]:
    """With a node of its own, to be killed."""
    with house({**QUICK, "CELERY_BROKER_URL": node.url}) as (stack, ml):
        yield House(stack, ml, containers(stack))


@pytest.fixture
def fire(burning: House, node: RabbitMq) -> Iterator[House]:
    yield burning
    node.resume()
    for container in burning.nodes.values():
        container.teardown()
        container.ready()


def all_is_well(fire: House, history: History, seconds: float = 40) -> float:
    """Every answered order has succeeded and had its effects once; the seconds until the last had."""
    took = settled(fire.stack.env, seconds)
    verdict = judge(history, fire.stack.env, fire.ml, {})
    assert verdict.violations == []
    assert verdict.ended == {"succeeded": verdict.jobs}
    return took


def under_load(history: History) -> None:
    before = len(history.answered)
    eventually(lambda: len(history.answered) >= before + 10, 20, "ten orders are answered")


def test_the_queues_are_quorum_queues_and_nothing_else_is_kept(fire: House, node: RabbitMq) -> None:
    answer = node.control("list_queues", "name", "type", "durable", "auto_delete", "arguments")
    queues = {name: rest for name, _, rest in (line.partition("\t") for line in answer.splitlines()[1:])}
    for name in ("io", "cpu", "mail", "default"):
        assert queues.pop(name).split("\t")[0] == "quorum"
    assert [name for name in queues if name.startswith("celery_delayed")] == [], "no job is delayed by the broker"
    assert all("x-expires" in rest for rest in queues.values()), "queues of remote control go with their process"


def test_no_message_is_held_longer_than_the_node_allows(fire: House, node: RabbitMq) -> None:
    (milliseconds,) = [word for word in node.control("eval", _CONSUMER_TIMEOUT).split() if word.isdecimal()]
    assert int(milliseconds) / 1000 > STEP_SECONDS


def test_a_node_that_is_killed_under_load_costs_nothing(fire: House, client: User, node: RabbitMq) -> None:
    history = History(client, clients=2, resend=True)
    with history:
        under_load(history)
        node.kill()
        time.sleep(1.5)  # nobody is there
        node.start()
        under_load(history)
    all_is_well(fire, history)


def test_an_empty_node_in_place_of_the_lost_one(
    fire: House, client: User, node: RabbitMq, capsys: pytest.CaptureFixture[str]
) -> None:
    fire.nodes["worker"].kill()
    history = History(client, clients=0, resend=True)
    for _ in range(JOBS):
        history.order()
    assert messages(fire.stack, "io") >= JOBS
    node.kill()
    began = time.monotonic()
    for _ in range(5):
        history.order()
    assert (time.monotonic() - began) / 5 < ORDER_SECONDS, "an order does not wait for a dead broker"
    node.lose()
    fire.nodes["worker"].restart()
    took = all_is_well(fire, history)
    assert len(history.answered) == JOBS + 5
    with capsys.disabled():
        sys.stdout.write(
            f"\n  RabbitMQ lost with {JOBS} messages: all jobs done {took:.1f} s after an empty one was there\n"
        )


def test_queues_that_were_emptied(fire: House, client: User) -> None:
    fire.nodes["worker"].kill()
    history = History(client, clients=0, resend=True)
    for _ in range(JOBS):
        history.order()
    assert messages(fire.stack, "io") >= JOBS
    lose_messages(fire.stack)
    fire.nodes["worker"].restart()
    all_is_well(fire, history)


def test_a_node_that_answers_nothing_for_longer_than_two_heartbeats(
    fire: House, client: User, node: RabbitMq, capsys: pytest.CaptureFixture[str]
) -> None:
    history = History(client, clients=0, resend=True)
    history.order()
    node.pause()
    paused_at = time.monotonic()
    while time.monotonic() - paused_at < 2.5 * HEARTBEAT_SECONDS:
        began = time.monotonic()
        history.order()
        assert time.monotonic() - began < ORDER_SECONDS, "an order does not wait for a silent broker"
        time.sleep(1)
    assert {container.status for container in fire.nodes.values()} == {"running"}
    silent = time.monotonic() - paused_at
    node.resume()
    took = all_is_well(fire, history)
    with capsys.disabled():
        sys.stdout.write(f"\n  RabbitMQ silent for {silent:.0f} s: all jobs done {took:.1f} s after it spoke again\n")


def test_a_worker_is_back_before_the_broker_has_noticed_that_it_was_away(
    fire: House, client: User, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after some seconds without a network: its old connection still holds its queue of remote control, and messages
    that nobody works on. The broker drops it after two heartbeats; nobody waits for that.
    """
    worker, guard = fire.nodes["worker"], Guard()
    program = worker.process.program
    same = Process(replace(program, log=program.log.with_name("same.log")), guard, lambda _: None)
    same.program.log.touch()
    history = History(client, clients=0, resend=True)
    worker.kill("SIGSTOP")
    try:
        same.start()
        ProcessContainer(same, prompt=" ready.").ready()
        for _ in range(6):
            history.order()
        took = all_is_well(fire, history)
        assert same.deaths == 0
    finally:
        same.stop()
        guard.close()
    with capsys.disabled():
        sys.stdout.write(
            f"\n  six orders beside a worker that holds messages and does nothing: done after {took:.1f} s\n"
        )
