"""``python -m migrations``: bring the database to the newest revision and make what must exist before the start.

Safe to run from several machines at once: an advisory lock lets one work while the others wait.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import text

from storage import accounts, logs, objects
from storage.configuration import settings
from storage.database import engine

LOCK = 7_304_021_990  # any number, as long as it is always this one


def configuration() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("version_path_separator", "os")
    return config


def upgrade(revision: str = "head") -> None:
    """Upgrade the configured database. Raises DatabaseUnavailable when it cannot be reached."""
    config = configuration()
    with engine().connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": LOCK})
        connection.commit()
        try:
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
        finally:
            connection.rollback()
            connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": LOCK})
            connection.commit()


def main() -> None:
    config = settings()
    logs.configure(config)
    upgrade()
    objects.ensure_bucket()
    if config.admin_username and config.admin_password:
        accounts.ensure_admin(config.admin_username, config.admin_password)


if __name__ == "__main__":
    main()
