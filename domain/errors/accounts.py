"""Who asks, and what an account may do."""

from domain.errors import MillraceError


class NotAuthenticated(MillraceError):
    """A valid access token is needed: send it as `Authorization: Bearer <token>`."""

    code, status = "not_authenticated", 401
    ru = "Нужен действующий токен доступа: пришлите его как `Authorization: Bearer <токен>`."


class WrongCredentials(MillraceError):
    """The username or the password is wrong."""

    code, status = "wrong_credentials", 401
    ru = "Неверное имя пользователя или пароль."


class Forbidden(MillraceError):
    """This needs the role `{role}`."""

    code, status = "forbidden", 403
    ru = "Для этого нужна роль `{role}`."


class CrossSiteRequest(MillraceError):
    """The session cookie is taken from this site's own pages only; others send `Authorization: Bearer <token>`."""

    code, status = "cross_site_request", 403
    ru = "Cookie сеанса принимается только от страниц этого же сайта; другие присылают `Authorization: Bearer <токен>`."


class AlreadyTaken(MillraceError):
    """This {field} is already taken."""

    code, status = "already_taken", 409
    ru = "Значение поля {field} уже занято."


class AccountInUse(MillraceError):
    """The account still owns {what}; remove them first."""

    code, status = "account_in_use", 409
    ru = "У учётной записи ещё есть данные ({what}); сначала удалите их."


class LastAdmin(MillraceError):
    """This is the last admin; give the role to another account first."""

    code, status = "last_admin", 409
    ru = "Это последний администратор; сначала дайте эту роль другой учётной записи."


class RateLimited(MillraceError):
    """Too many requests; try again in {seconds} s."""

    code, status, retryable = "rate_limited", 429, True
    ru = "Слишком много запросов; повторите через {seconds} с."


class TooManyStreams(MillraceError):
    """{limit} streams of this account are open already; close one first."""

    code, status, retryable = "too_many_streams", 429, True
    ru = "Открыто уже {limit} потоков этой учётной записи; сначала закройте один."
