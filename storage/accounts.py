"""The accounts table and every statement on it."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import msgspec
from argon2 import PasswordHasher
from psycopg import errors as pg
from sqlalchemy import (
    Column,
    Connection,
    DateTime,
    Enum,
    Index,
    Integer,
    Row,
    Table,
    Text,
    Uuid,
    delete,
    exc,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert

from domain.accounts import Account, AccountPage, Principal, Registration, Role
from domain.errors.accounts import AccountInUse, AlreadyTaken, LastAdmin
from domain.errors.neighbours import BadSetting
from domain.errors.requests import NotFound
from domain.identity import new_id
from storage.database import autocommit, metadata, transaction

_now = text("now()")

accounts = Table(
    "accounts",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("username", Text, nullable=False),
    Column("email", Text),
    Column("password_hash", Text, nullable=False),
    Column(
        "role",
        Enum(Role, name="account_role", values_callable=lambda roles: [role.value for role in roles]),
        nullable=False,
        server_default=Role.USER.value,
    ),
    # Counts changes of the password; a token carries the number it was issued under and ends with it. A number and not
    # a time, because the clocks of the API's and the database's machines differ.
    Column("generation", Integer, nullable=False, server_default=text("1")),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_now),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=_now),
    Index("uq_accounts_username", func.lower(text("username")), unique=True),
    Index(
        "uq_accounts_email",
        func.lower(text("email")),
        unique=True,
        postgresql_where=text("email IS NOT NULL"),
    ),
    # the last admin is looked for by locking all of them
    Index("ix_accounts_admins", "id", postgresql_where=text("role = 'admin'")),
)

# OWASP's floor for Argon2id: 19 MiB, two passes, one lane; 23 ms a hash on the machine it was measured on.
hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)

_seen = [accounts.c[name] for name in Account.__struct_fields__]


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    username: str
    password_hash: str
    role: Role
    generation: int


_secret = [accounts.c[name] for name in Credentials.__struct_fields__]


def create(registration: Registration, password_hash: str) -> Account:
    """``register`` as a transaction by itself."""
    with autocommit() as connection:
        return register(connection, registration, password_hash)


def register(connection: Connection, registration: Registration, password_hash: str) -> Account:
    """A user, as a part of the caller's transaction. Raises AlreadyTaken naming the field."""
    statement = (
        insert(accounts)
        .values(
            id=new_id(),
            username=registration.username,
            email=registration.email,
            password_hash=password_hash,
            role=Role.USER,
        )
        .returning(*_seen)
    )
    with _unique():
        return _account(connection.execute(statement).one())


def by_id(account_id: UUID) -> Account:
    """Raises NotFound."""
    return _found(select(*_seen).where(accounts.c.id == account_id))


def by_username(username: str) -> Account:
    """Case does not matter. Raises NotFound."""
    return _found(select(*_seen).where(_named(username)))


def credentials(username: str) -> Credentials | None:
    """What a login is checked against."""
    return _credentials(_named(username))


def credentials_by_id(account_id: UUID) -> Credentials | None:
    return _credentials(accounts.c.id == account_id)


def principals(ids: Collection[UUID]) -> set[Principal]:
    """Those of the accounts that are there, as they are now."""
    columns = [accounts.c[name] for name in Principal.__struct_fields__]
    with autocommit() as connection:
        rows = connection.execute(select(*columns).where(accounts.c.id.in_(ids)))
        return {Principal(**row._mapping) for row in rows}


def page(limit: int, after: UUID | None) -> AccountPage:
    """At most ``limit`` accounts whose id comes after ``after``; UUIDv7 sorts by the time an account was made."""
    statement = select(*_seen).order_by(accounts.c.id).limit(limit + 1)
    if after:
        statement = statement.where(accounts.c.id > after)
    with autocommit() as connection:
        items = [_account(row) for row in connection.execute(statement)]
    return AccountPage(items=items[:limit], next=items[limit - 1].id if len(items) > limit else None)


def change(account_id: UUID, values: dict[str, Any]) -> Account:
    """Set ``email``, ``password_hash`` or ``role``; a new hash ends the tokens issued before.

    Raises:
        NotFound, AlreadyTaken (naming the field), LastAdmin.
    """
    if "password_hash" in values:
        values = {**values, "generation": accounts.c.generation + 1}
    statement = (
        update(accounts).where(accounts.c.id == account_id).values(**values, updated_at=func.now()).returning(*_seen)
    )
    with _unique(), transaction() as connection:
        if values.get("role") is Role.USER:
            _keep_an_admin(connection, account_id)
        row = connection.execute(statement).one_or_none()
    if row is None:
        raise NotFound(what="account")
    return _account(row)


def rehash(account_id: UUID, old_hash: str, new_hash: str) -> None:
    """Replace a hash by one of the same password with today's parameters, unless it has been changed meanwhile."""
    statement = update(accounts).where(accounts.c.id == account_id, accounts.c.password_hash == old_hash)
    with autocommit() as connection:
        connection.execute(statement.values(password_hash=new_hash))


def remove(account_id: UUID) -> None:
    """Raises NotFound, LastAdmin, or AccountInUse when the account still owns something."""
    try:
        with transaction() as connection:
            _keep_an_admin(connection, account_id)
            removed = connection.execute(delete(accounts).where(accounts.c.id == account_id)).rowcount
    except exc.IntegrityError as error:
        if isinstance(error.orig, pg.ForeignKeyViolation | pg.RestrictViolation):
            raise AccountInUse(what=error.orig.diag.table_name or "data") from error
        raise
    if not removed:
        raise NotFound(what="account")


def ensure_admin(username: str, password: str) -> bool:
    """Make the account with the role `admin` unless the name exists; True when it was made.

    An account that exists is left alone, its role and password too: its owner may have changed them.

    Raises:
        BadSetting: ADMIN_USERNAME or ADMIN_PASSWORD breaks the rules for names and passwords.
    """
    try:
        msgspec.convert({"username": username, "password": password}, Registration)
    except msgspec.ValidationError as error:
        name = "ADMIN_USERNAME" if "username" in str(error) else "ADMIN_PASSWORD"
        raise BadSetting(name=name, reason=str(error)) from None
    with autocommit() as connection:
        if connection.execute(select(accounts.c.id).where(_named(username))).first():
            return False  # most starts end here, without the cost of a hash
        values = {"id": new_id(), "username": username, "password_hash": hasher.hash(password), "role": Role.ADMIN}
        made = connection.execute(upsert(accounts).values(**values).on_conflict_do_nothing())
        return bool(made.rowcount)


def _named(username: str) -> Any:
    # Postgres text knows no NUL; a name that has one names nobody
    return func.lower(accounts.c.username) == func.lower(username.replace("\0", "?"))


def _found(statement: Any) -> Account:
    with autocommit() as connection:
        row = connection.execute(statement).one_or_none()
    if row is None:
        raise NotFound(what="account")
    return _account(row)


def _credentials(condition: Any) -> Credentials | None:
    with autocommit() as connection:
        row = connection.execute(select(*_secret).where(condition)).one_or_none()
    return Credentials(**row._mapping) if row else None


def _account(row: Row[Any]) -> Account:
    return Account(**row._mapping)


def _keep_an_admin(connection: Any, account_id: UUID) -> None:
    """Locks every admin first: of two who remove each other at the same moment, the second must see the first."""
    admins = select(accounts.c.id).where(accounts.c.role == Role.ADMIN).order_by(accounts.c.id).with_for_update()
    if connection.execute(admins).scalars().all() == [account_id]:
        raise LastAdmin


@contextmanager
def _unique() -> Iterator[None]:
    try:
        yield
    except exc.IntegrityError as error:
        if isinstance(error.orig, pg.UniqueViolation):
            field = "email" if "email" in (error.orig.diag.constraint_name or "") else "username"
            raise AlreadyTaken(field=field) from error
        raise
