"""The step `fetch`: each claimed message's audio into the storage, committed message by message.

An attachment is decoded into a temporary file, piece by piece: its digest is known before anything is uploaded, so the
same audio is never stored twice, and a connection that breaks off leaves nothing behind. Of a message all recordings
and its state are committed together; whatever dies before that, the message is fetched again, whatever dies after it,
only the after-action is left, and is made up for at the next visit.
"""

import time
from uuid import UUID

import structlog

from domain.errors import MailboxLoginRefused, MailboxRefused, MailboxUnreachable
from domain.pipelines import Context, Done, Failed, JobInStep, Later, Outcome
from domain.recordings.mailboxes import Skipped
from storage.configuration import settings
from storage.database import autocommit
from storage.failpoints import reached
from storage.recordings import messages
from storage.recordings.imap import Gone, Session
from storage.recordings.mailboxes import Access
from storage.recordings.messages import Claimed, Place
from workers.recordings.parts import Empty, Spooled, TooLarge, read_part
from workers.recordings.poll import mailbox, note_failure, visit
from workers.recordings.storing import Storing

BATCH = 20  # messages between two rounds of after-actions
RUN_SECONDS = 200.0  # then the step puts itself off and goes on: below STEP_SECONDS and Celery's hard limit

_log = structlog.get_logger()


def fetch(job: JobInStep, context: Context) -> Outcome:
    """Raises MailboxDisabled, MailboxRefused, MailboxUnreachable, StorageUnavailable."""
    access = mailbox(UUID(job.params["mailbox_id"]))
    with autocommit() as connection:
        done, total = messages.counts(connection, access.id, job.id)
    if total == done and access.after_action == "none":
        return Done(message="nothing new")
    deadline = time.monotonic() + min(RUN_SECONDS, settings().step_seconds * 0.7)
    try:
        with visit(access) as session:
            session.open(readonly=access.after_action == "none")
            place = Place(access.id, access.folder, session.uidvalidity)
            whole = _all(session, access, place, job, context, deadline)
    except MailboxLoginRefused as error:
        return Failed(error=error)
    with autocommit() as connection:
        done, total = messages.counts(connection, access.id, job.id)
    message = f"{done} of {total} messages"
    return Done(message=message) if whole else Later(seconds=0.1, message=message)


def _all(session: Session, access: Access, place: Place, job: JobInStep, context: Context, deadline: float) -> bool:
    """Whether everything was done before the deadline."""
    at = 0
    _act(session, access, place)  # what an earlier visit has left
    while True:
        with autocommit() as connection:
            some = messages.to_fetch(connection, place, at, BATCH)
            done, total = messages.counts(connection, access.id, job.id)
        if not some:
            return True
        with Storing(access, job, context) as storing:
            for number, claimed in enumerate(some):
                context.progress(done + number, max(total, 1), f"{done + number} of {total} messages")
                if time.monotonic() > deadline:
                    break
                _read(session, claimed, context, storing)
        _act(session, access, place)
        if time.monotonic() > deadline:
            return False
        at = some[-1].uid


def _read(session: Session, claimed: Claimed, context: Context, storing: Storing) -> None:
    """Read one message to its end. What is wrong with it is recorded, and is no reason to stop."""
    spooled: list[Spooled] = []
    reason: Skipped | None = None
    try:
        for part in claimed.parts:
            spooled.append(read_part(session, claimed, part, context))  # noqa: PERF401  # each as it is there
    except Gone:
        reason = Skipped.GONE
    except TooLarge:
        reason = Skipped.TOO_LARGE
    except Empty:
        reason = Skipped.EMPTY
    except ValueError as error:
        _log.warning("message_unreadable", uid=claimed.uid, error=str(error))
        reason = Skipped.UNREADABLE
    except (MailboxUnreachable, MailboxRefused) as error:
        # for the moment, or at this very message each time: it is tried again by the next jobs, not for ever
        with autocommit() as connection:
            messages.note_failure(connection, claimed.id, Skipped.UNREADABLE)
        if isinstance(error, MailboxRefused):
            return
        raise
    storing.take(claimed, spooled, reason)


def _act(session: Session, access: Access, place: Place) -> None:
    if access.after_action == "none":
        return
    with autocommit() as connection:
        done = messages.to_act(connection, place, 1000)
    if not done:
        return
    try:
        session.act([uid for _, uid in done])
    except MailboxRefused as error:
        # the recordings are kept; what is done with the mail is no reason to lose the rest of them
        note_failure(access.id, error)
        return
    reached("mail.acted")
    with autocommit() as connection:
        messages.acted(connection, [message_id for message_id, _ in done])
