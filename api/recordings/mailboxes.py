"""Mailboxes, which only admins see: made, changed, tried, switched on again."""

from typing import Annotated, Any
from uuid import UUID

from litestar import Request, Response, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import UNSET

from api.idempotency import IdempotencyKey, Once, fingerprint, idempotent
from api.objects import blocking
from api.openapi.operation import documented
from api.rates import Rate, spend
from api.security import require_admin
from domain.accounts import Principal
from domain.errors.accounts import Forbidden, RateLimited
from domain.errors.recordings import (
    MailboxDisabled,
    MailboxInsecure,
    MailboxLoginRefused,
    MailboxRefused,
    MailboxUnreachable,
)
from domain.errors.requests import Invalid, NotFound
from domain.errors.webhooks import HostUnknown, UrlRefused
from domain.recordings.mailboxes import (
    Candidate,
    Check,
    DisabledReason,
    Mailbox,
    MailboxChange,
    MailboxOrder,
    MailboxPage,
)
from storage.database import autocommit, transaction
from storage.jobs.orders import set_going
from storage.recordings import mailboxes, polling, sealing
from storage.recordings.imap import connected
from storage.recordings.imap.connecting import check

CHANGES = Rate("mailbox-changes", 60, 60)  # of one account: each may hold a thread until a server answers
LOOKED_AT = 20  # messages of a check, the newest

# As documented errors: never raised themselves.
NO_MAILBOX = NotFound(what="mailbox")
ADMINS = Forbidden(role="admin")
LIMITED = RateLimited(seconds=42, retry_after=42)
_REFUSED = (
    UrlRefused(field="host", reason="its address is not a public one"),
    HostUnknown(field="host", host="imap.example.invalid"),
    MailboxInsecure(field="security"),
    Invalid(field="time_zone", reason="'Mars/Olympus' is no time zone"),
)


@post(
    "/mailboxes",
    tags=["recordings"],
    summary="Watch a mailbox",
    status_code=201,
    **documented(ADMINS, NotFound(what="account"), LIMITED, *_REFUSED, headers={"Location": "The mailbox"}),
)
async def create_mailbox(
    data: JSONBody[MailboxOrder],
    request: Request[Any, Any, Any],
    principal: NamedDependency[Principal],
    idempotency_key: IdempotencyKey = None,
) -> Response[Mailbox]:
    """From now on it is looked into every `poll_seconds`, and recordings that come there are kept. The secret is stored
    encrypted and never shown. For admins."""
    require_admin(principal)
    await spend(request, CHANGES, str(principal.id))
    async with idempotent(request, principal.id, idempotency_key) as once:
        once.same_body(fingerprint(await request.body()))
        await blocking(_create, data, principal, once)
    return once.answer


@get(
    "/mailboxes", tags=["recordings"], summary="All mailboxes, newest first", sync_to_thread=True, **documented(ADMINS)
)
def list_mailboxes(
    principal: NamedDependency[Principal],
    limit: Annotated[int, QueryParameter(ge=1, le=100, description="Mailboxes on a page")] = 20,
    after: Annotated[UUID | None, QueryParameter(description="`next` of the page before")] = None,
) -> MailboxPage:
    """Without their secrets. For admins."""
    require_admin(principal)
    with autocommit() as connection:
        found = mailboxes.page(connection, after=after, limit=limit + 1)
    return MailboxPage(items=found[:limit], next=found[limit - 1].id if len(found) > limit else None)


@get(
    "/mailboxes/{mailbox_id:uuid}",
    tags=["recordings"],
    summary="One mailbox",
    sync_to_thread=True,
    **documented(ADMINS, NO_MAILBOX),
)
def read_mailbox(mailbox_id: FromPath[UUID], principal: NamedDependency[Principal]) -> Mailbox:
    """`enabled` is false with a `disabled_reason` where it was switched off. For admins."""
    require_admin(principal)
    with autocommit() as connection:
        return mailboxes.one(connection, mailbox_id)


@put(
    "/mailboxes/{mailbox_id:uuid}",
    tags=["recordings"],
    summary="Change a mailbox",
    **documented(
        ADMINS,
        NO_MAILBOX,
        LIMITED,
        *_REFUSED,
        body={"Another password": {"secret": "correct horse battery staple"}, "Switch it off": {"enabled": False}},
    ),
)
async def change_mailbox(
    request: Request[Any, Any, Any],
    mailbox_id: FromPath[UUID],
    data: JSONBody[MailboxChange],
    principal: NamedDependency[Principal],
) -> Mailbox:
    """Only what is sent is changed. After another host, user, folder or rules the whole folder is looked at again,
    and what the old rules left is taken; what was fetched is not fetched twice. For admins."""
    require_admin(principal)
    await spend(request, CHANGES, str(principal.id))
    return await blocking(_change, mailbox_id, data)


@delete(
    "/mailboxes/{mailbox_id:uuid}",
    tags=["recordings"],
    summary="Forget a mailbox",
    sync_to_thread=True,
    **documented(ADMINS, NO_MAILBOX),
)
def delete_mailbox(mailbox_id: FromPath[UUID], principal: NamedDependency[Principal]) -> None:
    """Its recordings stay; a job that is fetching from it ends. For admins."""
    require_admin(principal)
    with autocommit() as connection:
        mailboxes.delete(connection, mailbox_id)


@post(
    "/mailboxes/{mailbox_id:uuid}/check",
    tags=["recordings"],
    summary="Try a mailbox",
    status_code=200,
    **documented(
        ADMINS,
        NO_MAILBOX,
        LIMITED,
        UrlRefused(field="host", reason="its address is not a public one"),
        MailboxLoginRefused(reason="[AUTHENTICATIONFAILED] Authentication failed."),
        MailboxRefused(reason="Mailbox does not exist."),
        MailboxUnreachable(reason="timed out"),
        MailboxDisabled(),
    ),
)
async def check_mailbox(
    request: Request[Any, Any, Any], mailbox_id: FromPath[UUID], principal: NamedDependency[Principal]
) -> Check:
    """Connects, lists the folders, and shows what the rules would take among the newest messages. Nothing is taken or
    marked. A login that is refused disables the mailbox, and a failed job tells its owner; it is not tried again before
    host, user or secret are changed, or the mailbox is enabled. For admins."""
    require_admin(principal)
    await spend(request, CHANGES, str(principal.id))
    return await blocking(_check, mailbox_id)


@post(
    "/mailboxes/{mailbox_id:uuid}/enable",
    tags=["recordings"],
    summary="Switch a mailbox on again",
    status_code=200,
    sync_to_thread=True,
    **documented(ADMINS, NO_MAILBOX),
)
def enable_mailbox(mailbox_id: FromPath[UUID], principal: NamedDependency[Principal]) -> Mailbox:
    """After its login was refused: once the password is right again. For admins."""
    require_admin(principal)
    with transaction() as connection:
        return mailboxes.change(connection, mailbox_id, MailboxChange(enabled=True))


def _create(order: MailboxOrder, principal: Principal, once: Once) -> None:
    check(order.host, order.port, order.security)
    with transaction() as connection:
        mailbox = mailboxes.create(connection, order.owner_id or principal.id, order)
        headers = {"Location": f"/api/v1/mailboxes/{mailbox.id}"}
        once.record(connection, Response(mailbox, status_code=201, headers=headers))


def _change(mailbox_id: UUID, data: MailboxChange) -> Mailbox:
    if not all(one is UNSET for one in (data.host, data.port, data.security)):
        with autocommit() as connection:
            now = mailboxes.one(connection, mailbox_id)
        check(
            now.host if data.host is UNSET else data.host,
            now.port if data.port is UNSET else data.port,
            now.security if data.security is UNSET else data.security,
        )
    with transaction() as connection:
        return mailboxes.change(connection, mailbox_id, data)


def _check(mailbox_id: UUID) -> Check:
    with autocommit() as connection:
        access = mailboxes.access(connection, mailbox_id)
    if access is None:
        raise NotFound(what="mailbox")
    if (refused := access.refused) is not None:
        raise refused
    try:
        with connected(access) as session:
            session.open(readonly=True)
            folders = session.folders()
            uids = session.search(access.rules, days=access.rules.max_age_days)
            found = [one for look in session.described(uids[-LOOKED_AT:], access.rules) for one in look.found]
    except MailboxLoginRefused as error:
        with transaction() as connection:
            mailboxes.note_failure(connection, mailbox_id, error)
            mailboxes.disable(connection, mailbox_id, DisabledReason.LOGIN_REFUSED)
            ordered = polling.order_refused(connection, mailbox_id)
        if ordered is not None:
            set_going(ordered)
        raise
    except sealing.Unreadable:
        with autocommit() as connection:
            mailboxes.disable(connection, mailbox_id, DisabledReason.SECRET_UNREADABLE)
        raise MailboxDisabled from None
    candidates = [
        Candidate(
            uid=one.uid,
            subject=one.subject[:500],
            sender=one.sender[:500],
            received_at=one.received_at,
            attachments=[part.name for part in one.parts],
            size=one.size,
        )
        for one in sorted(found, key=lambda one: -one.uid)
    ]
    return Check(folders=folders, messages=session.messages, matching=len(uids), candidates=candidates)


routes = [
    create_mailbox,
    list_mailboxes,
    read_mailbox,
    change_mailbox,
    delete_mailbox,
    check_mailbox,
    enable_mailbox,
]
