"""Where the settings come from: the environment, over what a running embedded stack has left in its data folder."""

import os
import shlex
from functools import cache
from pathlib import Path

from domain.settings import Settings, from_environ

STACK_ENV = "stack.env"


@cache
def settings() -> Settings:
    """The settings of this process, read once.

    With no DATABASE_URL in the environment the embedded stack started by ``millrace up`` is used: it writes its
    addresses to ``stack.env`` in the data folder while it runs.

    Raises:
        BadSetting: a variable is missing or cannot be read.
    """
    environ = dict(os.environ)
    if not environ.get("DATABASE_URL"):
        environ = {**_running_stack(Path(environ.get("MILLRACE_DATA_DIR", ".millrace"))), **environ}
    return from_environ(environ)


def _running_stack(data_dir: Path) -> dict[str, str]:
    path = data_dir / STACK_ENV
    if not path.is_file():
        return {}
    words = shlex.split(path.read_text(), comments=True)
    return dict(word.split("=", 1) for word in words)
