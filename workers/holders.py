"""Names of the processes that hold claims, made so that a process on the same machine can tell whether one is gone.

A worker that was killed is noticed by the next sweep instead of when its lease runs out. Elsewhere (another machine,
another container) nobody can tell, and the lease decides.
"""

import os
import socket
from contextlib import suppress
from pathlib import Path


def own_name() -> str:
    """This process's name: the machine and its space of process ids, then the id."""
    return f"{_here()}:{os.getpid()}"


def is_gone(name: str) -> bool:
    """Whether that process is known not to exist; False when it cannot be known from here.

    An id given anew to another process looks alive: then the lease decides, too.
    """
    here, _, pid = name.rpartition(":")
    if here != _here() or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return _has_ended(int(pid))


def _has_ended(pid: int) -> bool:
    """Whether it was killed and its parent has not noticed: a zombie keeps its id, for seconds under load."""
    with suppress(OSError):  # Linux only
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return False


def _here() -> str:
    space = ""
    with suppress(OSError):  # Linux only; two containers may share a host's name, but not this
        space = os.readlink("/proc/self/ns/pid")  # noqa: PTH115  # no file: the link's text is what counts
    return f"{socket.gethostname()}/{space}"
