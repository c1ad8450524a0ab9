"""Alembic's entry: the whole house's tables, whatever modules are switched on, so that every database is the same."""

from alembic import context

from domain.modules import floor, known
from storage.database import engine, metadata

floor("storage", known())
import storage.circuits  # noqa: E402
import storage.housekeeping  # noqa: E402
import storage.idempotency  # noqa: E402
import storage.jobs.tables  # noqa: E402
import storage.reconciliation  # noqa: E402
import storage.ticks  # noqa: E402, F401


def run() -> None:
    connectable = context.config.attributes.get("connection")
    if connectable is None:
        with engine().connect() as connection:
            _migrate(connection)
    else:
        _migrate(connectable)


def _migrate(connection: object) -> None:
    context.configure(connection=connection, target_metadata=metadata, compare_server_default=True)  # type: ignore[arg-type]
    with context.begin_transaction():
        context.run_migrations()


run()
