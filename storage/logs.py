"""Logging of every process: one line per event, JSON or readable, with secrets taken out.

structlog renders its own events and those of every library that uses the standard logging, through the same processors,
so a request id bound by ``structlog.contextvars`` stands on both.
"""

import logging
import re
import sys
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from domain.settings import Settings

REDACTED = "[redacted]"

_secret_name = re.compile(r"password|passwd|secret|token|authorization|cookie|api_?key|access_?key|signature", re.I)
_in_text = (
    # postgresql://user:password@host, redis://:password@host
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s:/@]*):[^\s/@]+@", re.I), rf"\1:{REDACTED}@"),
    # libpq's key=value form
    (re.compile(r"(\bpassword\s*=\s*)('[^']*'|[^\s&'\"]+)", re.I), rf"\1{REDACTED}"),
    # the whole query string of a presigned URL: signature, credential and date together open the object
    (re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]*(?:X-Amz-|Signature=)[^\s'\"]*", re.I), rf"\1?{REDACTED}"),
    (re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{8,}", re.I), rf"\1 {REDACTED}"),
    # a JSON Web Token wherever it stands
    (re.compile(r"\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"), REDACTED),
    (re.compile(r"([?&](?:access_)?(?:token|api_?key|secret)=)[^\s&'\"]+", re.I), rf"\1{REDACTED}"),
)


def configure(settings: Settings) -> None:
    """Set up structlog and the standard logging of this process; safe to call again."""
    json = settings.log_format == "json"
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.StackInfoRenderer(),
    ]
    # Tracebacks become text before the redaction, so that a DSN in an exception's message is found there too.
    last: list[Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        redact,
        structlog.processors.JSONRenderer() if json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=last))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level.upper())
    # Libraries that bring handlers of their own speak through ours; the API writes its own access line per request.
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "celery", "litestar"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    # Celery's own line for each message says nothing the engine's does not, and beat's nothing at all.
    for name in ("celery.worker.strategy", "celery.app.trace", "celery.beat"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("uvicorn.access", "httpx", "httpcore", "botocore", "boto3", "urllib3", "s3transfer"):
        logging.getLogger(name).setLevel(logging.WARNING)


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """The processor that takes secrets out, by the name of a key and by what a text looks like."""
    return {key: _clean(key, value) for key, value in event.items()}


def _clean(key: str, value: Any) -> Any:
    if _secret_name.search(key) and isinstance(value, str | bytes):
        return REDACTED
    if isinstance(value, str):
        for pattern, replacement in _in_text:
            value = pattern.sub(replacement, value)
        return value
    if isinstance(value, dict):
        return {inner: _clean(str(inner), content) for inner, content in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(key, content) for content in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return _clean(key, str(value))
