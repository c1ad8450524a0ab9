"""What a process of the workers' pool may hold in memory: a step that runs away ends its own process, not the machine.

The limit on private writable memory (RLIMIT_DATA) makes the next allocation fail, in Python with a MemoryError.
Nothing in the process can be relied on after that, so it ends at once, and the step is tried in other processes like
every step that takes its worker with it.
"""

from contextlib import suppress

import structlog

from workers.leases import end_process

with suppress(ImportError):  # POSIX only
    import resource

_log = structlog.get_logger()


def limit(size: int) -> None:
    """Let this process hold ``size`` bytes at most; 0, and a system without such limits, leave it as it is."""
    if size and "resource" in globals():
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        lower = size if hard == resource.RLIM_INFINITY else min(size, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (lower, hard))


def run_out(step: str) -> None:
    """A MemoryError has come up in ``step``: end this process."""
    with suppress(MemoryError):
        _log.error("out_of_memory", step=step)
    end_process()
