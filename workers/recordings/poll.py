"""The step `poll`: which messages are new, and claiming them. Nothing of them is fetched but their descriptions."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from uuid import UUID

import structlog
from sqlalchemy import Connection

from domain.errors import MillraceError
from domain.errors.jobs import StepFailed
from domain.errors.recordings import (
    MailboxDisabled,
    MailboxInsecure,
    MailboxLoginRefused,
    MailboxRefused,
    MailboxUnreachable,
)
from domain.errors.webhooks import UrlRefused
from domain.pipelines import Context, Done, Failed, JobInStep, Later, Outcome
from domain.recordings.mailboxes import DisabledReason
from storage.configuration import settings
from storage.database import autocommit, transaction
from storage.recordings import claiming, mailboxes, polling, sealing
from storage.recordings.claiming import Seen
from storage.recordings.imap import Described, Session, connected
from storage.recordings.mailboxes import Access
from storage.recordings.messages import Place

BUSY_SECONDS = 3.0  # until another look whether the mailbox's other job has ended
_OURS = (MailboxUnreachable, MailboxRefused, MailboxLoginRefused, MailboxInsecure, UrlRefused)

_log = structlog.get_logger()


def poll(job: JobInStep, context: Context) -> Outcome:
    """Search by date and sender, look at structure and size, and claim what the rules take.

    Raises:
        MailboxDisabled, MailboxRefused, MailboxUnreachable
    """
    mailbox_id = UUID(job.params["mailbox_id"])
    try:
        access = mailbox(mailbox_id)
    except MailboxLoginRefused as error:
        return Failed(error=error)
    with autocommit() as connection:
        if not polling.become(connection, mailbox_id, job.id):
            return Later(seconds=BUSY_SECONDS, message="another job fetches from this mailbox")
    try:
        with visit(access) as session:
            session.open(readonly=True)
            return _look(session, access, job, context)
    except MailboxLoginRefused as error:
        return Failed(error=error)


def _look(session: Session, access: Access, job: JobInStep, context: Context) -> Outcome:
    place = Place(access.id, access.source, access.folder, session.uidvalidity)
    asked, pattern = job.params.get("days_back"), access.rules.attachment
    with autocommit() as connection:
        again = asked is not None or polling.is_rerun(connection, job.id)
        late = claiming.undescribed(connection, place, again=again)
    # what a look of the schedule has seen it need not see again; who asks by hand means all of it
    above = access.last_uid if not again and access.uidvalidity == session.uidvalidity else 0
    uids = session.search(access.rules, days=asked or access.rules.max_age_days, above=above)
    last = max(uids, default=above)
    with autocommit() as connection:
        known = claiming.known(connection, place, uids, pattern, again=again)
    wanted = sorted(late.union(uids) - known)
    looks: list[Described] = []
    for look in session.described(wanted, access.rules):
        looks.append(look)
        found, looked = sum(len(one.found) for one in looks), sum(len(one.looked) for one in looks)
        context.progress(looked, max(len(wanted), 1), f"{found} of {len(wanted)} messages")
    seen = Seen(*([one for look in looks for one in getattr(look, name)] for name in Seen._fields))
    if len(seen.looked) < len(wanted):
        last = max((above, *seen.looked))  # the next look goes on from there
    largest = settings().recording_max_bytes

    def keep(connection: Connection) -> None:
        if mailboxes.note_look(connection, access, session.uidvalidity, last):
            claiming.claim(connection, place, job.id, seen, pattern=pattern, largest=largest, again=again)

    return Done(message=f"{len(seen.found)} messages with audio", effects=(keep,))


def mailbox(mailbox_id: UUID) -> Access:
    """Raises MailboxDisabled, MailboxLoginRefused: it is disabled for that, and the login is not tried again."""
    with autocommit() as connection:
        access = mailboxes.access(connection, mailbox_id)
    if access is not None and (refused := access.refused) is not None:
        raise refused
    if access is None or not access.enabled:
        raise MailboxDisabled
    return access


@contextmanager
def visit(access: Access) -> Iterator[Session]:
    """A session in the mailbox; how it went is noted there, and a refused login disables it: one attempt, no storm.

    Raises:
        MailboxUnreachable, MailboxRefused
        MailboxLoginRefused, MailboxDisabled: it is disabled now.
    """
    try:
        with connected(access) as session:
            yield session
    except sealing.Unreadable:
        _log.exception("mailbox_secret_unreadable", hint="MAILBOX_ENCRYPTION_KEYS or JWT_SECRET has changed")
        _note(access.id, MailboxDisabled(), DisabledReason.SECRET_UNREADABLE)
        raise MailboxDisabled from None
    except _OURS as error:
        reason = DisabledReason.LOGIN_REFUSED if isinstance(error, MailboxLoginRefused) else None
        _note(access.id, error, reason)
        if not isinstance(error, StepFailed):  # what was allowed when the mailbox was made is not any more
            raise MailboxRefused(reason=str(error)) from error
        raise


def _note(mailbox_id: UUID, error: MillraceError, disable: DisabledReason | None) -> None:
    _log.warning("mailbox_failed", mailbox_id=str(mailbox_id), code=error.code, error=str(error))
    with transaction() as connection:
        mailboxes.note_failure(connection, mailbox_id, error)
        if disable is not None:
            mailboxes.disable(connection, mailbox_id, disable)


note_failure = partial(_note, disable=None)
