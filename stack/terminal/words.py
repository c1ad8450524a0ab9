"""What the API names and what the engine says of a job, in the language of the terminal's owner.

The console has the table of these words (``api/console/words.js``): there is no second one to keep equal. In English
the API's own names are said, as scripts and the documentation know them.
"""

import re
from functools import cache
from importlib.resources import files

from stack.terminal.text import language

_FAMILIES = ("status_", "stage_", "said_")
_OWN = {"created": "Создана", "upload": "Отправка"}  # what the console has no word for
_PLACE = re.compile(r"\\\{(\w+)\\\}")


@cache
def words() -> dict[str, dict[str, str]]:
    """What each language says, by key: those keys that speak of jobs."""
    found: dict[str, dict[str, str]] = {}
    for line in files("api").joinpath("console/words.js").read_text(encoding="utf-8").splitlines():
        if opened := re.fullmatch(r"  (\w\w): \{", line):
            found[opened[1]] = {}
        elif (said := re.fullmatch(r'    (\w+): "(.+)",', line)) and said[1].startswith(_FAMILIES):
            list(found.values())[-1][said[1]] = said[2]
    return found


def word(name: str) -> str:
    """For a state, a stage or what has happened; the name as it is where there is none."""
    if language() == "en":
        return name
    table = words()[language()]
    return table.get(f"status_{name}") or table.get(f"stage_{name}") or _OWN.get(name, name)


def retold(message: str) -> str:
    """A sentence of the engine's; one of the ML service's, which may say what it likes, stays as it came."""
    if language() == "en":
        return message
    for key, sentence in words()["en"].items():
        if key.startswith("said_"):
            found = re.fullmatch(_PLACE.sub(r"(?P<\1>[\\d ,.]+)", re.escape(sentence)), message)
            if found:
                return words()[language()][key].format_map(found.groupdict())
    return message
