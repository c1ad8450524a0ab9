"""The error tree keeps its promises: stable codes, one sentence in each of two languages, a status that fits."""

import string
from http import HTTPStatus
from typing import Any

import pytest

from domain.errors import MillraceError, retold, tree
from domain.errors.accounts import RateLimited
from domain.errors.requests import Conflict, NotFound

ERRORS = list(dict.fromkeys(tree()))


def _placeholders(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def test_every_code_belongs_to_one_class() -> None:
    # a parent only named to catch its children may share nothing either: clients match on the code
    codes = [error.code for error in ERRORS]
    assert sorted(codes) == sorted(set(codes))


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.code)
def test_an_error_says_one_thing_in_two_languages(error: type[MillraceError]) -> None:
    english, russian = (error.__doc__ or "").strip(), error.ru
    assert english, "the docstring is the message"
    assert "\n" not in english
    assert _placeholders(english) == _placeholders(russian)
    assert "ru" in vars(error), "a child needs a sentence of its own"
    assert (
        russian == "{reason}"
        or russian == "{name}: {reason}"
        or any("а" <= letter <= "я" for letter in russian.lower())
    )


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.code)
def test_a_code_is_a_plain_word_and_the_status_an_error(error: type[MillraceError]) -> None:
    assert error.code.replace("_", "").isalpha()
    assert error.code == error.code.lower()
    # 460 is tus 1.0.0's own (checksum extension), and so in no registry
    assert error.status == 460 or 400 <= HTTPStatus(error.status) < 600


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.code)
def test_the_message_is_filled_from_what_it_was_raised_with(error: type[MillraceError]) -> None:
    names = _placeholders(error.__doc__ or "") - {"field"}
    raised = error(field="x", **dict.fromkeys(names, "seventeen"))
    for language in ("en", "ru"):
        assert "{" not in raised.message(language)
        assert all("seventeen" in raised.message(language) for _ in names)


def test_the_arguments_stay_apart_from_the_sentence() -> None:
    error = RateLimited(seconds=7, retry_after=7.0, field="username")
    assert (error.field, error.retry_after, error.details) == ("username", 7.0, {"seconds": 7})
    assert str(error) == "Too many requests; try again in 7 s."
    assert NotFound(what="job").message("ru") == "Не найдено: задача."


def test_a_brace_in_an_argument_is_text() -> None:
    assert str(Conflict(reason="{this} is {0}")) == "{this} is {0}"


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.code)
def test_a_stored_sentence_can_be_told_in_russian(error: type[MillraceError]) -> None:
    """A failed job keeps its sentence in English, and not what it was made of."""
    values: dict[str, Any] = {
        name: f"a {name} (of: several) 'words'" for name in _placeholders((error.__doc__ or "").strip())
    }
    made = error(**values)
    assert retold(error.code, made.message(), "ru") == made.message("ru")
    assert retold(error.code, made.message(), "en") == made.message()


def test_a_sentence_that_is_not_the_trees_stays_as_it_is() -> None:
    assert retold("step_failed", "Something else.", "ru") == "Something else."
    assert retold("of_an_older_release", "Something else.", "ru") == "Something else."
