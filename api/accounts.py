"""Accounts over HTTP: registering, logging in, and the accounts themselves."""

import re
from typing import Annotated, Any
from uuid import UUID

from litestar import Request, Response, delete, get, post, put
from litestar.concurrency import sync_to_thread
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import UNSET, UnsetType

from api import sessions
from api.idempotency import IdempotencyKey, Once, idempotent, secret_fingerprint
from api.openapi.operation import documented
from api.rates import Rate, client_address, counting, spend
from api.security import PUBLIC, forget, grant, hash_password, password_fits, require_admin
from domain.accounts import (
    USERNAME,
    Account,
    AccountChange,
    AccountPage,
    Login,
    Principal,
    Registration,
    TokenGrant,
)
from domain.errors.accounts import (
    AccountInUse,
    AlreadyTaken,
    CrossSiteRequest,
    Forbidden,
    LastAdmin,
    RateLimited,
    WrongCredentials,
)
from domain.errors.requests import Invalid, NotFound
from storage import accounts

# Failed logins: of one name from one address, and of one address whatever the names (password spraying).
LOGIN = Rate("login", 10, 60)
LOGIN_ADDRESS = Rate("login-address", 100, 60)
REGISTRATION = Rate("registration", 120, 60)

# As documented errors: never raised themselves.
_LIMITED = RateLimited(seconds=42, retry_after=42)
_NO_ACCOUNT = NotFound(what="account")
_NOT_ADMIN = Forbidden(role="admin")


@post(
    "/auth/register",
    tags=["accounts"],
    summary="Make an account",
    **PUBLIC,
    **documented(AlreadyTaken(field="username"), _LIMITED, headers={"Location": "The account"}),
)
async def register(
    data: JSONBody[Registration], request: Request[Any, Any, Any], idempotency_key: IdempotencyKey = None
) -> Response[Account]:
    """Open to everybody. 409 `already_taken` names the field when the username or the e-mail belongs to somebody."""
    await spend(request, REGISTRATION, client_address(request))
    async with idempotent(request, None, idempotency_key) as once:
        once.same_body(secret_fingerprint(await request.body()))
        await sync_to_thread(_register, data, await hash_password(data.password), once)
    return once.answer


@post(
    "/auth/login",
    tags=["accounts"],
    summary="Get an access token",
    status_code=200,
    **PUBLIC,
    **documented(
        WrongCredentials(),
        CrossSiteRequest(),
        _LIMITED,
        body={
            "For a program": {"username": "anna.petrova", "password": "correct horse battery"},
            "For a page of this site": {
                "username": "anna.petrova",
                "password": "correct horse battery",
                "session": True,
            },
        },
    ),
)
async def login(data: JSONBody[Login], request: Request[Any, Any, Any]) -> Response[TokenGrant]:
    """Send it as `Authorization: Bearer <access_token>` until it expires. Ten failed logins a minute for one name from
    one address, then 429 `rate_limited`.

    With `session` the token also comes as the cookie `millrace_session` (`HttpOnly`, `SameSite=Strict`), which is taken
    where no `Authorization` header is sent; `DELETE /auth/session` takes it away."""
    address = client_address(request)
    rates = (LOGIN_ADDRESS, address), (LOGIN, f"{address}:{data.username.lower()}")
    async with counting(request, WrongCredentials, *rates):
        known = await sync_to_thread(accounts.credentials, data.username)
        if not await password_fits(data.password, known) or known is None:
            raise WrongCredentials
    granted = grant(known)
    cookies = [sessions.opened(request, granted)] if data.session else []
    return Response(granted, headers={"Cache-Control": "no-store"}, cookies=cookies)  # RFC 6750, 5.3


@get(
    "/auth/me",
    operation_id="read_own_account",
    tags=["accounts"],
    summary="The account the token belongs to",
    sync_to_thread=True,
)
def me(principal: NamedDependency[Principal]) -> Account:
    """A cheap way to see whether a token is still good."""
    return accounts.by_id(principal.id)


@get(
    "/users",
    tags=["accounts"],
    summary="All accounts, a page at a time (admin)",
    sync_to_thread=True,
    **documented(_NOT_ADMIN),
)
def list_accounts(
    principal: NamedDependency[Principal],
    limit: Annotated[int, QueryParameter(ge=1, le=100, description="Accounts on a page")] = 20,
    after: Annotated[UUID | None, QueryParameter(description="`next` of the page before")] = None,
) -> AccountPage:
    """Oldest first."""
    require_admin(principal)
    return accounts.page(limit, after)


@get(
    "/users/{user_id:uuid}",
    tags=["accounts"],
    summary="One account",
    sync_to_thread=True,
    **documented(_NO_ACCOUNT),
)
def read_account(user_id: FromPath[UUID], principal: NamedDependency[Principal]) -> Account:
    """An admin reads any, a user its own; another's is answered like one that does not exist."""
    _require_self_or_admin(principal, user_id)
    return accounts.by_id(user_id)


@get(
    "/users/username/{username:str}",
    tags=["accounts"],
    summary="One account by its name",
    sync_to_thread=True,
    **documented(_NO_ACCOUNT),
)
def read_account_by_name(username: FromPath[str], principal: NamedDependency[Principal]) -> Account:
    """Without regard to case. An admin reads any, a user its own."""
    if not re.search(USERNAME, username):
        raise NotFound(what="account")
    account = accounts.by_username(username)
    _require_self_or_admin(principal, account.id)
    return account


@put(
    "/users/{user_id:uuid}",
    tags=["accounts"],
    summary="Change e-mail, password or (admin) role",
    **documented(
        _NOT_ADMIN,
        _NO_ACCOUNT,
        AlreadyTaken(field="email"),
        LastAdmin(),
        Invalid(field="current_password", reason="the current password is needed to set a new one"),
        _LIMITED,
        body={
            "Another e-mail": {"email": "anna@example.org"},
            "A new password": {"password": "wrong donkey charger", "current_password": "correct horse battery"},
            "A role, by an admin": {"role": "admin"},
        },
    ),
)
async def change_account(
    user_id: FromPath[UUID],
    data: JSONBody[AccountChange],
    principal: NamedDependency[Principal],
    request: Request[Any, Any, Any],
) -> Account:
    """Only what is sent is changed. A new password ends every access token issued before."""
    _require_self_or_admin(principal, user_id)
    values: dict[str, Any] = {}
    if data.email is not UNSET:
        values["email"] = data.email
    if data.role is not UNSET:
        if not principal.is_admin:
            raise Forbidden(role="admin", field="role")
        values["role"] = data.role
    if data.password is not UNSET:
        if not principal.is_admin:
            await _check_current_password(request, principal, data.current_password)
        values["password_hash"] = await hash_password(data.password)
    if not values:
        raise Invalid(field="body", reason="nothing to change: send email, password or role")
    account = await sync_to_thread(accounts.change, user_id, values)
    forget(user_id)
    return account


@delete(
    "/users/{user_id:uuid}",
    tags=["accounts"],
    summary="Delete an account that owns nothing",
    sync_to_thread=True,
    **documented(_NO_ACCOUNT, AccountInUse(what="jobs"), LastAdmin()),
)
def delete_account(user_id: FromPath[UUID], principal: NamedDependency[Principal]) -> None:
    """409 `account_in_use` while it owns jobs or files, `last_admin` for the last admin."""
    _require_self_or_admin(principal, user_id)
    accounts.remove(user_id)
    forget(user_id)


routes = [
    register,
    login,
    me,
    list_accounts,
    read_account,
    read_account_by_name,
    change_account,
    delete_account,
    *sessions.routes,
]


def _register(data: Registration, password_hash: str, once: Once) -> None:
    with once.writing() as connection:
        account = accounts.register(connection, data, password_hash)
        location = f"/api/v1/users/{account.id}"
        once.record(connection, Response(account, status_code=201, headers={"Location": location}))


def _require_self_or_admin(principal: Principal, account_id: UUID) -> None:
    """Another's account is as good as none. Raises NotFound."""
    if not principal.is_admin and principal.id != account_id:
        raise NotFound(what="account")


async def _check_current_password(
    request: Request[Any, Any, Any], principal: Principal, given: str | UnsetType
) -> None:
    """Guessing it with a stolen token is limited like guessing it at the login.

    Raises:
        Invalid naming ``current_password`` (not 401: the token is fine), RateLimited.
    """
    missing = Invalid(field="current_password", reason="the current password is needed to set a new one")
    if given is UNSET:
        raise missing
    async with counting(request, Invalid, (LOGIN, f"{client_address(request)}:{principal.username.lower()}")):
        if not await password_fits(given, await sync_to_thread(accounts.credentials_by_id, principal.id)):
            raise missing
