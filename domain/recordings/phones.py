"""Telephone numbers in one form, so that two ways to write one number are equal: E.164, ``+74951234567``.

The rules of countries are those of Google's libphonenumber (``phonenumbers``). Internal numbers (``101``) and SIP
addresses are no telephone numbers: they stay what they are, beside.
"""

import re

import phonenumbers
from phonenumbers import NumberParseException, PhoneNumberFormat, ValidationResult

REGION = "RU"
LONGEST = 64  # characters; no way to write a number has more

# What people and exchanges put into a number. The library would find one in "flat 12, +7 495 ..." as well, and spell
# 1-800-FLOWERS: here a text that is more than a number is none.
_WRITTEN = re.compile(r"\s*(\+?[\d\s().~/\u2010-\u2015-]+)(?:(?:доб|ext|#|,|;)[.:\s]*\d{1,8})?\s*", re.IGNORECASE)


def normalised(text: str | None, region: str = REGION) -> str | None:
    """The number in E.164; None for what is none: internal numbers, SIP addresses, "anonymous".

    Without a plus a number is first read as one of ``region`` (in Russia 8XXXXXXXXXX, 7XXXXXXXXXX and the ten digits
    alone are +7XXXXXXXXXX) and, if it is too long for that, as an international one whose plus was left out. An
    extension behind the number is dropped. What is judged is the length and not whether the number is in use: operators
    are given new ranges before the library knows.
    """
    if text is None or len(text) > LONGEST or not (found := _WRITTEN.fullmatch(text)):
        return None
    digits = re.sub(r"\D", "", found[1])
    for written in (found[1], f"+{digits}"):
        try:
            number = phonenumbers.parse(written, region)
        except NumberParseException:
            continue
        if phonenumbers.is_possible_number_with_reason(number) == ValidationResult.IS_POSSIBLE:
            return phonenumbers.format_number(number, PhoneNumberFormat.E164)
    return None
