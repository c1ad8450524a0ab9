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
from domain.recordings.mailboxes import MessageState, Skipped
from storage import objects
from storage.configuration import settings
from storage.database import autocommit, transaction
from storage.failpoints import reached
from storage.recordings import keeping, messages
from storage.recordings.imap import Gone, Session
from storage.recordings.mailboxes import Access
from storage.recordings.messages import Claimed, Place
from workers.recordings.parts import Empty, Kept, TooLarge, keep_part
from workers.recordings.poll import mailbox, note_failure, visit

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
        for number, claimed in enumerate(some):
            context.progress(done + number, max(total, 1), f"{done + number} of {total} messages")
            if time.monotonic() > deadline:
                _act(session, access, place)
                return False
            _one(session, access, claimed, job, context)
        at = some[-1].uid
        _act(session, access, place)


def _one(session: Session, access: Access, claimed: Claimed, job: JobInStep, context: Context) -> None:
    """Fetch one message to its end. What is wrong with it is recorded, and is no reason to stop."""
    kept: list[Kept] = []
    reason: Skipped | None = None
    try:
        for part in claimed.parts:
            kept.append(keep_part(session, access, claimed, part, job.id, context))  # noqa: PERF401  # each as it is kept
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
        _drop(kept)
        if isinstance(error, MailboxRefused):
            return
        raise
    except BaseException:
        _drop(kept)
        raise
    reached("mail.stored", job.id)
    _commit(claimed, kept, reason)
    reached("mail.committed", job.id)


def _commit(claimed: Claimed, kept: list[Kept], reason: Skipped | None) -> None:
    named: set[str] = set()
    with transaction() as connection:
        if messages.hold(connection, claimed.id):  # else another process has done it meanwhile
            named = {one.new.object_key for one in kept if one.new is not None and keeping.insert(connection, one.new)}
            messages.finish(connection, claimed.id, *_ended(kept, named, reason))
    _drop([one for one in kept if one.new is not None and one.new.object_key not in named])


def _ended(kept: list[Kept], named: set[str], reason: Skipped | None) -> tuple[MessageState, Skipped | None]:
    if named:
        return MessageState.STORED, reason
    if reason is Skipped.UNREADABLE:
        return MessageState.FAILED, reason
    if reason is not None:
        return MessageState.SKIPPED, reason
    return MessageState.DUPLICATE, Skipped.SAME_AUDIO


def _drop(kept: list[Kept]) -> None:
    """Objects that nothing names; what cannot be deleted now, the reconciliation finds."""
    keys = [one.new.object_key for one in kept if one.new is not None]
    try:
        objects.delete(keys)
    except Exception as error:
        _log.warning("objects_left_to_reconciliation", number=len(keys), error=str(error))


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
