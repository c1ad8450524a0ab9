"""``Idempotency-Key``: what creates may be sent again without creating twice.

After draft-ietf-httpapi-idempotency-key-header-07.

    async with idempotent(request, principal.id, idempotency_key) as once:
        async with receive(request, limit, hash_only=once.answered) as form:
            once.same_body(form.fingerprint())  # the block ends here when the key has its answer already
            await form.keep(lambda: write(..., once))  # calls once.record(connection, answer) in its transaction
    return once.answer

Without the header all of it costs nothing and does nothing. Two requests with one key may still run side by side when
the first was silent for longer than its lease; only one of them can commit.
"""

import asyncio
import hashlib
import hmac
import re
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from typing import Annotated, Any
from uuid import UUID

import msgspec
import structlog
from litestar import Request, Response
from litestar.params import HeaderParameter
from sqlalchemy import Connection

from api import problems
from api.objects import blocking, unbroken
from domain.errors import MillraceError
from domain.errors.requests import IdempotencyMismatch, Invalid
from storage import idempotency
from storage.configuration import settings
from storage.database import autocommit, transaction
from storage.idempotency import NOBODY, Answer, Claim, Key

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
# Refusals that are the body's own fault, so that the same body would be refused again. Neither 401, 429 and 5xx, which
# pass, nor 404 and 409, which depend on what else there is.
ABOUT_THE_BODY = frozenset({400, 413, 415, 422})

# The draft wants a String of RFC 8941 (3.3.3), in double quotes; most clients send the bare word. It is the same key.
_quoted = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')
_visible = re.compile(r"[!-~]{1,255}")

log = structlog.get_logger(__name__)

# For a handler's signature, with None as default.
IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name=HEADER,
        description="1 to 255 visible ASCII characters, new for each new request, best a UUID. The same key with the "
        "same body gives the first answer again, with `Idempotency-Replayed: true`.",
    ),
]


class Once:
    """One request that may have been sent before; see the module."""

    def __init__(self, claim: Claim | None = None, first: Answer | None = None) -> None:
        self._claim = claim
        self._first = first
        self._fingerprint: bytes | None = None
        self._answer: Response[Any] | None = None

    @property
    def answered(self) -> bool:
        """Whether the key has its answer, so that the body need only be read to be compared."""
        return self._first is not None

    @property
    def answer(self) -> Response[Any]:
        """What to answer, now or again."""
        if self._answer is None:
            raise RuntimeError("no answer was recorded")
        return self._answer

    def same_body(self, fingerprint: bytes) -> None:
        """Say what the body is, once it has come whole. Does not return when the key has its answer already.

        Raises:
            IdempotencyMismatch: the key was answered for another body.
        """
        self._fingerprint = fingerprint
        if self._first is None:
            return
        if not hmac.compare_digest(self._first.fingerprint, fingerprint):
            raise IdempotencyMismatch(field=HEADER)
        headers = {**self._first.headers, REPLAYED: "true"}
        media_type = headers.pop("Content-Type")
        self._answer = Response(
            self._first.body, status_code=self._first.status_code, headers=headers, media_type=media_type
        )
        raise _AnsweredBefore

    def writing(self) -> AbstractContextManager[Connection]:
        """A connection for an effect of one statement: a transaction only where ``record`` has to be part of it."""
        return transaction() if self._claim else autocommit()

    def record(self, connection: Connection, answer: Response[Any]) -> None:
        """Answer so, if the transaction of ``connection`` is committed: its last statement.

        Raises:
            IdempotencyInFlight: another request has taken the key over; nothing may be committed.
        """
        if self._first is not None or (self._claim is not None and self._fingerprint is None):
            raise RuntimeError("same_body comes before any effect")
        if self._claim is not None and self._fingerprint is not None:
            kept = _written(answer, self._fingerprint)
            idempotency.finish(connection, self._claim, kept, settings().idempotency_seconds)
        self._answer = answer

    def record_refusal(self, request: Request[Any, Any, Any], error: MillraceError) -> None:
        """Keep the problem as the answer; that it is another's key by now, or cannot be kept, changes nothing."""
        fingerprint = self._fingerprint or _unread(request, error)
        if self._claim is not None:
            with suppress(MillraceError), autocommit() as connection:
                kept = _written(problems.answer(request, error), fingerprint)
                idempotency.finish(connection, self._claim, kept, settings().idempotency_seconds)


class _AnsweredBefore(Exception):
    """Ends the block of ``idempotent``; nobody else sees it."""


@asynccontextmanager
async def idempotent(request: Request[Any, Any, Any], owner_id: UUID | None, key: str | None) -> AsyncIterator[Once]:
    """Around everything that a request does; ``owner_id`` is None where there is no account.

    The claim is held as long as the block runs. An answer is kept when the block recorded it, or was left by an error
    that is about the body; anything else lets the key go.

    Raises:
        Invalid: the header is not a key.
        IdempotencyInFlight: another request with this key is being answered; nothing of the body was read.
        IdempotencyMismatch: the body differs from the one that was answered.
    """
    if key is None:
        yield Once()
        return
    config = settings()
    route = f"{request.method} {request.scope['path'].rstrip('/')}"  # the very path: one job's retry is not another's
    this = Key(owner_id=owner_id or NOBODY, route=route, key=read_key(request))
    held = await blocking(idempotency.claim, this, config.lease_seconds, config.idempotency_seconds)
    if isinstance(held, Answer):
        once = Once(first=held)
        with suppress(_AnsweredBefore):
            try:
                yield once
            except MillraceError as error:
                if not _is_about_the_body(error):
                    raise
                once.same_body(_unread(request, error))
        return
    once = Once(claim=held)
    async with _holding(held):
        try:
            yield once
        except MillraceError as error:
            if _is_about_the_body(error):
                await unbroken(blocking(once.record_refusal, request, error))
            raise


def read_key(request: Request[Any, Any, Any]) -> str:
    """The key in the header. Raises Invalid."""
    given = [value.strip() for value in request.headers.getall(HEADER, [])]
    if len(given) == 1:
        quoted = _quoted.fullmatch(given[0])
        word = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else given[0]
        if _visible.fullmatch(word) and (quoted or not word.startswith('"')):
            return word
    raise Invalid(field=HEADER, reason=f"{HEADER} must be one key of 1 to 255 visible ASCII characters")


def fingerprint(body: bytes) -> bytes:
    """Of a body that was read whole; of a form see ``ReceivedForm.fingerprint``."""
    return hashlib.sha256(body).digest()


def secret_fingerprint(body: bytes) -> bytes:
    """Of a body that holds a password: who reads the table cannot try passwords on it, and faster than on Argon2."""
    return hmac.digest(settings().jwt_secret.encode(), b"idempotency\0" + body, "sha256")


def _is_about_the_body(error: MillraceError) -> bool:
    # retryable: the client was cut off in the middle (client_gone), which is a 400 and says nothing of the body
    return error.status in ABOUT_THE_BODY and not error.retryable and not isinstance(error, IdempotencyMismatch)


def _unread(request: Request[Any, Any, Any], error: MillraceError) -> bytes:
    """Of a body that was refused before its end: how long it said to be, and why it was refused."""
    length = request.headers.get("content-length", "")
    return fingerprint(f"{length}\0{error.code}\0{error}".encode())


def _written(answer: Response[Any], of_body: bytes) -> Answer:
    headers = {name: value for name, value in answer.headers.items() if value is not None}
    headers["Content-Type"] = answer.media_type or "application/json"
    return Answer(
        fingerprint=of_body,
        status_code=answer.status_code or 200,
        headers=headers,
        body=msgspec.json.encode(answer.content),
    )


@asynccontextmanager
async def _holding(claim: Claim) -> AsyncIterator[None]:
    """Extend the lease while the block runs; let the key go when the block fails, unless it has its answer."""
    beating = asyncio.create_task(_beat(claim))
    try:
        yield
    except BaseException:
        await unbroken(_let_go(claim))
        raise
    finally:
        beating.cancel()


async def _beat(claim: Claim) -> None:
    lease = settings().lease_seconds
    held = True
    while held:
        await asyncio.sleep(lease / 3)
        with suppress(MillraceError):  # the database is away: the commit will tell whether the claim still stands
            held = await blocking(idempotency.extend, claim, lease)
    log.warning("an idempotency key was taken over", route=claim.key.route)


async def _let_go(claim: Claim) -> None:
    try:
        await blocking(idempotency.release, claim)
    except MillraceError:
        log.warning("an idempotency key stays claimed until its lease runs out", route=claim.key.route)
