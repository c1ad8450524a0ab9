"""Sentences in the language of the terminal's owner, and other people's texts made harmless."""

import os


def language() -> str:
    """`ru` or `en`, by the first of LC_ALL, LC_MESSAGES and LANG that is set (POSIX, 8.2)."""
    named = next(filter(None, map(os.environ.get, ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
    return "ru" if named.lower().startswith("ru") else "en"


def worded(en: str, ru: str) -> str:
    """The one of the two that is asked for."""
    return ru if language() == "ru" else en


def harmless(text: str | None) -> str:
    """One line without control characters: a title or a file's name must not move the cursor or colour the screen."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text or "")
