"""Accounts: who may sign in, what they may do, and the shapes clients send and see."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType


class Role(StrEnum):
    """What an account may see and change."""

    USER = "user"
    """Sees and changes what it owns, and its own account."""
    ADMIN = "admin"
    """Sees and changes everything. There is always at least one once there has been one."""


# ASCII only: look-alike letters of other alphabets would let one name pass for another. `(?!\n)`, because `$` also
# matches before a final newline.
USERNAME = r"^[A-Za-z0-9._-]+$(?!\n)"
_EMAIL = r"^[^@\s\x00-\x1f\x7f]+@[^@\s.\x00-\x1f\x7f]+(\.[^@\s.\x00-\x1f\x7f]+)+$(?!\n)"

SESSION_COOKIE = "millrace_session"

Username = Annotated[
    str,
    Meta(
        min_length=3,
        max_length=50,
        pattern=USERNAME,
        description="3-50 Latin letters, digits, `.`, `_` or `-`; unique without regard to case",
        examples=["anna.petrova"],
    ),
]
Password = Annotated[
    str, Meta(min_length=8, max_length=128, description="8-128 characters", examples=["correct horse battery"])
]
Email = Annotated[
    str, Meta(max_length=254, pattern=_EMAIL, description="Unique when given", examples=["anna@example.org"])
]

AccountId = Annotated[UUID, Meta(examples=["01994d2b-11c8-7e0a-a5f4-93c7d2b86e10"])]
Time = Annotated[datetime, Meta(tz=True, examples=["2025-09-15T11:38:12.296104Z"])]


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """An account as clients see it. Times are RFC 3339 UTC."""

    id: AccountId
    username: Annotated[str, Meta(examples=["anna.petrova"])]
    email: Annotated[str | None, Meta(examples=["anna@example.org"])]
    role: Annotated[Role, Meta(description="A `user` sees its own, an `admin` everything", examples=["user"])]
    created_at: Time
    updated_at: Time


class AccountPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of accounts, oldest first; pass ``next`` as ``after`` for the following one, null after the last."""

    items: list[Account]
    next: AccountId | None


class Registration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new account; its role is `user`."""

    username: Username
    password: Password
    email: Email | None = None


class Login(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is sent is only bounded here: whether it fits the rules must not be told apart from whether it is right."""

    username: Annotated[str, Meta(max_length=50, examples=["anna.petrova"])]
    password: Annotated[str, Meta(max_length=128, examples=["correct horse battery"])]
    session: Annotated[
        bool, Meta(description="For pages of this site: also set the cookie `millrace_session`", examples=[False])
    ] = False


class AccountChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Only what is sent is changed; an e-mail of null removes it.

    A new password needs ``current_password`` unless an admin sets it, and ends every access token issued before.
    Only an admin changes roles.
    """

    email: Email | UnsetType | None = UNSET
    password: Password | UnsetType = UNSET
    current_password: Annotated[str, Meta(max_length=128)] | UnsetType = UNSET
    role: Role | UnsetType = UNSET


class TokenGrant(msgspec.Struct, frozen=True, kw_only=True):
    """A bearer access token (RFC 6750); ``expires_in`` is in seconds."""

    access_token: Annotated[
        str, Meta(description="A JWT", examples=["eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIwMTk5NGQyYiJ9.bM1fW0n7oZ7c"])
    ]
    expires_in: Annotated[int, Meta(description="Seconds", examples=[3600])]
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105  # a word of RFC 6750


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """The account a request is made by, as the database knew it at most 5 s ago."""

    id: UUID
    username: str
    role: Role
    generation: int  # of its password: one more with each new one

    @property
    def is_admin(self) -> bool:
        return self.role is Role.ADMIN
