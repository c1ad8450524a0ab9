"""The servers Millrace stands on, and its own start and stop."""

from domain.errors import MillraceError


class ShuttingDown(MillraceError):
    """The server is being stopped and cannot wait for the rest of the upload; {kept}."""

    code, status, retryable = "shutting_down", 503, True
    ru = "Сервер останавливается и не может дождаться остатка загрузки: {kept}."


class TicketsUnavailable(MillraceError):
    """Tickets can neither be made nor checked just now; send the access token as a header, or try again."""

    code, status, retryable = "tickets_unavailable", 503, True
    ru = "Сейчас нельзя ни выдать, ни проверить билет; пришлите токен в заголовке или повторите позже."


class DatabaseUnavailable(MillraceError):
    """The database cannot be reached just now; nothing was changed, try again."""

    code, status, retryable = "database_unavailable", 503, True
    ru = "База данных сейчас недоступна; ничего не изменено, повторите запрос."


class StorageUnavailable(MillraceError):
    """The object storage cannot be reached just now; nothing was kept, try again."""

    code, status, retryable = "storage_unavailable", 503, True
    ru = "Хранилище объектов сейчас недоступно; ничего не сохранено, повторите запрос."


class ObjectMissing(MillraceError):
    """The stored object is gone."""

    code, status = "object_missing", 410
    ru = "Сохранённый объект пропал."


class BadSetting(MillraceError):
    """{name}: {reason}"""

    code = "bad_setting"
    ru = "{name}: {reason}"
