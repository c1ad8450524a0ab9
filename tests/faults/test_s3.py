"""Promise 5: an object storage that is away, hangs, or acts and does not answer."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import httpx
import pytest

from tests.client import User
from tests.faults.chaos import QUICK, house
from tests.faults.conftest import House
from tests.faults.history import ARCHIVE
from tests.faults.nodes import containers, eventually
from tests.faults.proxy import Faults, Proxy
from tests.faults.stored import stored

ANSWER_SECONDS = 2.0
SOON = ANSWER_SECONDS + 4.5  # its limit, a clean-up of two seconds, and a busy machine
SHORT = {"S3_ANSWER_SECONDS": str(ANSWER_SECONDS), "UPLOAD_LEFTOVER_SECONDS": "3", "RECONCILE_SECONDS": "1"}


@dataclass(frozen=True)
class Store:
    """The house, and the proxy through which it reaches its storage; we look past it."""

    house: House
    proxy: Proxy
    url: str

    def stored(self) -> set[str]:
        return stored(self.house.stack.env, self.url)

    def named(self) -> set[str]:
        files = self.house.query("SELECT object_key AS key FROM files")
        results = self.house.query("SELECT result_key AS key FROM jobs WHERE result_key IS NOT NULL")
        return {row["key"] for row in files + results}

    def swept(self) -> None:
        """Until there is just what rows name."""
        eventually(lambda: self.stored() == self.named(), 20, "the store holds what rows name, and nothing else")


@pytest.fixture(scope="module")
def burning_store() -> Iterator[Store]:
    with house({**QUICK, **SHORT}, only=()) as (servers, ml):
        url = servers.env["S3_ENDPOINT_URL"]
        with Proxy(int(url.rpartition(":")[2])) as proxy:
            through = {
                **{name: servers.env[name] for name in servers.env if name not in ("PORT", "PUBLIC_URL", "ML_PORT")},
                "S3_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}",
            }
            with house({**QUICK, **SHORT, **through}, ml=ml) as (stack, _):
                seen = replace(stack, env={**servers.env, **stack.env})
                yield Store(House(seen, ml, containers(seen)), proxy, url)


@pytest.fixture
def store(burning_store: Store) -> Iterator[Store]:
    burning_store.proxy.lost = 0
    yield burning_store
    burning_store.proxy.heal()


@pytest.fixture
def user(store: Store) -> Iterator[User]:
    with User(store.house.stack.url) as user:
        yield user


def timed(answer: httpx.Response) -> tuple[int, str | None, bool]:
    code = answer.json()["code"] if answer.status_code >= 400 else None
    return answer.status_code, code, answer.elapsed.total_seconds() < SOON


def order(user: User, key: str, body: bytes = ARCHIVE) -> httpx.Response:
    return user.http.post("/jobs", files={"file": ("a.zip", body)}, headers={"Idempotency-Key": key})


def finished(user: User) -> str:
    return str(user.finished(user.order("a.zip", ARCHIVE)["id"])["id"])


# ---------------------------------------------------------------- away, or deaf


@pytest.mark.parametrize("how", ["hangs", "refuses"])
def test_an_order_is_refused_in_time_and_taken_when_the_store_is_back(store: Store, user: User, how: str) -> None:
    if how == "hangs":
        store.proxy.faults = Faults(hang=True)
    else:
        store.proxy.refuse()
    answer = order(user, how)
    assert timed(answer) == (503, "storage_unavailable", True), answer.elapsed
    assert int(answer.headers["Retry-After"]) >= 1
    store.proxy.heal()
    again = order(user, how)
    assert again.status_code == 202, again.text
    assert user.finished(again.json()["id"])["status"] == "succeeded"
    store.swept()


@pytest.mark.parametrize("how", ["hangs", "refuses"])
def test_what_is_deleted_is_deleted_and_its_objects_follow(store: Store, user: User, how: str) -> None:
    kept, job = finished(user), finished(user)
    alone = user.http.post("/upload", files={"file": ("b.zip", ARCHIVE)}).json()["filename"]
    assert any(key.startswith(f"results/{job}/") for key in store.stored())
    if how == "hangs":
        store.proxy.faults = Faults(hang=True)
    else:
        store.proxy.refuse()
    assert timed(user.http.delete(f"/jobs/{job}")) == (204, None, True)
    assert user.http.get(f"/jobs/{job}").status_code == 404
    assert timed(user.http.delete(f"/files/{alone}")) == (204, None, True)
    store.proxy.heal()
    store.swept()
    assert user.http.get(f"/jobs/{kept}/file").content == ARCHIVE


# ---------------------------------------------------------------- it has acted, and its answer is lost


def refused_and_swept(store: Store, user: User, answer: httpx.Response, again: Callable[[], httpx.Response]) -> None:
    assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
    assert store.proxy.lost >= 1
    store.proxy.heal()
    assert user.http.get("/jobs").json()["items"] == []
    second = again()
    assert second.status_code == 202, second.text
    third = again()
    assert (third.status_code, third.headers.get("idempotency-replayed")) == (202, "true")
    assert [job["id"] for job in user.http.get("/jobs").json()["items"]] == [second.json()["id"]]
    assert third.json()["id"] == second.json()["id"]
    assert len(user.http.get("/files").json()["items"]) == 1
    user.finished(second.json()["id"])
    store.swept()


def test_a_put_whose_answer_is_lost(store: Store, user: User) -> None:
    store.proxy.faults = Faults(lose_answers=1, lose_answer_to=b"PUT /")
    refused_and_swept(store, user, order(user, "put"), lambda: order(user, "put"))


def test_a_put_whose_answer_is_lost_while_the_store_goes_away(store: Store, user: User) -> None:
    finished(user)  # so that one leftover is less than what there is: else it is held for an operator
    before = store.stored()
    store.proxy.faults = Faults(lose_answers=1, lose_answer_to=b"PUT /", refuse_after_loss=True)
    with User(user.url) as other:
        answer = order(other, "away")
        assert store.stored() > before, "it has acted, and nobody could undo it"
        refused_and_swept(store, other, answer, lambda: order(other, "away"))


def test_a_multipart_upload_whose_completion_is_not_answered(store: Store, user: User) -> None:
    body = os.urandom(12 * 1024**2)

    def send() -> httpx.Response:
        pieces = (body[start : start + 65536] for start in range(0, len(body), 65536))  # no length: it goes in parts
        headers = {"Idempotency-Key": "parts", "Content-Type": "application/x-scan"}
        return user.http.post("/jobs?title=parts", content=pieces, headers=headers)

    store.proxy.faults = Faults(lose_answers=9, lose_answer_to=b"<CompleteMultipartUpload")
    refused_and_swept(store, user, send(), send)
