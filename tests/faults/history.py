"""What clients did and were told, kept on their side: each request with its answer, or that none came."""

import io
import secrets
import threading
import time
import zipfile
from collections import Counter, deque
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

    @property
    def answered(self) -> bool:
        return self.job_id is not None


class History:
    """Orders from ``clients`` threads, as fast as jobs come to their end, until ``stop``.

    ``resend``: an order without an answer is sent again with its key, as RFC-abiding clients do; else it is left.
    """

    def __init__(self, user: User, clients: int = 3, *, resend: bool) -> None:
        self.orders: list[Order] = []
        self.refused: Counter[int] = Counter()  # clean refusals by status
        self.unclean: list[str] = []  # answers that should not have been given, e.g. a 503 without Retry-After
        self._user, self._resend = user, resend
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._client, name=f"client-{number}") for number in range(clients)]

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

    def _client(self) -> None:
        mine: deque[str] = deque()
        with User(self._user.url, token=self._user.http.headers["Authorization"].removeprefix("Bearer ")) as user:
            user.http.timeout = httpx.Timeout(20)
            while not self._stopping.is_set():
                order = self.order(user, archive=len(self.orders) % 2 == 0)
                if order.job_id:
                    mine.append(order.job_id)
                if len(mine) >= UNFINISHED:
                    self._await(user, mine.popleft())

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
