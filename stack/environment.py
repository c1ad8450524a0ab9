"""The settings a stack gives its processes, and ``stack.env``, by which tools find a running stack."""

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from domain.settings import Settings
from stack import StackFailed
from stack.folder import DataFolder, write_private

STACK_ENV = "stack.env"


def app_settings(folder: DataFolder, environ: Mapping[str, str], ports: Mapping[str, int]) -> dict[str, str]:
    """What the processes need beyond the servers; variables the operator has set win.

    ``ports`` are those of ``api``, ``flower`` and ``ml``.
    """
    generated = {
        "MILLRACE_ENV": "development",
        "LOG_FORMAT": "console",
        "JWT_SECRET": folder.secrets["JWT_SECRET"],
        "ML_SERVICE_TOKEN": folder.secrets["ML_SERVICE_TOKEN"],
        "ML_SERVICE_URL": f"http://127.0.0.1:{ports['ml']}",
        # the reference service forgets its jobs with its process: it is asked soon, and given them again
        "ML_DEADLINE_SECONDS": "60",
        "FLOWER_USER": "millrace",
        "FLOWER_PASSWORD": folder.secrets["FLOWER_PASSWORD"],
        "PUBLIC_URL": f"http://127.0.0.1:{ports['api']}",
    }
    exchange = ("MANGO_API_KEY", "MANGO_API_SALT")
    if not any(environ.get(name) for name in exchange):  # one without the other would be a mistake to be told of
        generated |= {name: folder.secrets[name] for name in exchange}
    settings = {name: environ.get(name) or value for name, value in generated.items()}
    return settings | {
        "MILLRACE_DATA_DIR": str(folder.path),
        "PORT": str(ports["api"]),
        "FLOWER_PORT": str(ports["flower"]),
        "ML_PORT": str(ports["ml"]),
        # Flower reads its options from FLOWER_*; on its command line `ps` would show the password
        "FLOWER_BASIC_AUTH": f"{settings['FLOWER_USER']}:{settings['FLOWER_PASSWORD']}",
    }


def child_environ(environ: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of the processes: ours, the settings, and this Python's programs first on the PATH."""
    programs = str(Path(sys.executable).parent)
    path = os.pathsep.join([programs, environ.get("PATH", os.defpath)])
    return {**environ, **settings, "PATH": path, "PYTHONUNBUFFERED": "1"}


def published(settings: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """The stack's settings and those the operator has set, by name: what ``stack.env`` holds."""
    known = {field.name.upper() for field in msgspec.structs.fields(Settings)}
    own = {name: value for name, value in environ.items() if name in known and value}
    return dict(sorted({**own, **settings}.items()))


def write_stack_env(folder: DataFolder, settings: Mapping[str, str]) -> Path:
    """Write ``stack.env``: one ``NAME=value`` a line, quoted for a shell where it has to be, readable by us only."""
    path = folder.path / STACK_ENV
    lines = [f"{name}={shlex.quote(value)}\n" for name, value in settings.items()]
    write_private(path, "# written by `millrace up` while it runs\n" + "".join(lines))
    return path


def read_stack_env(data_dir: Path) -> dict[str, str]:
    """The settings of the stack running on a data folder.

    Raises:
        StackFailed: none is running there.
    """
    path = data_dir / STACK_ENV
    try:
        words = shlex.split(path.read_text(), comments=True)
    except OSError as error:
        raise StackFailed(f"no stack is running on {data_dir.absolute()} ({error.strerror}: {path.name})") from None
    return dict(word.split("=", 1) for word in words)
