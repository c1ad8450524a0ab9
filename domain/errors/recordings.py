"""Mailboxes, recordings, calls and what the telephone exchange says."""

from domain.errors import MillraceError
from domain.errors.jobs import StepFailed


class MailboxInsecure(MillraceError):
    """A mailbox without TLS is not allowed in this installation (MAILBOX_PLAINTEXT)."""

    code, status = "mailbox_insecure", 422
    ru = "Почтовый ящик без TLS в этой установке не разрешён (MAILBOX_PLAINTEXT)."


class SignatureRefused(MillraceError):
    """The notification is not signed with the key and the salt that are set here, or none are."""

    code, status = "signature_refused", 403
    ru = "Уведомление подписано не теми ключом и солью, что заданы здесь, или они не заданы."


class SourceRefused(MillraceError):
    """Notifications are not taken from {address}."""

    code, status = "source_refused", 403
    ru = "С адреса {address} уведомления не принимаются."


class MailboxUnreachable(StepFailed):
    """The mail server cannot be reached or breaks off: {reason}"""

    code, status, retryable = "mailbox_unreachable", 503, True
    ru = "Почтовый сервер недоступен или обрывает связь: {reason}"


class MailboxLoginRefused(StepFailed):
    """The mail server refuses the login; the mailbox is disabled until it is given other credentials: {reason}"""

    code, status = "mailbox_login_refused", 422
    ru = "Почтовый сервер отказал во входе; ящик выключен, пока не получит других данных для входа: {reason}"


class MailboxRefused(StepFailed):
    """The mail server refuses: {reason}"""

    code, status = "mailbox_refused", 422
    ru = "Почтовый сервер отказал: {reason}"


class MailboxDisabled(StepFailed):
    """The mailbox is disabled or gone."""

    code, status = "mailbox_disabled", 409
    ru = "Почтовый ящик выключен или удалён."
