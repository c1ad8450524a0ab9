"""Requests that outlive a restart of the server: tried again where that cannot do anything twice."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec

from millrace.errors import BadAddress, BadToken, FileChanged, InFlight, Unavailable, Unreachable, refused

FIRST_DELAY, LONGEST_DELAY = 0.2, 5.0  # seconds, before full jitter
# A server may think for long at the end of a large upload; a stream says something every 15 s.
TIMEOUT = httpx.Timeout(60, connect=10, read=300)
SILENCE = 45.0
PERSISTENCE = 30.0  # a request whose answer was lost, longer than a lease

T = TypeVar("T")


class Wire:
    """One server: its address, the token, connections kept open. Safe to be used by several threads."""

    def __init__(self, url: str, token: str | None, *, patience: float, language: str) -> None:
        """``patience`` is for how many seconds a request is tried again. Raises BadAddress."""
        host = _host(url)
        self.url = url.rstrip("/")
        self.patience = patience
        # a proxy of the environment is not for this very machine
        local = host in ("localhost", "127.0.0.1", "::1")
        self._http = httpx.Client(base_url=f"{self.url}/api/v1", timeout=TIMEOUT, trust_env=not local)
        self._http.headers["Accept-Language"] = language
        self.sign(token)

    def sign(self, token: str | None) -> None:
        """Make every further request with this token. Raises BadToken."""
        self._http.headers.pop("Authorization", None)
        if token := (token or "").strip():
            if not (token.isascii() and token.isprintable()):
                raise BadToken("the token is none: it holds characters that no token has")
            self._http.headers["Authorization"] = f"Bearer {token}"

    def close(self) -> None:
        self._http.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        again: bool | None = None,
        body: Callable[[], dict[str, Any]] | None = None,
        **options: Any,
    ) -> httpx.Response:
        """The answer, read whole. ``again`` says that a second try does nothing twice (None: as the method says, RFC
        9110, section 9.2.2); ``body`` makes what httpx is to send, anew for each try.

        Raises:
            Unreachable: no answer, or none to rely on.
            Refused: the answer is a problem.
        """
        harmless = method in ("GET", "PUT", "DELETE") if again is None else again

        def once(resent: bool) -> httpx.Response:
            response = self._http.request(method, path, **options, **(body() if body else {}))
            if response.is_success:
                return response
            raise refused(response, resent=resent)

        return self._tried(once, harmless)

    def read(self, method: str, path: str, shape: type[T], **options: Any) -> T:
        """The same, and the answer's JSON as ``shape``."""
        return self.decoded(self.send(method, path, **options), shape)

    def decoded(self, response: httpx.Response, shape: type[T]) -> T:
        try:
            return msgspec.json.decode(response.content, type=shape)
        except msgspec.DecodeError as error:
            raise Unreachable(f"what answers at {self.url} is not Millrace: {error}") from error

    def save(self, path: str, write: Callable[[Iterator[bytes]], None]) -> None:
        """GET, handing the body to ``write`` as it comes; ``write`` begins anew when it is called again."""

        def once(resent: bool) -> None:
            with self._http.stream("GET", path) as response:
                if not response.is_success:
                    response.read()
                    raise refused(response, resent=resent)
                write(response.iter_bytes())

        self._tried(once, harmless=True)

    @contextmanager
    def stream(self, path: str, headers: dict[str, str], silence: float) -> Iterator[httpx.Response]:
        """One GET whose answer goes on; not tried again. ``silence``: the longest the server may say nothing."""
        timeout = httpx.Timeout(10, read=silence)
        with self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
            if not response.is_success:
                response.read()
                raise refused(response)
            yield response

    def _tried(self, once: Callable[[bool], T], harmless: bool) -> T:
        began = time.monotonic()
        delays = backoff()
        resent = False
        while True:
            # What may have been done deserves an answer: a server that died with it holds its key for a lease.
            deadline = began + (max(self.patience, PERSISTENCE) if resent else self.patience)
            try:
                return once(resent)
            except httpx.LocalProtocolError as error:  # fewer or more bytes than were announced
                raise FileChanged("the file changed its size while it was uploaded") from error
            except httpx.TransportError as error:
                # what could not even connect has not been done
                unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
                if not (harmless or unsent) or time.monotonic() >= deadline:
                    raise Unreachable(f"{self.url} cannot be reached: {error or type(error).__name__}") from error
                resent = resent or not unsent
                wait = next(delays)
            except (Unavailable, InFlight) as error:
                wait = error.retry_after if error.retry_after is not None else next(delays)
                if not harmless or time.monotonic() + wait > deadline:
                    raise
            time.sleep(min(wait, max(0.0, deadline - time.monotonic())))  # the last try is at the deadline


def _host(url: str) -> str:
    """Raises BadAddress."""
    with suppress(ValueError):
        address = urlsplit(url)
        if address.scheme in ("http", "https") and address.hostname and (address.port is None or address.port):
            return address.hostname
    raise BadAddress(f"{url!r} is not the address of a server: it begins with http:// or https:// and has a host")


def backoff() -> Iterator[float]:
    """Seconds before each further try: exponential, with full jitter and a cap."""
    ceiling = FIRST_DELAY
    while True:
        yield random.uniform(0.02, ceiling)  # noqa: S311  # spreads load, hides nothing
        ceiling = min(ceiling * 2, LONGEST_DELAY)
