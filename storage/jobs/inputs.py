"""The file that came with a job goes with it; the one that other jobs work on as well goes with the last of them."""

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import Connection, text

# In order of id, so that two of us never wait for each other. From here on no job can be made of these files; the next
# statements see those that were.
_lock = text("SELECT FROM files WHERE id = ANY(:ids) ORDER BY id FOR UPDATE")
_remove = text("""
    DELETE FROM files WHERE id = ANY(:ids) AND NOT EXISTS (SELECT FROM jobs WHERE input_file_id = files.id)
    RETURNING object_key""")
_pass_on = text("UPDATE jobs SET owns_input = TRUE WHERE input_file_id = ANY(:ids) AND NOT owns_input")


def let_go(connection: Connection, file_ids: Iterable[UUID]) -> list[str]:
    """Of files whose jobs are deleted: the keys of their objects, to be deleted after the commit.

    Needs the transaction in which the jobs went.
    """
    owned = {"ids": sorted(set(file_ids))}
    if not owned["ids"]:
        return []
    connection.execute(_lock, owned)
    keys = list(connection.execute(_remove, owned).scalars())
    if len(keys) < len(owned["ids"]):
        connection.execute(_pass_on, owned)
    return keys
