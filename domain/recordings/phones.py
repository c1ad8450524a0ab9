"""Telephone numbers as E.164."""

import re


def normalised(text: str, region: str = "RU") -> str | None:
    """A stand-in."""
    digits = re.sub(r"\D", "", text)
    if len(digits) == 11 and digits[0] in "78":
        return f"+7{digits[1:]}"
    return f"+{digits}" if 8 <= len(digits) <= 15 else None
