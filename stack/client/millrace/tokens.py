"""Where a token is kept between two commands: one file for each server, readable by its owner only.

``$XDG_CONFIG_HOME/millrace/tokens/`` (XDG Base Directory Specification), else ``~/.config/millrace/tokens/``.
"""

import os
import secrets
from pathlib import Path
from urllib.parse import quote

import msgspec


class KeptToken(msgspec.Struct, frozen=True, kw_only=True):
    url: str
    username: str
    access_token: str


def path_of(url: str) -> Path:
    """The file for the server at ``url``."""
    configured = Path(os.environ.get("XDG_CONFIG_HOME") or "")
    # the specification has a relative path ignored
    folder = configured if configured.is_absolute() else Path.home() / ".config"
    return folder / "millrace" / "tokens" / f"{quote(url.rstrip('/'), safe='')}.json"


def kept(url: str) -> KeptToken | None:
    try:
        return msgspec.json.decode(path_of(url).read_bytes(), type=KeptToken)
    except (OSError, RuntimeError, msgspec.DecodeError):  # RuntimeError: there is no home
        return None


def kept_token(url: str) -> str | None:
    found = kept(url)
    return found.access_token if found else None


def keep(url: str, username: str, access_token: str) -> Path:
    """Replace what is kept for this server; never a moment readable by others. Raises OSError."""
    path = path_of(url)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(f".{secrets.token_hex(8)}.new")
    content = msgspec.json.encode(KeptToken(url=url.rstrip("/"), username=username, access_token=access_token))
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
    return path


def forget(url: str) -> bool:
    """Whether there was one."""
    path = path_of(url)
    there = path.exists()
    path.unlink(missing_ok=True)
    return there
