"""The official pytest-celery API (nodes, clusters, setup) drives plain processes here."""

import psutil
import pytest
from pytest_celery import CeleryTestSetup

from tests.client import User
from tests.faults.conftest import House
from tests.faults.history import ARCHIVE
from tests.faults.nodes import eventually


def test_the_setup_is_made_of_this_houses_processes(celery_setup: CeleryTestSetup, fire: House) -> None:
    assert celery_setup.ready(ping=False, control=True, docker=True)
    assert len(celery_setup) == 3
    assert [worker.name() for worker in celery_setup.worker_cluster] == ["worker", "sweeper"]
    assert celery_setup.worker.worker_queue == "io,cpu,mail"
    assert celery_setup.backend is None
    assert celery_setup.app.conf.broker_url == fire.stack.env["REDIS_URL"]
    answers = {name for answer in celery_setup.app.control.ping(timeout=3) for name in answer}
    assert {name.partition("@")[0] for name in answers} == {
        worker.worker_name for worker in celery_setup.worker_cluster
    }
    processes = celery_setup.worker.get_running_processes_info(["pid", "ppid"])
    assert len(processes) >= 3, "the worker and its pool"
    celery_setup.app.close()


def test_a_killed_worker_stays_dead_until_it_is_restarted(celery_setup: CeleryTestSetup, client: User) -> None:
    pool = celery_setup.worker.children
    celery_setup.worker.kill()
    assert celery_setup.worker.container.status == "exited"
    eventually(lambda: not any(child.is_running() for child in pool), 5, "its pool is gone with it")
    with pytest.raises(psutil.NoSuchProcess):
        _ = celery_setup.worker.container.client
    job = client.order("a.zip", ARCHIVE)
    celery_setup.worker.restart()
    celery_setup.worker.assert_log_exists("ready.")
    assert client.finished(job["id"])["status"] == "succeeded"
    celery_setup.app.close()


def test_while_the_broker_is_dead_jobs_are_accepted_and_they_run_when_it_is_back(
    celery_setup: CeleryTestSetup, client: User
) -> None:
    celery_setup.broker.kill()
    jobs = [client.order("a.zip", ARCHIVE) for _ in range(3)]
    assert {job["status"] for job in jobs} == {"queued"}
    celery_setup.broker.restart()
    for job in jobs:
        assert client.finished(job["id"])["status"] == "succeeded"
    celery_setup.app.close()
