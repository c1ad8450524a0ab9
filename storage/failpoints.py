"""Named places where a test may stop a process: every gap between object storage, commit, publish and acknowledgement.

``reached("order.committed")`` does nothing unless MILLRACE_FAILPOINTS is set, which production refuses. It holds rules,

    MILLRACE_FAILPOINTS=step.claimed=kill@1,publish.before=exit@3,outcome.committed=pause:5@2,publish.after=raise@every

or the path of a folder, in which each file is one rule for the place of its name (``step.claimed`` holds ``kill@1``),
so that a test arms and disarms a running process. A rule acts the nth time its place is reached in a process, and only
once among all of them, so that the process started again does not die again; ``every`` acts each time. With ``~`` and
a word (``kill@every~parse``) it acts only where that word is what the place is about: a job's id, a step's name. What
has acted is noted in ``<place>.fired`` in that folder (for rules: MILLRACE_DATA_DIR/failpoints), one line with process
id and time.
"""

import os
import signal
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from domain.errors.neighbours import BadSetting

VARIABLE = "MILLRACE_FAILPOINTS"
ACTIONS = ("kill", "segfault", "exit", "memory", "pause", "stop", "raise")
EXIT_CODE = 70
RUNAWAY = 2**32  # bytes, twice what STEP_MEMORY_BYTES allows as it is shipped

# The one list of places, in the order of a job's way.
PLACES: Mapping[str, str] = {
    "order.stored": "The upload is whole in the object storage, and no row names it.",
    "order.committed": "The job is committed, and its message is not sent.",
    "order.published": "The message of the new job is sent, and the client has no answer.",
    "publish.before": "A message is about to be handed to the broker, by whichever process.",
    "publish.after": "The broker has the message, and the sender does not know yet.",
    "step.claimed": "A worker's claim is committed, and nobody has been told.",
    "step.running": "The step's function is about to run: what happens here happens in the step.",
    "submit.before": "The request to the ML service is about to be sent.",
    "submit.after": "The ML service has answered, and nothing of it is recorded.",
    "outcome.before": "The step's function has returned, and its outcome is not committed.",
    "effects.written": "The step's effects are written in a transaction that is still open.",
    "outcome.committed": "The step's outcome is committed, and its event not announced.",
    "outcome.announced": "The event is announced, and the message not acknowledged.",
    "signal.committed": "The ML service's completion is committed, and the next step's message not sent.",
    "mail.stored": "A message's audio is in the object storage, and no row names it.",
    "mail.committed": "The recordings of a message are committed, and its after-action is not done.",
    "mail.acted": "The after-actions of some messages are done, and nothing says so.",
    "sweep.marked": "The sweep has marked the jobs that are due, and has sent no message.",
}


class FailpointReached(RuntimeError):
    """The action `raise`."""


class Rule(NamedTuple):
    action: str
    seconds: float  # of `pause`
    nth: int  # time in a process; 0 is every time
    about: str  # only where the place is about this; empty is everywhere


def reached(place: str, *about: object) -> None:
    """Say that the process is at ``place``, one of PLACES, and what it is about there."""
    if _armed is not None:
        _armed.reached(place, about)


def read_rule(text: str) -> Rule:
    """``kill``, ``kill@3``, ``pause:0.5@every~parse`` as a rule.

    Raises:
        ValueError: it is none.
    """
    what, _, rest = text.strip().partition("@")
    when, _, about = rest.partition("~")
    action, _, seconds = what.partition(":")
    if action not in ACTIONS:
        raise ValueError(f"unknown action {action!r}; there are {', '.join(ACTIONS)}")
    return Rule(action, float(seconds or 0), 0 if when == "every" else int(when or 1), about)


class Armed:
    """The rules of this process, and the folder it shares with the others."""

    def __init__(self, rules: Mapping[str, Rule], folder: Path, *, live: bool) -> None:
        """``live``: the folder's files are rules too, read each time."""
        self._rules, self._folder, self._live = rules, folder, live
        self._counts: Counter[tuple[str, int]] = Counter()
        folder.mkdir(parents=True, exist_ok=True)

    def reached(self, place: str, about: tuple[object, ...]) -> None:
        if place not in PLACES:
            raise LookupError(f"failpoint {place!r} is not in PLACES")
        rule, armed_at = self._live_rule(place) if self._live else (self._rules.get(place), 0)
        if rule is None or (rule.about and rule.about not in map(str, about)):
            return
        self._counts[place, armed_at] += 1
        if rule.nth not in (0, self._counts[place, armed_at]) or not self._first(place, rule):
            return
        _act(rule, place)

    def _live_rule(self, place: str) -> tuple[Rule | None, int]:
        path = self._folder / place
        try:
            return read_rule(path.read_text()), path.stat().st_mtime_ns
        except FileNotFoundError:
            return None, 0

    def _first(self, place: str, rule: Rule) -> bool:
        """Note that the rule acts; False when another process was quicker."""
        once = 0
        if rule.nth and self._live:
            try:
                (self._folder / place).unlink()
            except FileNotFoundError:
                return False
        elif rule.nth:
            once = os.O_EXCL
        with suppress(FileExistsError):
            noted = os.open(self._folder / f"{place}.fired", os.O_CREAT | os.O_APPEND | os.O_WRONLY | once, 0o600)
            try:
                os.write(noted, f"{os.getpid()} {time.time()}\n".encode())
            finally:
                os.close(noted)
            return True
        return False


def _act(rule: Rule, place: str) -> None:
    match rule.action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            signal.signal(signal.SIGSEGV, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGSEGV)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "exit":
            os._exit(EXIT_CODE)
        case "memory":
            bytearray(RUNAWAY)  # never touched, so it costs nothing where nothing forbids it
        case "pause":
            time.sleep(rule.seconds)
        case _:
            raise FailpointReached(place)


def armed(environ: Mapping[str, str]) -> Armed | None:
    """What the environment asks for; None, as a rule.

    Raises:
        BadSetting: it cannot be read, names an unknown place, or this is production.
    """
    text = environ.get(VARIABLE, "")
    if not text:
        return None
    if environ.get("MILLRACE_ENV", "production") == "production":
        raise BadSetting(name=VARIABLE, reason="must not be set in production")
    if os.sep in text:
        return Armed({}, Path(text), live=True)
    try:
        rules = {place.strip(): read_rule(rule) for place, _, rule in (one.partition("=") for one in text.split(","))}
    except ValueError as error:
        raise BadSetting(name=VARIABLE, reason=str(error)) from None
    if unknown := rules.keys() - PLACES.keys():
        raise BadSetting(name=VARIABLE, reason=f"no such place: {', '.join(sorted(unknown))}")
    return Armed(rules, Path(environ.get("MILLRACE_DATA_DIR", ".millrace")) / "failpoints", live=False)


_armed = armed(os.environ)
