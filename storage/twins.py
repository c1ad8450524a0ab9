"""Equal bytes of one owner are one object (DEDUPLICATE_FILES), whichever way they came.

The object of a new file is there before anybody knows its digest. So a twin is looked for once it is whole, the row
names the twin's object, and the new one goes. It is an economy: nothing is refused for want of it.
"""

from uuid import UUID

import msgspec
import structlog

from domain.errors import MillraceError
from domain.files import StoredObject
from storage import discarding, files, objects, reconciliation
from storage.configuration import settings
from storage.database import autocommit

_log = structlog.get_logger()


def found(owner_id: UUID, stored: StoredObject) -> StoredObject:
    """The same, knowing an object of the owner's with the same bytes that is still there, if there is one."""
    if not settings().deduplicate_files:
        return stored
    try:
        twin = files.twin(owner_id, stored)
        if twin is not None and objects.size_of(twin) == stored.size:
            return msgspec.structs.replace(stored, twin=twin)
    except MillraceError:
        _log.warning("twin_not_found", key=stored.key)
    return stored


def drop_unless_named(stored: StoredObject) -> None:
    """Delete the object if its row names the twin instead; nothing can name it any more then."""
    if stored.twin is None:
        return
    try:
        with autocommit() as connection:
            unnamed = reconciliation.unnamed(connection, [stored.key])
    except MillraceError:
        _log.warning("object_without_row_stays", key=stored.key)
    else:
        discarding.discard(unnamed)
