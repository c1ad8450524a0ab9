"""What clients did and were told, kept on their side: each request with its answer, or that none came."""

import io
import random
import secrets
import threading
import time
import zipfile
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field

import httpx

from tests.client import FINAL, User

UNFINISHED = 2  # jobs of one client that it lets stand before it waits for the oldest
PATIENCE_SECONDS = 15.0  # with one job; then it orders on and leaves it to the check at the end
MEMBERS = 3


@dataclass
class Order:
    """One POST /jobs, and the same again where no answer came."""

    key: str  # the Idempotency-Key; also the job's title, so that the database can be asked for what it led to
    archive: bool
    sent_at: float = field(default_factory=time.time)
    statuses: list[int | None] = field(default_factory=list)  # of each time it was sent; None: no answer came
    job_id: str | None = None
    # what was ordered of the job afterwards, and whether that was answered
    cancelled: bool = False  # 202: it must not succeed any more
    deletion_sent: bool = False
    deleted: bool = False  # 204, or 404 to a DELETE that was sent again: it must not be there
    reruns: int = 0  # that were sent; each is one job more of the same title, or none

    @property
    def answered(self) -> bool:
        return self.job_id is not None


class History:
    """Orders from ``clients`` threads, as fast as jobs come to their end, until ``stop``.

    ``resend``: an order without an answer is sent again with its key, as RFC-abiding clients do; else it is left.
    ``share``: of how many jobs something more is wanted, by the seed: to be cancelled, deleted, or run again.
    """

    def __init__(self, user: User, clients: int = 3, *, resend: bool, share: float = 0.0, seed: int = 0) -> None:
        self.orders: list[Order] = []
        self.refused: Counter[int] = Counter()  # clean refusals by status
        self.wanted: Counter[str] = Counter()  # what else was answered: cancel, delete, retry
        self.unclean: list[str] = []  # answers that should not have been given, e.g. a 503 without Retry-After
        self._user, self._resend, self._share, self._seed = user, resend, share, seed
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._client, args=(number,), name=f"client-{number}") for number in range(clients)
        ]

    def __enter__(self) -> "History":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    @property
    def answered(self) -> list[Order]:
        return [order for order in self.orders if order.answered]

    @property
    def unanswered(self) -> list[Order]:
        return [order for order in self.orders if None in order.statuses]

    def order(self, user: User | None = None, *, archive: bool = True) -> Order:
        """One order, sent until it is answered or may not be sent again."""
        order = Order(key=secrets.token_hex(10), archive=archive)
        self.orders.append(order)
        self._send(user or self._user, order)
        return order

    def _client(self, number: int) -> None:
        mine: deque[Order] = deque()
        chance = random.Random(self._seed * 1000 + number)
        with User(self._user.url, token=self._user.http.headers["Authorization"].removeprefix("Bearer ")) as user:
            user.http.timeout = httpx.Timeout(20)
            while not self._stopping.is_set():
                order = self.order(user, archive=len(self.orders) % 2 == 0)
                if order.job_id:
                    mine.append(order)
                    if chance.random() < self._share:
                        self._want(user, order, chance.choice(("cancel", "delete")))
                if len(mine) >= UNFINISHED:
                    oldest = mine.popleft()
                    if not oldest.deletion_sent:
                        self._await(user, str(oldest.job_id))
                        if chance.random() < self._share:
                            again = self._want(user, oldest, chance.choice(("retry", "retry", "delete")))
                            mine += [again] if again else []

    def _send(self, user: User, order: Order) -> None:
        while not self._stopping.is_set() or not order.statuses:
            try:
                answer = user.http.post(
                    "/jobs",
                    files={"file": ("a.zip", ARCHIVE) if order.archive else ("a.txt", b"some text\n")},
                    data={"title": order.key},
                    headers={"Idempotency-Key": order.key},
                )
            except httpx.TransportError as error:
                # a connection that was not even made is no request that could have been carried out
                order.statuses.append(0 if isinstance(error, httpx.ConnectError) else None)
            else:
                order.statuses.append(answer.status_code)
                if answer.status_code == 202:
                    order.job_id = answer.json()["id"]
                    return
                self._judge(answer)
            self._stopping.wait(0.2)
            if None in order.statuses and not self._resend:
                return

    def _want(self, user: User, order: Order, what: str) -> Order | None:
        """Have the job cancelled, deleted or run again, sent until it is answered; the order of the rerun."""
        order.deletion_sent |= what == "delete"
        order.reruns += what == "retry"
        method, path = ("DELETE", "") if what == "delete" else ("POST", f"/{what}")
        headers = {"Idempotency-Key": secrets.token_hex(10)} if what == "retry" else {}
        sent = 0
        while not sent or not self._stopping.is_set():
            sent += 1
            with suppress(httpx.TransportError):
                answer = user.http.request(method, f"/jobs/{order.job_id}{path}", headers=headers)
                status = answer.status_code
                if status in (202, 204):
                    self.wanted[what] += 1
                    order.cancelled |= what == "cancel"
                    order.deleted |= what == "delete"
                    if what != "retry":
                        return None
                    again = Order(key=order.key, archive=order.archive, statuses=[status], job_id=answer.json()["id"])
                    self.orders.append(again)
                    return again
                if status == 404 and what == "delete" and sent > 1:  # the answer that got lost said 204
                    order.deleted = True
                    return None
                if status == 409 and "Retry-After" not in answer.headers:
                    return None  # it has ended already, or not yet
                self._judge(answer)
            self._stopping.wait(0.2)
        return None

    def _judge(self, answer: httpx.Response) -> None:
        status = answer.status_code
        self.refused[status] += 1
        busy = status == 409 and answer.headers.get("Retry-After")  # its first sending is still in flight
        if not busy and (status not in (429, 503) or "Retry-After" not in answer.headers):
            self.unclean.append(f"{status} {answer.text[:300]}")

    def _await(self, user: User, job_id: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline and not self._stopping.is_set():
            try:
                answer = user.http.get(f"/jobs/{job_id}")
            except httpx.TransportError:
                self._stopping.wait(0.2)
                continue
            if answer.status_code == 200 and answer.json()["status"] in FINAL:
                return
            if answer.status_code not in (200, 503):
                self.unclean.append(f"GET {answer.status_code} {answer.text[:300]}")
            self._stopping.wait(0.05)


def _archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(MEMBERS):
            archive.writestr(f"member-{number}.txt", b"text\n")
    return buffer.getvalue()


ARCHIVE = _archive()
