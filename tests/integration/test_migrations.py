"""The migrations: there and back, equal to the tables in the code, and safe to run twice at once."""

import os
import subprocess
import sys
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from domain.modules import floor, known
from migrations.__main__ import configuration, upgrade
from stack.up import ROOT, Stack
from storage.database import autocommit, engine, metadata
from tests.client import WITH_ADMIN

# what somebody without our code finds in the database: relations, types, functions, triggers
_THINGS = text("""
    SELECT 'relation', relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
    UNION ALL SELECT 'type', typname::text FROM pg_type
        WHERE typnamespace = 'public'::regnamespace AND typtype = 'e'
    UNION ALL SELECT 'function', proname::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL SELECT 'trigger', tgname::text FROM pg_trigger WHERE NOT tgisinternal""")


def things() -> set[tuple[str, str]]:
    with autocommit() as connection:
        return {(kind, name) for kind, name in connection.execute(_THINGS)}


@pytest.fixture
def empty(in_process: Stack) -> None:
    with autocommit() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))


def downgrade(revision: str = "base") -> None:
    config = configuration()
    with engine().connect() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, revision)
        connection.commit()


def test_up_down_and_up_again_leaves_what_up_alone_leaves(empty: None) -> None:
    assert things() == set()
    upgrade()
    made = things()
    assert {("relation", "jobs"), ("type", "job_status"), ("function", "jobs_keep_rules")} <= made
    downgrade()
    assert things() == {("relation", "alembic_version"), ("relation", "alembic_version_pkc")}
    upgrade()
    assert things() == made


def test_an_upgrade_of_a_new_database_changes_nothing(empty: None) -> None:
    upgrade()
    made = things()
    upgrade()
    assert things() == made


def test_the_tables_of_the_code_are_those_of_the_migrations(empty: None) -> None:
    floor("storage", known())
    upgrade()
    with engine().connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []


# Alembic compares neither conditions of indexes nor CHECKs, nor the values of an enum, nor storage parameters.
_UNCOMPARED = text("""
    SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS definition FROM pg_index
        JOIN pg_class ON pg_class.oid = indexrelid
        WHERE relnamespace = 'public'::regnamespace AND indrelid::regclass::text <> 'alembic_version'
    UNION ALL SELECT conname::text, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text <> 'alembic_version'
    UNION ALL SELECT typname::text, string_agg(enumlabel, ',' ORDER BY enumsortorder) FROM pg_enum
        JOIN pg_type ON pg_type.oid = enumtypid GROUP BY typname
    UNION ALL SELECT relname::text, reloptions::text FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND reloptions IS NOT NULL""")


def test_indexes_checks_and_enums_are_those_of_the_code_to_the_letter(empty: None) -> None:
    floor("storage", known())

    def definitions() -> dict[str, str]:
        with autocommit() as connection:
            return {row.name: row.definition for row in connection.execute(_UNCOMPARED)}

    upgrade()
    migrated = definitions()
    assert "WHERE" in migrated["ix_jobs_due"]
    downgrade()
    metadata.create_all(engine())
    assert definitions() == migrated


def migrate(stack: Stack, **changes: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "migrations"],
        env={**os.environ, **stack.env, **changes},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def succeeded(*processes: "subprocess.Popen[bytes]") -> None:
    for process in processes:
        output, _ = process.communicate(timeout=30)
        assert process.returncode == 0, output.decode()


def admins() -> list[dict[str, Any]]:
    with autocommit() as connection:
        rows = connection.execute(text("SELECT id, username, password_hash FROM accounts WHERE role = 'admin'"))
        return [dict(row) for row in rows.mappings()]


def test_two_migrators_at_once_make_one_database_and_one_admin(empty: None, in_process: Stack) -> None:
    succeeded(migrate(in_process, **WITH_ADMIN), migrate(in_process, **WITH_ADMIN))
    (made,) = admins()
    assert made["username"] == "root.admin"
    # once more, and with another password: the account is its owner's by now
    succeeded(migrate(in_process, **WITH_ADMIN | {"ADMIN_PASSWORD": "another password"}))
    assert admins() == [made]


def test_mail_that_was_given_up_is_found_again_after_0017(empty: None) -> None:
    _to("0016")
    with autocommit() as connection:
        connection.execute(
            text("INSERT INTO accounts (id, username, password_hash) VALUES (gen_random_uuid(), 'a', 'x')")
        )
        connection.execute(
            text("""
                INSERT INTO mailboxes (id, owner_id, host, port, security, auth, username, secret, folder, rules,
                    time_zone, after_action, poll_seconds, enabled, uidvalidity, last_uid)
                SELECT gen_random_uuid(), id, 'Mail.example.com', 993, 'tls', 'password', 'u', 's', 'INBOX', '{}',
                    'UTC', 'none', 300, TRUE, 2, 9 FROM accounts""")
        )
        for uidvalidity, uid, state, reason, fingerprint in (
            (1, 1, "skipped", "gone", "lost"),
            (2, 1, "duplicate", "same_message", "lost"),
            (1, 2, "stored", None, "kept"),
            (2, 2, "duplicate", "same_message", "kept"),
            (2, 3, "skipped", "too_large", "large"),
        ):
            connection.execute(
                text("""
                    INSERT INTO mail_messages (id, mailbox_id, folder, uidvalidity, uid, state, reason, fingerprint,
                        finished_at)
                    SELECT gen_random_uuid(), id, 'INBOX', :uidvalidity, :uid, :state, :reason, :fingerprint, now()
                    FROM mailboxes"""),
                {"uidvalidity": uidvalidity, "uid": uid, "state": state, "reason": reason, "fingerprint": fingerprint},
            )
    upgrade()
    with autocommit() as connection:
        left = connection.execute(text("SELECT source, fingerprint FROM mail_messages ORDER BY uid, uidvalidity")).all()
        assert [tuple(row) for row in left] == [
            ("u@mail.example.com:993", "kept"),
            ("u@mail.example.com:993", "kept"),
            ("u@mail.example.com:993", "large"),
        ]
        assert connection.execute(text("SELECT uidvalidity, last_uid FROM mailboxes")).one() == (None, 0)
        counted = connection.execute(text("SELECT state, number FROM mail_message_counts")).all()
        assert dict(tuple(row) for row in counted) == {"stored": 1, "duplicate": 1, "skipped": 1}
    downgrade("0016")
    upgrade()


def _to(revision: str) -> None:
    config = configuration()
    with engine().connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.commit()
