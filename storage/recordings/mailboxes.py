"""Mailboxes as admins see and change them, and as the steps see them."""

from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
from msgspec import UNSET
from sqlalchemy import Connection, Row, select, text

from domain.errors import MillraceError
from domain.errors.recordings import MailboxLoginRefused
from domain.errors.requests import Invalid, NotFound
from domain.identity import new_id
from domain.recordings.mailboxes import (
    AfterAction,
    Auth,
    DisabledReason,
    Mailbox,
    MailboxChange,
    MailboxOrder,
    MailboxStanding,
    Rules,
    Security,
)
from storage.recordings import claiming
from storage.recordings.sealing import seal
from storage.recordings.tables import mailboxes

_seen = [mailboxes.c[name] for name in Mailbox.__struct_fields__]
_THEIRS = "(CAST(:owner_id AS uuid) IS NULL OR mailboxes.owner_id = :owner_id)"
_owner_exists = text("SELECT FROM accounts WHERE id = :owner_id FOR KEY SHARE")
# Whoever makes, changes or ends the fetching from a mailbox holds its row.
_hold = text("SELECT FROM mailboxes WHERE id = :id FOR NO KEY UPDATE")
_disable = text("""
    UPDATE mailboxes SET enabled = FALSE, disabled_reason = :reason, updated_at = now() WHERE id = :id AND enabled""")
_schedule = text(f"""
    UPDATE mailboxes SET scheduled = :scheduled, updated_at = now(),
        next_poll_at = CASE WHEN :scheduled AND NOT scheduled THEN now() ELSE next_poll_at END
    WHERE {_THEIRS} AND (CAST(:id AS uuid) IS NULL OR id = :id)""")
_failed = text("""
    UPDATE mailboxes SET checked_at = now(), failures = failures + 1, error_code = :code, error_message = :message
    WHERE id = :id""")
_looked = text("""
    UPDATE mailboxes SET checked_at = now(), failures = 0, error_code = NULL, error_message = NULL,
        uidvalidity = :uidvalidity,
        last_uid = CASE WHEN uidvalidity = :uidvalidity THEN GREATEST(last_uid, :last_uid) ELSE :last_uid END
    WHERE id = :id AND revision = :revision""")
_standing = text(f"""
    SELECT mailboxes.id AS mailbox_id, host, username, folder, enabled, disabled_reason, scheduled, checked_at,
        CASE WHEN enabled AND scheduled THEN next_poll_at END AS next_poll_at, job_id, failures, error_code,
        error_message, counted.*, kept.*
    FROM mailboxes
    CROSS JOIN LATERAL (
        SELECT count(*) AS found, count(*) FILTER (WHERE state = 'claimed') AS waiting,
            count(*) FILTER (WHERE state = 'stored') AS stored,
            count(*) FILTER (WHERE state = 'duplicate') AS duplicates,
            count(*) FILTER (WHERE state = 'skipped') AS skipped, count(*) FILTER (WHERE state = 'failed') AS errors
        FROM mail_messages WHERE mailbox_id = mailboxes.id) AS counted
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE status = 'matched') AS matched,
            count(*) FILTER (WHERE status = 'unmatched') AS unmatched
        FROM recordings WHERE mailbox_id = mailboxes.id) AS kept
    WHERE {_THEIRS} ORDER BY mailboxes.id LIMIT 1000""")


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """What it takes to get into a mailbox, and what to look for there."""

    id: UUID
    owner_id: UUID
    host: str
    port: int
    security: Security
    auth: Auth
    username: str
    secret: str  # encrypted
    folder: str
    rules: Rules
    time_zone: str
    after_action: AfterAction
    move_to: str | None
    enabled: bool
    uidvalidity: int | None
    last_uid: int
    revision: int
    error_code: str | None
    error_message: str | None

    @property
    def source(self) -> str:
        """Whose numbers a folder's are: those of another account, or another server, mean other messages."""
        return f"{self.username}@{self.host.lower()}:{self.port}"

    @property
    def refused(self) -> MailboxLoginRefused | None:
        """The login that was refused, as long as nothing was changed: there is no need to try it again."""
        if self.enabled or self.error_code != MailboxLoginRefused.code:
            return None
        return MailboxLoginRefused(reason=str(self.error_message).partition(": ")[2])

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.time_zone)


_access = [mailboxes.c[name] for name in Access.__struct_fields__]


def create(connection: Connection, owner_id: UUID, order: MailboxOrder) -> Mailbox:
    """Needs a transaction. Raises NotFound (no such account), Invalid."""
    check(order)
    if connection.execute(_owner_exists, {"owner_id": owner_id}).first() is None:
        raise NotFound(what="account")
    values = msgspec.to_builtins(order) | {
        "id": new_id(),
        "owner_id": owner_id,
        "secret": seal(order.secret),
        "disabled_reason": None if order.enabled else DisabledReason.ADMIN,
    }
    return _mailbox(connection.execute(mailboxes.insert().values(values).returning(*_seen)).one())


def check(order: MailboxOrder | Mailbox) -> None:
    """Raises Invalid: an unknown time zone, or a move to nowhere."""
    try:
        ZoneInfo(order.time_zone)
    except (KeyError, ValueError, OSError):
        raise Invalid(field="time_zone", reason=f"{order.time_zone!r} is no time zone") from None
    if (order.after_action is AfterAction.MOVE) != (order.move_to is not None):
        raise Invalid(field="move_to", reason="goes with `after_action` move, and only with that")
    if order.move_to is not None and order.move_to.casefold() == order.folder.casefold():
        raise Invalid(field="move_to", reason="is the folder the messages are in")


def one(connection: Connection, mailbox_id: UUID) -> Mailbox:
    """Raises NotFound."""
    return _found(connection.execute(select(*_seen).where(mailboxes.c.id == mailbox_id)).one_or_none())


def page(connection: Connection, *, after: UUID | None, limit: int) -> list[Mailbox]:
    """Newest first, those older than ``after``."""
    statement = select(*_seen).order_by(mailboxes.c.id.desc()).limit(limit)
    if after is not None:
        statement = statement.where(mailboxes.c.id < after)
    return [_mailbox(row) for row in connection.execute(statement)]


def change(connection: Connection, mailbox_id: UUID, change: MailboxChange) -> Mailbox:
    """Needs a transaction. Other rules, or another place: all is looked at anew. Raises NotFound, Invalid."""
    connection.execute(_hold, {"id": mailbox_id})
    before = one(connection, mailbox_id)
    given = {name: value for name in change.__struct_fields__ if (value := getattr(change, name)) is not UNSET}
    after = msgspec.convert(
        msgspec.structs.asdict(before) | {name: value for name, value in given.items() if name != "secret"}, Mailbox
    )
    check(after)
    values: dict[str, Any] = msgspec.to_builtins({name: value for name, value in given.items() if name != "secret"})
    if "secret" in given:
        values["secret"] = seal(str(given["secret"]))
    if "enabled" in given and after.enabled != before.enabled:
        values["disabled_reason"] = None if after.enabled else DisabledReason.ADMIN
    if {"host", "port", "username", "folder", "rules"} & given.keys():
        values |= {"uidvalidity": None, "last_uid": 0, "revision": mailboxes.c.revision + 1}
        claiming.withdraw(connection, mailbox_id)
    if {"host", "port", "security", "auth", "username", "secret"} & given.keys():
        values |= {"failures": 0, "error_code": None, "error_message": None}
    statement = mailboxes.update().where(mailboxes.c.id == mailbox_id)
    return _found(
        connection.execute(statement.values(**values, updated_at=text("now()")).returning(*_seen)).one_or_none()
    )


def delete(connection: Connection, mailbox_id: UUID) -> None:
    """Its recordings stay. Raises NotFound."""
    if not connection.execute(mailboxes.delete().where(mailboxes.c.id == mailbox_id)).rowcount:
        raise NotFound(what="mailbox")


def access(connection: Connection, mailbox_id: UUID) -> Access | None:
    row = connection.execute(select(*_access).where(mailboxes.c.id == mailbox_id)).one_or_none()
    return None if row is None else msgspec.convert(dict(zip(Access.__struct_fields__, row, strict=True)), Access)


def disable(connection: Connection, mailbox_id: UUID, reason: DisabledReason) -> None:
    connection.execute(_disable, {"id": mailbox_id, "reason": str(reason)})


def schedule(connection: Connection, owner_id: UUID | None, mailbox_id: UUID | None, *, scheduled: bool) -> None:
    """Switch the scheduled looks on or off, of one mailbox or of all of the owner's (of everybody's for None)."""
    connection.execute(_schedule, {"owner_id": owner_id, "id": mailbox_id, "scheduled": scheduled})


def note_failure(connection: Connection, mailbox_id: UUID, error: MillraceError) -> None:
    connection.execute(_failed, {"id": mailbox_id, "code": error.code, "message": str(error)[:1000]})


def note_look(connection: Connection, access: Access, uidvalidity: int, last_uid: int) -> bool:
    """A look at the folder has ended: all up to ``last_uid`` has been seen.

    False, and nothing noted, when account, folder or rules were changed meanwhile: what was seen says nothing then.
    Needs a transaction, until whose end they are not changed.
    """
    values = {"id": access.id, "revision": access.revision, "uidvalidity": uidvalidity, "last_uid": last_uid}
    return bool(connection.execute(_looked, values).rowcount)


def standings(connection: Connection, owner_id: UUID | None) -> list[MailboxStanding]:
    rows = connection.execute(_standing, {"owner_id": owner_id})
    return [msgspec.convert(dict(row._mapping), MailboxStanding) for row in rows]


def _found(row: Row[Any] | None) -> Mailbox:
    if row is None:
        raise NotFound(what="mailbox")
    return _mailbox(row)


def _mailbox(row: Row[Any]) -> Mailbox:
    return msgspec.convert(dict(zip(Mailbox.__struct_fields__, row, strict=True)), Mailbox)
