"""Workers killed at random while they fetch: every recording once, none missing, nothing marked before it is kept.

RECORDINGS_KILLS says how often (`make kills-recordings`: a hundred times).
"""

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from stack.imap import MailServer, serving
from stack.up import running
from storage import objects
from tests import dovecot
from tests.brokers import broker_env
from tests.client import FINAL, WITH_ADMIN, User
from tests.mailbox_corpus import digest, letters, wanted
from tests.own_settings import settings_of
from workers.recordings.storing import THREADS

KILLS = int(os.environ.get("RECORDINGS_KILLS", "5"))
LETTERS = max(300, KILLS * 12)


@pytest.fixture(params=["pymap", "dovecot"])
def mail(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MailServer]:
    if request.param == "dovecot" and dovecot.BINARY is None:
        pytest.skip("needs Debian's dovecot-imapd")
    with dovecot.serving() if request.param == "dovecot" else serving(tmp_path / "imap.log") as server:
        yield server


def test_every_recording_is_kept_once_however_often_the_worker_dies(mail: MailServer) -> None:
    dice = random.Random(KILLS)
    some = letters(LETTERS)
    with mail.client() as client:
        for letter in some:
            client.append("INBOX", letter.raw)
    env = {
        **WITH_ADMIN,
        "LEASE_SECONDS": "2",
        "SWEEP_SECONDS": "0.3",
        # and in each of the gaps, once
        "MILLRACE_FAILPOINTS": "mail.stored=kill@7,mail.committed=kill@9,mail.acted=kill@1",
        **mail.settings(),
        **broker_env(),
    }
    with running(env=env, only=["api", "worker", "sweeper", "beat"]) as house:
        with User.admin(house.url) as admin:
            body = {**mail.order(), "after_action": "move", "move_to": "kept", "poll_seconds": 2}
            mailbox_id = admin.http.post("/mailboxes", json=body).raise_for_status().json()["id"]
            worker, kills = house.processes["worker"], 0
            deadline = time.monotonic() + 90 + KILLS * 8
            while time.monotonic() < deadline:
                (now,) = admin.http.get("/recordings/status").json()["mailboxes"]
                if kills < KILLS and (now["waiting"] or not now["found"]):
                    before = now["stored"]
                    until_at = time.monotonic() + 6
                    while time.monotonic() < until_at:  # something has been done since the last death
                        (now,) = admin.http.get("/recordings/status").json()["mailboxes"]
                        if now["stored"] > before:
                            break
                        time.sleep(0.02)
                    time.sleep(dice.random() * 0.2)
                    worker.kill()
                    worker.start()
                    kills += 1
                elif now["found"] and not now["waiting"] and admin.job(now["job_id"])["status"] in FINAL:
                    with mail.client() as client:
                        left = client.folder_status("INBOX", ["MESSAGES"])[b"MESSAGES"]
                        if left == sum(not letter.audio for letter in some):
                            break
                time.sleep(0.1)
        fired = {one.name for one in (house.data_dir / "failpoints").glob("*.fired")}
        assert fired == {"mail.stored.fired", "mail.committed.fired", "mail.acted.fired"}
        with psycopg.connect(house.env["DATABASE_URL"]) as rows:
            kept = rows.execute("SELECT sha256, object_key FROM recordings").fetchall()
            states = dict(rows.execute("SELECT state, count(*) FROM mail_messages GROUP BY state").fetchall())
        assert sorted(sha for sha, _ in kept) == sorted(wanted(some)), (kills, states)
        assert set(states) <= {"stored", "duplicate"}
        with mail.client() as client:
            assert client.folder_status("kept", ["MESSAGES"])[b"MESSAGES"] == sum(bool(one.audio) for one in some)
        with settings_of(house.env):
            for sha, key in kept:
                assert digest(objects.read(key, 10**8)) == sha, "each object is what its row says"
            spare = set(objects.below("recordings/")) - {key for _, key in kept}
    assert kills == KILLS
    assert len(spare) <= 2 * THREADS * (kills + 3), "a death leaves what was under way, for the reconciliation"
    assert mailbox_id
