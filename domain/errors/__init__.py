"""Every error Millrace names, in one tree.

A class's docstring is its message (``{placeholders}`` are filled from the keyword arguments it is raised with), ``ru``
is the same sentence in Russian, ``code`` is the stable word clients match on, ``status`` the HTTP status it maps to and
``retryable`` whether the same request or job could succeed later without being changed. One handler in ``api`` turns
them into RFC 9457 problems; the engine writes the same ``code`` into a failed job. ``docs/errors.md`` is made from it.
Each subject has a module of its own below.
"""

import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from string import Formatter
from typing import Any, ClassVar

from domain.errors import reasons

# What becomes of an upload that ShuttingDown or UploadTooSlow cuts off
NOTHING_KEPT = "nothing was kept, send it again"
BEGINNING_KEPT = "what came is kept, ask where it stands and go on from there"

# What the errors below speak of; everything else in their details is data and stays as it is.
_RUSSIAN = {
    "account": "учётная запись",
    "archive in this job": "архив в этой задаче",
    "archive listing": "опись архива",
    "entry in this archive": "запись в этом архиве",
    "bytes": "байт",
    "call": "звонок",
    "delivery": "доставка",
    "file": "файл",
    "files": "файлов",
    "job": "задача",
    NOTHING_KEPT: "ничего не сохранено, отправьте ещё раз",
    BEGINNING_KEPT: "то, что пришло, сохранено; узнайте, где она стоит, и продолжайте оттуда",
    "mailbox": "почтовый ящик",
    "recording": "запись разговора",
    "results": "результаты",
    "submission": "отправка в ML-сервис",
    "upload": "загрузка",
    "webhook": "вебхук",
}


def _in_russian(name: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return reasons.in_russian(value) if name == "reason" else _RUSSIAN.get(value, value)


class MillraceError(Exception):
    """Something went wrong on our side; the request id finds it in the logs."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    ru: ClassVar[str] = "Внутренняя ошибка; по идентификатору запроса её можно найти в журнале."

    def __init__(self, *, field: str | None = None, retry_after: float | None = None, **details: Any) -> None:
        """``field`` names the offending input, ``retry_after`` is in seconds, the rest fills the message."""
        super().__init__(details)
        self.field = field
        self.retry_after = retry_after
        self.details = details

    def message(self, language: str = "en") -> str:
        details = {"field": self.field, **self.details}
        if language == "ru":
            return type(self).ru.format_map({name: _in_russian(name, value) for name, value in details.items()})
        return (type(self).__doc__ or "").strip().format_map(details)

    def __str__(self) -> str:
        return self.message()


def retold(code: str, message: str, language: str) -> str:
    """The English sentence of a stored error in another language; as it is where it is none of this tree's."""
    error = next((error for error in tree() if error.code == code), None)
    if language != "ru" or error is None:
        return message
    read = re.fullmatch(
        "".join(
            re.escape(text) + (f"(?P<{name}>.*)" if name else "")
            for text, name, _, _ in Formatter().parse((error.__doc__ or "").strip())
        ),
        message,
        re.DOTALL,
    )
    if read is None:
        return message
    return "".join(
        text + (_in_russian(name, read[name]) if name else "") for text, name, _, _ in Formatter().parse(error.ru)
    )


def tree(root: type[MillraceError] = MillraceError) -> Iterator[type[MillraceError]]:
    """Every error class, parents before children, subject by subject."""
    _load()
    yield root
    for child in sorted(root.__subclasses__(), key=lambda child: child.__module__):
        yield from tree(child)


@cache
def _load() -> None:
    for module in iter_modules(__path__):  # each subject is a module of its own; nothing lists them
        import_module(f"{__name__}.{module.name}")
