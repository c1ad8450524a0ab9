"""The step `fetch`: each claimed message's audio into the storage, committed message by message.

An attachment is decoded into a temporary file, piece by piece: its digest is known before anything is uploaded, so the
same audio is never stored twice, and a connection that breaks off leaves nothing behind. Of a message all recordings
and its state are committed together; whatever dies before that, the message is fetched again, whatever dies after it,
only the after-action is left, and is made up for at the next visit.

A connection that breaks off is no fault of a message. One that was being read alone is put off to a later job, so that
it holds up nobody; of several together each comes alone the next time, and nothing is counted.
"""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from uuid import UUID

from domain.errors.recordings import MailboxLoginRefused, MailboxRefused, MailboxUnreachable
from domain.pipelines import Context, Done, Failed, JobInStep, Later, Outcome
from domain.recordings.mail import Part
from domain.recordings.mailboxes import Skipped
from storage.configuration import settings
from storage.database import autocommit
from storage.failpoints import reached
from storage.recordings import messages
from storage.recordings.imap import Gone, Session
from storage.recordings.mailboxes import Access
from storage.recordings.messages import Claimed, Place
from workers.recordings.parts import read
from workers.recordings.poll import mailbox, note_failure, visit
from workers.recordings.storing import Storing

BATCH = 20  # messages between two rounds of after-actions
RUN_SECONDS = 200.0  # then the step puts itself off and goes on: below STEP_SECONDS and Celery's hard limit
TOGETHER = 2 * 1024**2  # bytes, encoded: so much of small attachments is asked for in one command


def fetch(job: JobInStep, context: Context) -> Outcome:
    """Raises MailboxDisabled, MailboxRefused, MailboxUnreachable, StorageUnavailable."""
    try:
        access = mailbox(UUID(job.params["mailbox_id"]))
    except MailboxLoginRefused as error:
        return Failed(error=error)
    with autocommit() as connection:
        counts = messages.counts(connection, access.id, job.id)
    if not counts.waiting and access.after_action == "none":
        return Done(message=str(counts))
    deadline = time.monotonic() + min(RUN_SECONDS, settings().step_seconds * 0.7)
    try:
        with visit(access) as session:
            session.open(readonly=access.after_action == "none")
            place = Place(access.id, access.source, access.folder, session.uidvalidity)
            whole = _all(session, access, place, job, context, deadline)
    except MailboxLoginRefused as error:
        return Failed(error=error)
    with autocommit() as connection:
        message = str(messages.counts(connection, access.id, job.id))
    return Done(message=message) if whole else Later(seconds=0.1, message=message)


def _all(session: Session, access: Access, place: Place, job: JobInStep, context: Context, deadline: float) -> bool:
    """Whether everything was done before the deadline."""
    at = 0
    _act(session, access, place)  # what an earlier visit has left
    while True:
        with autocommit() as connection:
            some = messages.to_fetch(connection, place, at, BATCH)
            counts = messages.counts(connection, access.id, job.id)
        if not some:
            return True
        done = counts.done
        with Storing(access, job, context) as storing:
            for group in _together(some):
                context.progress(done, max(counts.total, 1), f"{done} of {counts.total} messages")
                if time.monotonic() > deadline:
                    break
                _read(session, group, context, storing)
                done += len(group)
        _act(session, access, place)
        if time.monotonic() > deadline:
            return False
        at = some[-1].uid


def _together(some: Sequence[Claimed]) -> Iterator[list[Claimed]]:
    """Messages whose only attachments are small and stand at the same place, as many as may come in one answer.

    One that broke off a visit before comes alone: so it is known which one it is.
    """
    group: list[Claimed] = []
    octets = 0
    for one in some:
        part = one.parts[0]
        alone = len(one.parts) > 1 or one.alone or not 0 < part.octets <= TOGETHER
        octets += part.octets
        if group and (alone or octets > TOGETHER or part.number != group[0].parts[0].number):
            yield group
            group, octets = [], part.octets
        group.append(one)
        if alone:
            yield group
            group, octets = [], 0
    if group:
        yield group


def _read(session: Session, group: Sequence[Claimed], context: Context, storing: Storing) -> None:
    """Read some messages to their ends. What is wrong with one of them is recorded, and is no reason to stop."""
    try:
        answers = session.parts([one.uid for one in group], group[0].parts[0].number) if len(group) > 1 else None
    except MailboxRefused:
        # over one of them, perhaps: each by itself
        for one in group:
            _read(session, [one], context, storing)
        return
    except MailboxUnreachable:
        with autocommit() as connection:
            messages.read_alone(connection, [one.id for one in group])
        raise
    if answers is not None:
        for one in group:
            storing.take(one, partial(read, one, partial(_answered, answers.pop(one.uid, None)), context))
        return
    (claimed,) = group
    try:
        letter = read(claimed, partial(_pieces, session, claimed.uid), context)
    except MailboxRefused:
        _note_failure(claimed)
        return
    except MailboxUnreachable:
        _note_failure(claimed)
        raise
    storing.take(claimed, lambda: letter)


def _pieces(session: Session, uid: int, part: Part) -> Iterator[bytes]:
    return session.pieces(uid, part.number, part.octets)


def _answered(encoded: bytes | None, _: Part) -> list[bytes]:
    if encoded is None:
        raise Gone
    return [encoded]


def _note_failure(claimed: Claimed) -> None:
    """For the moment, or at this one each time: later jobs try it again, not for ever."""
    with autocommit() as connection:
        messages.note_failure(connection, claimed.id, Skipped.UNREADABLE)


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
