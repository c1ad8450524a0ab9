"""Whether the process that holds a claim is gone, as far as it can be known from here."""

import os
import signal
import subprocess
import sys

from workers import holders


def name_of(pid: int) -> str:
    here, _, _ = holders.own_name().rpartition(":")
    return f"{here}:{pid}"


def test_a_process_that_runs_is_not_gone() -> None:
    assert not holders.is_gone(holders.own_name())
    assert not holders.is_gone(name_of(1)), "whoever it belongs to"


def test_a_killed_process_is_gone_before_its_parent_has_noticed() -> None:
    """Celery's main process may take seconds to look after a dead child."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert not holders.is_gone(name_of(process.pid))
    os.kill(process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it is dead, and remains a zombie
    if sys.platform == "linux":
        assert holders.is_gone(name_of(process.pid))
    process.communicate()
    assert holders.is_gone(name_of(process.pid))


def test_nothing_is_known_of_a_process_elsewhere() -> None:
    assert not holders.is_gone("another-host/pid:[4026531836]:999999999")
    assert not holders.is_gone("w1")
