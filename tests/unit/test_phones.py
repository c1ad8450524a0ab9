"""Two ways to write one number are equal, and what is no number is none."""

import pytest

from domain.recordings.phones import normalised


@pytest.mark.parametrize(
    "written",
    [
        "74951234567",
        "84951234567",
        "+74951234567",
        "4951234567",
        "8 (495) 123-45-67",
        "+7 495 123 45 67",
        "  7.495.123.45.67 ",
        "8\u2011495\u2011123\u201145\u201167",
        "+7 (495) 123-45-67 доб. 101",
        "84951234567#12",
    ],
)
def test_a_russian_number_however_it_is_written(written: str) -> None:
    assert normalised(written) == "+74951234567"


@pytest.mark.parametrize(
    ("written", "region", "number"),
    [
        ("88005553535", "RU", "+78005553535"),
        ("79001234567", "RU", "+79001234567"),
        ("375291234567", "RU", "+375291234567"),
        ("+375 29 123-45-67", "RU", "+375291234567"),
        ("12025550123", "RU", "+12025550123"),
        ("810375291234567", "RU", "+375291234567"),
        ("77011234567", "RU", "+77011234567"),
        ("0301234567", "DE", "+49301234567"),
        ("12025550123 ext. 5", "RU", "+12025550123"),
    ],
)
def test_other_numbers(written: str, region: str, number: str) -> None:
    assert normalised(written, region) == number


@pytest.mark.parametrize(
    "written",
    [
        None,
        "",
        " ",
        "101",
        "112",
        "1234567",
        "sip:anna@clinic.example",
        "sip:74951234567@clinic.example",
        "anonymous",
        "аноним",
        "1-800-FLOWERS",
        "кв. 12, 84951234567",
        "84951234567, 84957654321",
        "+",
        "8" * 40,
        "8" * 1000,
        "٠",
    ],
)
def test_what_is_no_telephone_number(written: str | None) -> None:
    assert normalised(written) is None


def test_a_normalised_number_stays_as_it_is() -> None:
    for written in ("84951234567", "375291234567", "12025550123"):
        once = normalised(written)
        assert normalised(once) == once
