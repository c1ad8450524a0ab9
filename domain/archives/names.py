"""Entry names as text.

Only flag bit 11 says what a name is written in (APPNOTE D.1), and most writers before 2007 and many after leave it
unset. What is left is the Unicode Path field (4.6.9), strict UTF-8, which other text almost never satisfies, and
for the rest the two code pages Russian archives were written in, told apart by how Russian the outcome looks.
"""

import re
import zlib
from collections.abc import Iterable

from domain.archives.shapes import shown
from domain.errors.archives import ArchiveInconsistent

_SAMPLE_BYTES = 16 * 1024  # enough letters to decide by; keeps the cost the same for 100,000 names
_OEM_HOSTS = frozenset({0, 6, 11, 14})  # DOS, HPFS, NTFS, VFAT: their archivers write the OEM code page
# letters by frequency in Russian text: the commonest weighs 1, the rarest 0.1
_WEIGHTS = {letter: 1 - 0.9 * rank / 32 for rank, letter in enumerate("оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфъё")}
_NEUTRAL = frozenset("№«»—–…“”’°·\xa0")
_ENDING_BYTES = 10  # that ``_EXTENSION`` looks at, where they are ASCII
_EXTENSION = re.compile(r"\.[a-z0-9]{1,8}/?$", re.ASCII)


def russian(text: str) -> float:
    """How Russian the non-ASCII letters of a name look: about 0.8 for true words, below 0.3 for a wrong code page."""
    total, letters, before = 0.0, 0, " "
    for here, after in zip(text, f"{text[1:]} ", strict=True):
        if here > "\x7f":
            letters += 1
            weight = _WEIGHTS.get(here.lower())
            if weight is None:
                total -= 0.0 if here in _NEUTRAL else 1.5
            elif (here.isupper() and before.islower()) or _latin(before) or _latin(after):
                total -= 1.0  # пРивет, прbвет: two alphabets or cases meet within a word only in a wrong code page
            else:
                total += weight
        before = here
    return total / letters if letters else 0.0


def _latin(letter: str) -> bool:
    return letter.isascii() and letter.isalpha()


def code_page(names: Iterable[bytes], host: int) -> str:
    """The code page of names that are neither marked nor UTF-8: ``cp866``, ``cp1251`` or, if not Russian, ``cp437``.

    One archive was written on one machine, so all its names decide together. ``host`` (APPNOTE 4.4.2) tips the scale.
    """
    sample = _sample(names)
    oem = russian(sample.decode("cp866")) + (0.1 if host in _OEM_HOSTS else 0)
    ansi = russian(sample.decode("cp1251", "replace")) + (0 if host in _OEM_HOSTS else 0.1)
    if max(oem, ansi) < 0.35:
        return "cp437"
    return "cp866" if oem >= ansi else "cp1251"


def _sample(names: Iterable[bytes]) -> bytes:
    sample = bytearray()
    for name in names:
        sample += name + b"\n"
        if len(sample) >= _SAMPLE_BYTES:
            break
    return bytes(sample[:_SAMPLE_BYTES])


def decode(raw: bytes, page: str) -> str:
    try:
        return raw.decode(page)
    except UnicodeDecodeError:  # cp1251 has one hole (0x98)
        return raw.decode("cp437")


def comment_text(raw: bytes) -> str:
    """An archive's comment, which has no flag at all. Controls are dropped: Postgres takes no NUL in text."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = decode(raw, code_page([raw], host=0))
    return "".join(letter for letter in text if letter.isprintable() or letter in "\r\n\t")


def unicode_path(field: bytes, raw: bytes) -> str | None:
    """The name in an Info-ZIP Unicode Path field (0x7075, APPNOTE 4.6.9), None where it is about another raw name.

    Raises:
        ArchiveInconsistent: it is not UTF-8, or names a path of another depth or type than the raw name does.
    """
    if len(field) < 5 or field[0] != 1 or int.from_bytes(field[1:5], "little") != zlib.crc32(raw):
        return None
    encoded = field[5:]
    try:
        name = encoded.decode()
    except UnicodeDecodeError:
        raise ArchiveInconsistent(reason=f"the Unicode name of {shown(raw)!r} is not UTF-8", entry=shown(raw)) from None
    # readers that do not know the field use the raw name: both must at least lie in one place and have one type
    ends_alike = encoded[-_ENDING_BYTES:] == raw[-_ENDING_BYTES:] and encoded[-_ENDING_BYTES:].isascii()
    if encoded.count(b"/") != raw.count(b"/") or not (ends_alike or _ending(name) == _ending(raw.decode("cp437"))):
        raise ArchiveInconsistent(
            reason=f"the entry {shown(raw)!r} has another Unicode name, {shown(name)!r}", entry=shown(raw)
        )
    return name


def _ending(name: str) -> str:
    found = _EXTENSION.search(name.lower())
    return found.group() if found else name[-1:] if name.endswith("/") else ""
