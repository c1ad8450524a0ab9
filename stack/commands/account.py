"""``millrace login``, ``logout`` and ``whoami``."""

import os
import sys
from typing import TYPE_CHECKING

import click

from stack.commands.exits import say
from stack.commands.server import json_option, on_server
from stack.terminal.text import worded

if TYPE_CHECKING:
    from millrace.client import Client


@on_server()
@click.argument("username", required=False, envvar="MILLRACE_USERNAME")
@click.option("--register", is_flag=True, help="Make the account first.")
def login(client: "Client", username: str | None, register: bool) -> None:
    """Sign in as USERNAME and keep the token for this server.

    The password is asked for; without a terminal it is the first line of stdin. MILLRACE_PASSWORD comes before both.
    The token is kept below $XDG_CONFIG_HOME/millrace, readable by you only; MILLRACE_TOKEN comes before it.
    """
    from millrace.tokens import keep

    if not username:
        if not sys.stdin.isatty():
            raise click.UsageError("USERNAME is missing")
        username = str(click.prompt(worded("Username", "Имя пользователя")))
    password = _password(confirmed=register)
    if register:
        client.register(username, password)
    granted = client.login(username, password)
    kept_in = keep(client.url, username, granted.access_token)
    minutes = granted.expires_in // 60
    say(
        worded(
            f"signed in to {client.url} as {username} for {minutes} min; the token is in {kept_in}",
            f"вход на {client.url} как {username} на {minutes} мин; токен хранится в {kept_in}",
        )
    )


@on_server()
def logout(client: "Client") -> None:
    """Forget the token kept for this server. (The server ends a token by itself, or at once with a new password.)"""
    from millrace.tokens import forget

    if forget(client.url):
        say(worded(f"signed out of {client.url}", f"выход с {client.url}"))
    else:
        say(worded(f"was not signed in to {client.url}", f"входа на {client.url} не было"))


@on_server()
@json_option
def whoami(client: "Client", as_json: bool) -> None:
    """Print the account the token belongs to."""
    import msgspec

    account = client.me()
    click.echo(msgspec.json.encode(account) if as_json else account.username)


def _password(*, confirmed: bool) -> str:
    if given := os.environ.get("MILLRACE_PASSWORD"):
        return given
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    asked = worded("Password", "Пароль")
    return str(click.prompt(asked, hide_input=True, confirmation_prompt=confirmed))
