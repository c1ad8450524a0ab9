"""The way into a mailbox: a checked address, verified TLS, and a login that is told from a passing fault.

The name is resolved once and every address checked; the connection goes to what was checked, the certificate is held
against the name. A server may be hostile: what it announces to send is bounded before it is read.
"""

import ast
import imaplib
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from imapclient import IMAPClient, exceptions

from domain.errors.recordings import MailboxInsecure, MailboxLoginRefused, MailboxRefused, MailboxUnreachable
from domain.errors.webhooks import HostUnknown, UrlRefused
from domain.recordings.mailboxes import Auth, Security
from storage import addresses
from storage.configuration import settings
from storage.recordings import sealing
from storage.recordings.mailboxes import Access

CONNECT_SECONDS = 10.0  # for one address of several
LONGEST_LITERAL = 16 * 1024**2  # bytes; four times what is asked for at once
LONGEST_ANSWER = 32 * 1024**2  # bytes, of all lines and literals that answer one command
# Of a server that is busy, or that somebody has to look at: the password may well be right (RFC 5530). ALERT is none
# of them: it says that a person shall read the text (RFC 9051, 7.1), which of Gmail's tells of either.
_PASSING = re.compile(
    r"\[(UNAVAILABLE|INUSE|LIMIT|SERVERBUG|CONTACTADMIN)\b"
    r"|\btoo many\b|\btemporar|\btry again later\b|\blimits? exceeded\b|\bexceeded [\w ]*limits?\b",
    re.IGNORECASE,
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class _TooLong(imaplib.IMAP4.abort):
    """What was read of the answer has no end; the connection is of no use any more, because the rest follows."""


class _Connection(imaplib.IMAP4):
    """imaplib's protocol on a socket that goes where it was told to."""

    _taken = 0  # bytes of the answer to the present command

    def __init__(self, host: str, port: int, found: list[str], context: ssl.SSLContext | None, seconds: float) -> None:
        self._found, self._context, self._seconds = found, context, seconds
        super().__init__(host, port)

    def _create_socket(self, timeout: float | None = None) -> socket.socket:
        failed: OSError = OSError("no address")
        for address in self._found:
            try:
                plain = socket.create_connection((address, self.port), CONNECT_SECONDS)
                break
            except OSError as error:
                failed = error
        else:
            raise failed
        plain.settimeout(self._seconds)
        if self._context is None:
            return plain
        try:
            return self._context.wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise

    def read(self, size: int) -> bytes:
        """A literal. imaplib would take whatever length the server says."""
        if size > LONGEST_LITERAL:
            raise _TooLong(f"a literal of {size} bytes was announced")
        return self._counted(super().read(size))

    def readline(self) -> bytes:
        try:
            return self._counted(super().readline())
        except self.abort:
            raise
        except self.error as error:  # of imaplib's own, at a million bytes: to it the connection is still of use
            raise _TooLong(str(error)) from None

    def _counted(self, data: bytes) -> bytes:
        self._taken += len(data)
        if self._taken > LONGEST_ANSWER:
            raise _TooLong(f"an answer of more than {LONGEST_ANSWER} bytes")
        return data

    def _new_tag(self) -> bytes:
        self._taken = 0
        tag: bytes = super()._new_tag()  # type: ignore[misc]  # typeshed leaves it out
        return tag


class _Client(IMAPClient):  # type: ignore[misc]  # the library has no types
    def __init__(self, access: Access, found: list[str]) -> None:
        self._access, self._found = access, found
        tls = access.security is Security.TLS
        super().__init__(access.host, access.port, ssl=tls, timeout=settings().mailbox_seconds)
        self.normalise_times = False  # times with their zones
        self._imap.debug = 0  # the library has everything that comes written into strings, for a log nobody keeps

    def _create_IMAP4(self) -> imaplib.IMAP4:  # noqa: N802  # the library's name
        context = ssl.create_default_context() if self.ssl else None
        return _Connection(self.host, self.port, self._found, context, settings().mailbox_seconds)


def check(host: str, port: int, security: Security) -> list[str]:
    """The addresses of a mail server that may be connected to.

    Raises:
        MailboxInsecure, UrlRefused, HostUnknown: with the field.
    """
    if security is Security.NONE and not settings().mailbox_plaintext:
        raise MailboxInsecure(field="security")
    try:
        return addresses.resolved(host, port, settings().mailbox_rules, settings().mailbox_seconds)
    except HostUnknown as error:
        raise HostUnknown(field="host", host=host) from error
    except UrlRefused as error:
        raise UrlRefused(field="host", reason=error.details["reason"]) from error


def logged_in(access: Access) -> IMAPClient:
    """A client that is logged in.

    Raises:
        MailboxInsecure, UrlRefused, HostUnknown: by today's rules, or for what its name means today.
        MailboxUnreachable
        MailboxLoginRefused
        sealing.Unreadable: the secret was encrypted with another key.
    """
    secret = sealing.unseal(access.secret)
    found = check(access.host, access.port, access.security)
    with translated():
        client = _Client(access, found)
    try:
        with translated():
            if access.security is Security.STARTTLS:
                client.starttls(ssl.create_default_context())
        _log_in(client, access, secret)
    except BaseException:
        hang_up(client)
        raise
    return client


def _log_in(client: IMAPClient, access: Access, secret: str) -> None:
    """LOGIN as long as it can say the name and the password, which is in ASCII; else SASL's PLAIN (RFC 4616)."""
    if _CONTROL.search(access.username + secret):
        raise MailboxLoginRefused(reason="there are control characters in the user's name or in the secret")
    try:
        if access.auth is Auth.XOAUTH2:
            client.oauth2_login(access.username, secret)
        elif (access.username + secret).isascii() and not client.has_capability("LOGINDISABLED"):
            client.login(_quoted(access.username), secret)  # imaplib quotes only the second
        elif client.has_capability("AUTH=PLAIN"):
            client.plain_login(access.username, secret)
        else:
            raise MailboxLoginRefused(reason="the server takes no name or password beyond ASCII (AUTH=PLAIN)")
    except exceptions.LoginError as error:
        _judge(error, secret)
    except (imaplib.IMAP4.error, OSError) as error:
        raise MailboxUnreachable(reason=reason_of(error)) from error


def _quoted(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _judge(error: exceptions.LoginError, secret: str) -> NoReturn:
    said = reason_of(error, secret)
    # a connection that broke off is a refusal to the library
    if isinstance(error.__context__, imaplib.IMAP4.abort) or _PASSING.search(said):
        raise MailboxUnreachable(reason=said) from None
    raise MailboxLoginRefused(reason=said) from None


@contextmanager
def translated() -> Iterator[None]:
    """Raises MailboxUnreachable where the connection is lost, MailboxRefused where the server says no."""
    try:
        yield
    except (imaplib.IMAP4.abort, OSError) as error:
        raise MailboxUnreachable(reason=reason_of(error)) from error
    except imaplib.IMAP4.error as error:
        raise MailboxRefused(reason=reason_of(error)) from error


def too_long(error: BaseException) -> bool:
    """Whether the connection was given up because an answer went beyond what is read."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, _TooLong):
        cause = cause.__cause__ or cause.__context__
    return cause is not None


def reason_of(error: BaseException, secret: str = "") -> str:
    """What the server said, or what happened. imaplib raises the server's bytes as they are, as ``b'...'`` in words."""
    said = str(error) or type(error).__name__
    if said[:2] in ("b'", 'b"'):
        with suppress(SyntaxError, ValueError):
            said = ast.literal_eval(said).decode(errors="replace")
    return (said.replace(secret, "***") if secret else said)[:300].replace("\0", "\ufffd")


def hang_up(client: IMAPClient) -> None:
    with suppress(OSError, imaplib.IMAP4.error):
        client.shutdown()
