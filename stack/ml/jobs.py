"""The jobs the service has accepted: a bounded queue, a few worker threads, and what is remembered of the outcome.

All of it is in memory. After a restart a job is ``unknown``, which tells the caller to ask again; doing the work twice
is harmless, for the result goes to the same object.
"""

import logging
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal
from uuid import UUID

from stack.ml.configuration import Settings
from stack.ml.endings import Cancelled, Stopped
from stack.ml.inference import Completion, Inference, InferenceRequest

log = logging.getLogger("stack.ml")

Status = Literal["accepted", "working", "succeeded", "failed", "cancelled"]


class Job:
    """``accepted`` when queued, ``working`` once a worker has it, then as its completion says (called back or not), or
    ``cancelled``."""

    def __init__(self, request: InferenceRequest) -> None:
        self.request = request
        self.completion: Completion | None = None
        self.taken = False
        self.cancelled = threading.Event()

    @property
    def status(self) -> Status:
        if self.completion:
            return self.completion.status
        if self.cancelled.is_set():
            return "cancelled"
        return "working" if self.taken else "accepted"


class QueueFull(Exception):
    """As many jobs wait as may."""


class KeyReused(Exception):
    """The idempotency key was sent before, for another job."""


class Jobs:
    """Safe to call from any thread; nothing here blocks but ``stop``."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._by_key: OrderedDict[str, Job] = OrderedDict()
        self._by_uuid: dict[UUID, Job] = {}
        self._waiting: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._inference: Inference | None = None

    @property
    def ready(self) -> bool:
        """Whether the model is loaded."""
        return self._inference is not None

    def start(self) -> None:
        """Loads the model and starts the workers, in the background."""
        self._begin("loading", self._load)

    def stop(self, seconds: float) -> None:
        """Tells the workers to leave what they do, and waits for them so long. Their jobs are not called back."""
        self._stopping.set()
        for _ in self._threads:
            self._waiting.put(None)
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(timeout=max(0.0, until - time.monotonic()))
        if self._inference:
            self._inference.close()

    def accept(self, key: str, request: InferenceRequest) -> Job:
        """Queues the work, unless the key has been seen: then the job it stands for, whatever has become of it.

        Presigned URLs are signed anew for each try, so of the body only the job's id has to be the same.

        Raises:
            KeyReused, QueueFull
        """
        with self._lock:
            if known := self._by_key.get(key):
                if known.request.job_uuid != request.job_uuid:
                    raise KeyReused
                return known
            if self._waiting.qsize() >= self._settings.ml_queue:
                raise QueueFull
            job = Job(request)
            self._by_key[key] = job
            self._by_uuid[request.job_uuid] = job  # a later attempt takes the place of an earlier one
            if len(self._by_key) > self._settings.ml_remembered:
                self._forget_oldest()
            self._waiting.put(job)
            return job

    def _forget_oldest(self) -> None:
        _, oldest = self._by_key.popitem(last=False)
        if self._by_uuid.get(oldest.request.job_uuid) is oldest:
            del self._by_uuid[oldest.request.job_uuid]

    def find(self, job_uuid: UUID) -> Job | None:
        """The newest attempt at the job, None when it is not known or no longer remembered."""
        return self._by_uuid.get(job_uuid)

    def cancel(self, job_uuid: UUID) -> bool:
        """Have the job dropped at its next step and never called back; False when it is not known.

        One that has ended stays as it ended; a call back that is on its way is not taken back.
        """
        job = self.find(job_uuid)
        if job is None:
            return False
        job.cancelled.set()
        return True

    def _begin(self, name: str, target: Callable[[], None]) -> None:
        # daemons: one stuck in a slow socket must not keep the process after SIGTERM
        thread = threading.Thread(target=target, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _load(self) -> None:
        began = time.monotonic()
        try:
            inference = Inference(self._settings, self._stopping)
        except Exception:
            log.exception("the model cannot be loaded; /health stays at 503")
            return
        if self._stopping.is_set():
            inference.close()
            return
        self._inference = inference
        log.info("model loaded in %.2f s", time.monotonic() - began)
        for number in range(1, self._settings.ml_workers + 1):
            self._begin(f"worker-{number}", lambda: self._work(inference))

    def _work(self, inference: Inference) -> None:
        while (job := self._waiting.get()) and not self._stopping.is_set():
            if job.cancelled.is_set():
                continue
            job.taken = True
            try:
                job.completion = inference.run(job.request, job.cancelled)
                inference.call_back(job.request, job.completion, job.cancelled)
            except Cancelled:
                log.info("job %s was cancelled", job.request.job_uuid)
            except Stopped:
                log.info("job %s left unfinished by the shutdown", job.request.job_uuid)
            except Exception:
                log.exception("job %s: the worker goes on without it", job.request.job_uuid)
