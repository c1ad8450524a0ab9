"""What was read of messages into the storage and the database, beside the reading of the next ones.

The mail server is waited for by one thread, the object storage and the database by a few others. Each message is
committed by itself, so their order does not matter.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import BoundedSemaphore
from types import TracebackType

import structlog

from domain.pipelines import Context, JobInStep
from domain.recordings.mailboxes import MessageState, Skipped
from storage import objects
from storage.database import transaction
from storage.failpoints import reached
from storage.recordings import keeping, messages
from storage.recordings.keeping import NewRecording
from storage.recordings.mailboxes import Access
from storage.recordings.messages import Claimed
from workers.recordings.parts import Spooled, keep_part

THREADS = 4  # and so many messages beyond them at most on this machine

_log = structlog.get_logger()


class Storing:
    """For the length of a block, at whose end everything that was taken is committed, or raises why not."""

    def __init__(self, access: Access, job: JobInStep, context: Context) -> None:
        self._access, self._job, self._context = access, job, context
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="storing")
        self._room = BoundedSemaphore(2 * THREADS)
        self._begun: list[Future[None]] = []

    def __enter__(self) -> "Storing":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._pool.shutdown(wait=True)
        if error is None:
            self._raise_failed()

    def take(self, claimed: Claimed, spooled: Sequence[Spooled], reason: Skipped | None) -> None:
        """Have it stored and committed; waits while too much is under way. Raises what went wrong with those before."""
        self._raise_failed()
        self._room.acquire()
        self._begun.append(self._pool.submit(self._keep, claimed, spooled, reason))

    def _raise_failed(self) -> None:
        left = [one for one in self._begun if not one.done()]
        for one in self._begun:
            if one.done():
                one.result()
        self._begun = left

    def _keep(self, claimed: Claimed, spooled: Sequence[Spooled], reason: Skipped | None) -> None:
        new: list[NewRecording] = []
        try:
            for one in spooled:
                if (made := keep_part(self._access, claimed, one, self._job.id, self._context)) is not None:
                    new.append(made)  # noqa: PERF401  # each as it is there
            reached("mail.stored", self._job.id)
            unnamed = _commit(claimed, new, reason)
            reached("mail.committed", self._job.id)
        except BaseException:
            _drop(new)
            raise
        finally:
            for one in spooled:
                one.file.close()
            self._room.release()
        _drop(unnamed)


def _commit(claimed: Claimed, new: list[NewRecording], reason: Skipped | None) -> list[NewRecording]:
    """Those of the new ones that the owner has by now, from another message or another process."""
    with transaction() as connection:
        if not messages.hold(connection, claimed.id):
            return new
        named = [one for one in new if keeping.insert(connection, one)]
        messages.finish(connection, claimed.id, *_ended(bool(named), reason))
    return [one for one in new if one not in named]


def _ended(stored: bool, reason: Skipped | None) -> tuple[MessageState, Skipped | None]:
    if stored:
        return MessageState.STORED, reason
    if reason is Skipped.UNREADABLE:
        return MessageState.FAILED, reason
    if reason is not None:
        return MessageState.SKIPPED, reason
    return MessageState.DUPLICATE, Skipped.SAME_AUDIO


def _drop(new: Sequence[NewRecording]) -> None:
    """Objects that nothing names; what cannot be deleted now, the reconciliation finds."""
    try:
        objects.delete([one.object_key for one in new])
    except Exception as error:
        _log.warning("objects_left_to_reconciliation", number=len(new), error=str(error))
