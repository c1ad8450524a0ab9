"""The tick `uploads.sweep`: makes files of whole uploads whose process died, drops uploads that have expired."""

import time
from uuid import UUID

import structlog

from domain.errors import MillraceError
from storage.database import autocommit
from storage.uploads import finishing, removal

RUN_SECONDS = 10.0  # after which no further upload is begun: a worker of the steps is held meanwhile
BATCH = 100

_log = structlog.get_logger()


def sweep() -> None:
    """Safe to run twice at once: each upload is claimed, each expired row deleted by one."""
    deadline = time.monotonic() + RUN_SECONDS
    with autocommit() as connection:
        removed = removal.expire(connection, BATCH)
        whole = finishing.stuck(connection, BATCH)
    removal.sweep_out(removed)
    if removed:
        _log.info("uploads_expired", number=len(removed))
    for upload_id in whole:
        if time.monotonic() > deadline:
            return
        _finish(upload_id)


def _finish(upload_id: UUID) -> None:
    held = finishing.take(upload_id)
    if held is None:
        return
    try:
        finishing.finish(held)
    except MillraceError as error:
        _log.warning("upload_not_finished", upload_id=str(upload_id), error=error.code)
    else:
        _log.info("upload_finished", upload_id=str(upload_id))


schedule = {"uploads.sweep": (sweep, "upload_sweep_seconds", "io")}
