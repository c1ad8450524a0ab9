"""The file that came with a job goes with it; the one that other jobs work on as well goes with the last of them."""

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import Connection, text

from storage import files

_pass_on = text("UPDATE jobs SET owns_input = TRUE WHERE input_file_id = ANY(:ids) AND NOT owns_input")


def let_go(connection: Connection, file_ids: Iterable[UUID]) -> list[str]:
    """Of files whose jobs are deleted: the keys of objects that nothing names any more, to be deleted after the commit.

    Needs the transaction in which the jobs went.
    """
    owned = sorted(set(file_ids))
    removed = files.remove(connection, owned, unused=True)
    if removed.number < len(owned):
        connection.execute(_pass_on, {"ids": owned})
    return removed.keys
