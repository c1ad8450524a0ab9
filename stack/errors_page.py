"""docs/errors.md, made from the error tree: ``python -m stack.errors_page > docs/errors.md``. A test compares them."""

import re
import sys
from collections.abc import Iterable

from domain.errors import MillraceError, tree
from domain.errors.jobs import StepFailed
from domain.errors.neighbours import BadSetting

_INTRODUCTION = """\
<!-- Made by `python -m stack.errors_page > docs/errors.md`; change domain/errors/, not this page. -->
# Error codes

A code is stable: match on it, not on the sentence. It stands in `code` of every problem answer
(`application/problem+json`, RFC 9457) and in `error.code` of every failed job. Words in *italics* are filled in.
*Retry* says whether the same request or job may succeed later without being changed; the engine retries such failures
of a step by itself, and when its attempts are used up the job fails with that code.

The problem's `type` leads to the same list in the running API, at `/docs/errors`. With `Accept-Language: ru` the
sentence comes in Russian.
"""
_PLACEHOLDER = re.compile(r"`?\{(\w+)(?:![rs])?\}`?")


def render() -> str:
    """The page as Markdown."""
    errors = list(dict.fromkeys(tree()))
    jobs = [error for error in errors if issubclass(error, StepFailed)]
    start = [error for error in errors if issubclass(error, BadSetting)]
    requests = [error for error in errors if error not in jobs and error not in start]
    sections = (
        ("Answers of the API", "A job ends with one of these too, when a step meets it to the last.", requests),
        ("What ends a job", "As `error.code` of the job; `error.stage` says in which step.", jobs),
        ("At start", "The process ends with this one line.", start),
    )
    return "\n".join([_INTRODUCTION, *(_section(*section) for section in sections)])


def _section(title: str, note: str, errors: Iterable[type[MillraceError]]) -> str:
    head = "| code | status | retry | message |\n|---|---|---|---|"
    rows = "\n".join(_row(error) for error in errors)
    return f"## {title}\n\n{note}\n\n{head}\n{rows}\n"


def _row(error: type[MillraceError]) -> str:
    message = _PLACEHOLDER.sub(r"*\1*", (error.__doc__ or "").strip()).replace("|", "\\|")
    retry = "yes" if error.retryable else "no"
    return f'| <a id="{error.code}"></a>`{error.code}` | {error.status} | {retry} | {message} |'


if __name__ == "__main__":
    sys.stdout.write(render())
