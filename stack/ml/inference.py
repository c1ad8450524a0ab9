"""One job from its input to its completion: download, analyse, upload, call back."""

import email.message
import logging
import re
import tempfile
import threading
import time
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal
from urllib.parse import unquote
from uuid import UUID

import httpx
import msgspec

from stack.ml.analysis import Analyst, printable
from stack.ml.configuration import Settings
from stack.ml.endings import Cancelled, CannotInfer, Deadline, Stopped
from stack.ml.exchange import Exchange, progress_url
from stack.ml.progress import Progress
from stack.ml.spreadsheet import workbook

log = logging.getLogger("stack.ml")

_IN_MEMORY = 16 * 1024**2  # bytes of input before it goes to a temporary file
_RESULT_NAME = "results.xlsx"
# the email package reads both forms of the parameter, but prefers the plain one when both are there
_EXTENDED_NAME = re.compile(r"filename\*\s*=\s*UTF-8'[^']*'([^;\s]+)", re.IGNORECASE)

Url = Annotated[str, msgspec.Meta(pattern="^https?://[^/]", max_length=8192)]
ObjectName = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]


class InferenceRequest(msgspec.Struct, frozen=True):
    """The body of POST /infer. The objects' names are only echoed and read for a file name: this service shares no
    bucket and uses the presigned URLs."""

    job_uuid: UUID
    input_object: ObjectName
    output_object: ObjectName
    profile: str
    threshold: Annotated[float, msgspec.Meta(ge=0, le=1)]
    input_url: Url
    output_url: Url
    callback_url: Url


class Completion(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of the callback. A success names the result, a failure says why; ``file_size`` is in bytes."""

    status: Literal["succeeded", "failed"]
    output_object: str | None = None
    file_size: int | None = None
    file_name: str | None = None
    error: str | None = None

    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = msgspec.to_builtins(self)
        return body


class Inference:
    """Does the work of one request in the calling thread. Needs the model in memory, so making one takes 0.2 s."""

    def __init__(self, settings: Settings, stopping: threading.Event) -> None:
        self._settings = settings
        self._stopping = stopping
        self._analyst = Analyst(settings)
        self._exchange = Exchange(settings.ml_service_token, stopping)

    def close(self) -> None:
        self._exchange.close()

    def run(self, request: InferenceRequest, cancelled: threading.Event) -> Completion:
        """Everything but the callback; whatever goes wrong is told in the completion.

        Raises:
            Stopped: the service is shutting down.
            Cancelled: ``cancelled`` was set, before the result was stored.
        """
        began = time.monotonic()
        try:
            with Progress(self._exchange, progress_url(request.callback_url)) as progress:
                result, files = self._result(request, progress, cancelled)
                self._exchange.upload(request.output_url, result)
        except CannotInfer as error:
            log.warning("job %s failed: %s", request.job_uuid, error)
            return Completion(status="failed", error=str(error))
        except (Stopped, Cancelled):
            raise
        except Exception as error:
            # a bug or a full disk must end as an answer too: the caller would wait until its deadline
            log.exception("job %s broke", request.job_uuid)
            return Completion(status="failed", error=f"the analysis broke unexpectedly ({type(error).__name__})")
        log.info("job %s: %d files in %.2f s", request.job_uuid, files, time.monotonic() - began)
        return Completion(
            status="succeeded", output_object=request.output_object, file_size=len(result), file_name=_RESULT_NAME
        )

    def _result(self, request: InferenceRequest, progress: Progress, cancelled: threading.Event) -> tuple[bytes, int]:
        deadline = Deadline(self._settings.ml_job_seconds, cancelled)

        def watch(done: int, total: int) -> None:
            if self._stopping.is_set():
                raise Stopped
            deadline.check()
            progress.tell(100 * done // total if total else 100, f"{done} of {total} files")

        progress.tell(0, "downloading")
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as file:
            headers = self._exchange.download(request.input_url, file, self._settings.ml_max_input, deadline)
            name = _file_name(headers) or PurePosixPath(request.input_object).name
            rows = self._analyst.analyse(file, printable(name), request.threshold, watch)
        return workbook(rows), len(rows)

    def call_back(self, request: InferenceRequest, completion: Completion, cancelled: threading.Event) -> None:
        """Delivers the completion; when it cannot, the outcome waits for whoever asks with GET /jobs/{job_uuid}.

        Raises:
            Stopped: the service is shutting down.
            Cancelled: ``cancelled`` was set; nobody waits for it.
        """
        if cancelled.is_set():
            raise Cancelled
        try:
            status = self._exchange.complete(request.callback_url, completion.body())
        except CannotInfer as error:
            log.warning("job %s: %s", request.job_uuid, error)
            return
        level = logging.INFO if httpx.codes.is_success(status) else logging.WARNING
        log.log(level, "job %s: completion %s answered %d", request.job_uuid, completion.status, status)


def _file_name(headers: httpx.Headers) -> str:
    """The name in a Content-Disposition (RFC 6266, so ``filename*`` first), '' without one.

    Keys of objects carry no user text; a single file's own name can only come this way.
    """
    header = headers.get("Content-Disposition", "")
    if extended := _EXTENDED_NAME.search(header):
        return PurePosixPath(unquote(extended[1], errors="replace")).name
    message = email.message.Message()
    message["Content-Disposition"] = header
    return PurePosixPath(message.get_filename("")).name
