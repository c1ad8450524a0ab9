"""Capabilities and which of them are switched on.

A capability is one word that stands in ``domain`` and on at least one floor where something happens (``api``,
``workers``): ``domain/jobs.py``, ``storage/jobs.py``, ``api/jobs.py``, ``workers/jobs.py``. Nothing lists them; a floor
looks its words up by name.
"""

from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from types import ModuleType

from domain.errors.neighbours import BadSetting

CORE = ("accounts", "files", "jobs")


def known() -> tuple[str, ...]:
    """Every capability there is, the core first."""
    acting = _words("api") | _words("workers")
    return CORE + tuple(sorted((_words("domain") & acting) - set(CORE)))


def enabled(chosen: Iterable[str]) -> tuple[str, ...]:
    """The core and the chosen capabilities with what they require; choosing none switches every one on.

    Raises:
        BadSetting: a name is not known; the message says which are.
    """
    names = known()
    wanted = list(chosen) or list(names)
    for word in wanted:  # grows while it is read: what is required may require more
        if word not in names:
            raise BadSetting(name="MILLRACE_MODULES", reason=f"{word!r} is not one of {', '.join(names)}")
        needed = getattr(import_module(f"domain.{word}"), "requires", ())
        wanted.extend(other for other in needed if other not in wanted)
    return tuple(word for word in names if word in CORE or word in wanted)


def floor(name: str, words: Iterable[str]) -> list[ModuleType]:
    """The modules of the floor ``name`` (``api``, ``storage``, ...) for these words, those that exist."""
    present = _words(name)
    return [import_module(f"{name}.{word}") for word in words if word in present]


def _words(package: str) -> set[str]:
    spec = find_spec(package)
    locations = spec.submodule_search_locations if spec else None
    return {module.name for module in iter_modules(locations or [])}
