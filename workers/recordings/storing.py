"""What was read of messages into the storage and the database, beside the reading of the next ones.

The mail server is waited for by one thread; a few others decode what is short, and wait for the object storage and the
database. Each message is committed by itself, so their order does not matter.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import BoundedSemaphore
from types import TracebackType

from domain.pipelines import Context, JobInStep
from storage import discarding
from storage.database import autocommit
from storage.failpoints import reached
from storage.recordings import keeping
from storage.recordings.keeping import NewRecording
from storage.recordings.mailboxes import Access
from storage.recordings.messages import Claimed
from workers.recordings.parts import Letter, keep_part

THREADS = 4  # and so many messages beyond them at most on this machine


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

    def take(self, claimed: Claimed, read: Callable[[], Letter]) -> None:
        """Have what ``read`` gives stored and committed; waits while too much is under way.

        Raises what went wrong with those before.
        """
        self._raise_failed()
        self._room.acquire()
        self._begun.append(self._pool.submit(self._keep, claimed, read))

    def _raise_failed(self) -> None:
        left = [one for one in self._begun if not one.done()]
        for one in self._begun:
            if one.done():
                one.result()
        self._begun = left

    def _keep(self, claimed: Claimed, read: Callable[[], Letter]) -> None:
        new: list[NewRecording] = []
        letter = Letter([], None)
        try:
            letter = read()
            for one in letter.spooled:
                if (made := keep_part(self._access, claimed, one, self._job.id, self._context)) is not None:
                    new.append(made)  # noqa: PERF401  # each as it is there
            reached("mail.stored", self._job.id)
            with autocommit() as connection:
                unnamed = keeping.keep(connection, claimed.id, new, letter.reason)
            reached("mail.committed", self._job.id)
        except BaseException:
            _drop(new)
            raise
        finally:
            for one in letter.spooled:
                one.file.close()
            self._room.release()
        _drop(unnamed)


def _drop(new: Sequence[NewRecording]) -> None:
    """Objects that nothing names."""
    if new:
        discarding.discard([one.object_key for one in new])
