"""What is wrong with a request, whatever it is about."""

from domain.errors import MillraceError


class NotFound(MillraceError):
    """There is no such {what}."""

    code, status = "not_found", 404
    ru = "Не найдено: {what}."


class MethodNotAllowed(MillraceError):
    """This path does not take {method}."""

    code, status = "method_not_allowed", 405
    ru = "Этот путь не принимает {method}."


class MethodUnknown(MillraceError):
    """This is no method of HTTP that is known here."""

    code, status = "method_unknown", 501
    ru = "Такой метод HTTP здесь не известен."


class Invalid(MillraceError):
    """{reason}"""

    code, status = "invalid", 422
    ru = "{reason}"


class MalformedRequest(MillraceError):
    """The request body cannot be read: {reason}"""

    code, status = "malformed_request", 400
    ru = "Тело запроса не читается: {reason}"


class Conflict(MillraceError):
    """{reason}"""

    code, status = "conflict", 409
    ru = "{reason}"


class IdempotencyMismatch(MillraceError):
    """This Idempotency-Key was sent before with another request body; a new request needs a key of its own."""

    code, status = "idempotency_mismatch", 422
    ru = "Этот Idempotency-Key уже приходил с другим телом запроса; новому запросу нужен свой ключ."


class IdempotencyInFlight(MillraceError):
    """The first request with this Idempotency-Key is still being answered; try again in a moment."""

    code, status, retryable = "idempotency_in_flight", 409, True
    ru = "Первый запрос с этим Idempotency-Key ещё обрабатывается; повторите чуть позже."


class BodyTooLarge(MillraceError):
    """The body is larger than the limit of {limit} bytes."""

    code, status = "body_too_large", 413
    ru = "Тело запроса больше предела в {limit} байт."


class UnsupportedMedia(MillraceError):
    """This endpoint takes {expected}, not {received!r}."""

    code, status = "unsupported_media_type", 415
    ru = "Здесь принимается {expected}, а не {received!r}."


class EncodingUnsupported(MillraceError):
    """The body is sent as {encoding!r}; send it as it is, without `Content-Encoding`."""

    code, status = "content_encoding_unsupported", 415
    ru = "Тело прислано в кодировке {encoding!r}; присылайте его как есть, без `Content-Encoding`."


class TransferCodingUnsupported(MillraceError):
    """The body comes under `Transfer-Encoding: {coding}`; of these only `chunked` is understood."""

    code, status = "transfer_coding_unsupported", 501
    ru = "Тело идёт под `Transfer-Encoding: {coding}`; из них понятно только `chunked`."


class ClientGone(MillraceError):
    """The client went away in the middle of the body; nothing was kept."""

    code, status, retryable = "client_gone", 400, True
    ru = "Клиент отключился, не передав тело целиком; ничего не сохранено."


class RangeNotSatisfiable(MillraceError):
    """The requested range lies outside the {size} bytes there are."""

    code, status = "range_not_satisfiable", 416
    ru = "Запрошенный диапазон лежит за пределами файла в {size} байт."
