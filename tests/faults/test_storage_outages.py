"""Promise 5, as the jobs see it: without the object storage they wait, and none of them fails for it."""

import time

from tests.client import User
from tests.faults.conftest import House
from tests.faults.history import ARCHIVE
from tests.faults.nodes import eventually

JOBS = 4
AWAY = 6.0  # seconds after the last job was put off


def test_jobs_wait_for_the_object_storage_and_burn_no_attempt(fire: House, client: User) -> None:
    name = client.http.post("/upload", files={"file": ("a.zip", ARCHIVE)}).raise_for_status().json()["filename"]
    fire.nodes["s3"].kill()
    jobs = [client.http.post("/jobs", json={"filename": name}).raise_for_status().json()["id"] for _ in range(JOBS)]
    put_off = (
        "SELECT count(DISTINCT job_id) AS n FROM job_attempts WHERE outcome = 'postponed' AND job_id = ANY(%s::uuid[])"
    )
    eventually(lambda: fire.query(put_off, jobs)[0]["n"] == JOBS, 30, "every job is put off")
    time.sleep(AWAY)
    waiting = [client.job(job) for job in jobs]
    assert {job["status"] for job in waiting} == {"processing"}
    assert {job["message"] for job in waiting} == {"waiting until the object storage answers again"}
    fire.nodes["s3"].restart()
    ended = [client.finished(job, 60) for job in jobs]
    assert [(job["status"], job["attempts"]) for job in ended] == [("succeeded", 1)] * JOBS
