"""Exit codes, and every error as one line with the code it ends with."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import click

from stack.terminal.text import harmless, worded

DONE, FAILED, USAGE, UNREACHABLE, NOT_ALLOWED, CANCELLED, REFUSED, INTERRUPTED = 0, 1, 2, 3, 4, 5, 6, 130

# \b keeps click from filling the lines
EPILOG = """\b
Exit codes:
  0    done
  1    the job (or what `up`, `demo`, `migrate` start) failed
  2    wrong usage
  3    the server cannot be reached, or is in trouble itself
  4    not signed in, or not allowed
  5    the job was cancelled
  6    the server refused: no such job, not ready, too large ...
  130  Ctrl-C; a job goes on
Of several jobs, the largest."""


def say(line: str) -> None:
    click.echo(f"millrace: {line}", err=True)


def end(code: int, line: str) -> NoReturn:
    say(line)
    raise SystemExit(code)


@contextmanager
def written(path: Path) -> Iterator[None]:
    """Around what writes to ``path``, which is a user's choice."""
    try:
        yield
    except OSError as error:
        if isinstance(error, BrokenPipeError) or error.filename is None:
            raise
        why = error.strerror or str(error)
        end(
            USAGE,
            worded(
                f"{path} cannot be written ({why}); name another place with --output",
                f"{path} не записать ({why}); укажите другое место: --output",
            ),
        )


@contextmanager
def told() -> Iterator[None]:
    """Around a command."""
    from millrace.errors import (
        BadAddress,
        BadKey,
        BadToken,
        ClientError,
        FileChanged,
        Forbidden,
        NotSignedIn,
        Refused,
        Unreachable,
        WrongCredentials,
    )

    try:
        yield
    except (BadAddress, BadKey, FileChanged) as error:
        end(USAGE, str(error))
    except BadToken as error:
        end(NOT_ALLOWED, str(error))
    except Unreachable as error:
        end(UNREACHABLE, str(error))
    except Refused as error:
        number = f", {error.request_id}" if error.request_id else ""
        line = f"{harmless(error.detail)} ({error.code}{number})"
        if isinstance(error, NotSignedIn) and not isinstance(error, WrongCredentials):
            line += worded("; sign in with: millrace login", "; войти: millrace login")
        allowed = not isinstance(error, NotSignedIn | Forbidden)
        end(NOT_ALLOWED if not allowed else UNREACHABLE if error.status >= 500 else REFUSED, line)
    except ClientError as error:
        end(UNREACHABLE, str(error))
    except UnicodeEncodeError as error:  # words in another encoding than the terminal's
        end(USAGE, f"{error.object!r}: {error.reason}")
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise  # click's own business: whoever read has gone
        end(USAGE, str(error))
    except KeyboardInterrupt:
        end(INTERRUPTED, worded("interrupted", "прервано"))
