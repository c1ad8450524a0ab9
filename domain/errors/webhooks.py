"""What may be called on behalf of a user, and how often."""

from domain.errors import MillraceError


class UrlRefused(MillraceError):
    """This URL may not be called: {reason}."""

    code, status = "url_refused", 422
    ru = "Этот адрес нельзя вызывать: {reason}."


class HostUnknown(UrlRefused):
    """The name {host!r} has no address."""

    code, status, retryable = "host_unknown", 422, True
    ru = "У имени {host!r} нет адреса."


class TooManyWebhooks(MillraceError):
    """The account has {limit} webhooks already; delete one first."""

    code, status = "too_many_webhooks", 409
    ru = "У учётной записи уже {limit} вебхуков; сначала удалите один."
