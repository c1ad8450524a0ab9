"""Objects that nobody needs any more: deleted now if the store answers at once, or else with the leftovers.

What is done is done, and whoever waits for its answer does not wait for a store that hangs as well. Nothing is lost by
not deleting: no row names these objects, and the reconciliation finds what no row names.
"""

from collections.abc import Sequence

import structlog

from domain.errors import MillraceError
from storage import objects

_log = structlog.get_logger()


def discard(keys: Sequence[str], *, below: str | None = None) -> bool:
    """Delete these objects, and those whose keys begin with ``below``; False when the store does not answer within two
    seconds. Never raises."""
    try:
        with objects.hurry():
            listed = objects.below(below) if below else []
            objects.delete([*keys, *listed])
    except Exception as error:  # whatever it is: it must not hide what the clean-up is for
        _log.warning("objects_left_over", keys=list(keys), below=below, error=_said(error))
        return False
    return True


def discard_multipart(key: str, upload_id: str, also: Sequence[str] = ()) -> bool:
    """The same for a multipart upload with its parts, and these objects."""
    try:
        with objects.hurry():
            objects.abort_multipart(key, upload_id)
            objects.delete(also)
    except Exception as error:
        _log.warning("objects_left_over", keys=[key, *also], upload_id=upload_id, error=_said(error))
        return False
    return True


def _said(error: Exception) -> str:
    return error.code if isinstance(error, MillraceError) else repr(error)
