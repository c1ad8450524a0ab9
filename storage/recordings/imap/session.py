"""One visit to a mailbox."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from typing import Any

from imapclient import IMAPClient, exceptions

from domain.errors import MillraceError
from domain.errors.recordings import MailboxRefused
from domain.recordings.mail import Message, fits, message_of
from domain.recordings.mailboxes import AfterAction, Rules, Skipped
from storage.recordings.imap.connecting import logged_in, translated
from storage.recordings.mailboxes import Access

PIECE = 4 * 1024**2  # bytes of a part that are asked for at once
AT_ONCE = 50  # messages whose descriptions are asked for at once
FOLDERS = 1000
_DESCRIPTION = ("ENVELOPE", "BODYSTRUCTURE", "RFC822.SIZE", "INTERNALDATE")


class Gone(Exception):
    """The message is not there any more."""


@contextmanager
def connected(access: Access) -> Iterator["Session"]:
    """A session in the mailbox; raises as ``connecting.logged_in`` and, within the block, as ``Session`` does."""
    client = logged_in(access)
    try:
        yield Session(client, access)
    finally:
        # a goodbye to a server that has gone is no error, and neither is one it does not understand
        with suppress(Exception):
            client.logout()
        with suppress(Exception):
            client.shutdown()


class Session:
    """Every method raises MailboxUnreachable (the connection is lost) and MailboxRefused (the server says no)."""

    def __init__(self, client: IMAPClient, access: Access) -> None:
        self._client, self._access = client, access
        self.uidvalidity = 0
        self.messages = 0

    def open(self, *, readonly: bool) -> None:
        """The folder; ``uidvalidity`` and ``messages`` (their number) are known then."""
        with translated():
            told = self._client.select_folder(self._access.folder, readonly=readonly)
        self.uidvalidity, self.messages = int(told.get(b"UIDVALIDITY", 0)), int(told.get(b"EXISTS", 0))

    def folders(self) -> list[str]:
        with translated():
            return [str(name) for _, _, name in self._client.list_folders()[:FOLDERS]]

    def search(self, rules: Rules, *, days: int, above: int = 0) -> list[int]:
        """The numbers above ``above`` of the messages of the last ``days`` days whose sender may be one of the rules'.

        Subjects are not asked for: a server that cannot decode a broken header would hide the message for good.
        """
        # a day more: the server's day is not ours
        since = (datetime.now(UTC) - timedelta(days=days + 1)).date()
        with translated():
            try:
                found = self._client.search(_criteria(rules, since, above))
            except exceptions.InvalidCriteriaError:
                found = self._client.search(["SINCE", since])
        return sorted(uid for uid in found if uid > above)

    def described(self, uids: Sequence[int], rules: Rules) -> Iterator[tuple[list[Message], list[tuple[int, Skipped]]]]:
        """Those with audio that the rules fit, and those that cannot be made sense of, some at a time."""
        for start in range(0, len(uids), AT_ONCE):
            yield self._described(uids[start : start + AT_ONCE], rules)

    def _described(self, uids: Sequence[int], rules: Rules) -> tuple[list[Message], list[tuple[int, Skipped]]]:
        fetched = self._descriptions(uids)
        if fetched is None:
            # one of them is answered with what cannot be parsed: each by itself, so that it is the only one
            fetched = {uid: answer for uid in uids for answer in (self._descriptions([uid]) or {uid: {}}).values()}
        messages: list[Message] = []
        bad: list[tuple[int, Skipped]] = []
        for uid, items in fetched.items():
            try:
                message = message_of(uid, items, rules.attachment)
            except (ValueError, TypeError, AttributeError, LookupError, RecursionError):
                bad.append((uid, Skipped.UNREADABLE))
                continue
            if message.parts and fits(message, rules):
                messages.append(message)
        return messages, bad

    def _descriptions(self, uids: Sequence[int]) -> dict[int, Any] | None:
        """None when the answer cannot be parsed."""
        try:
            with translated():
                return dict(self._client.fetch(uids, _DESCRIPTION))
        except MailboxRefused as error:
            if len(uids) > 1 or isinstance(error.__cause__, exceptions.ProtocolError):
                return None
            raise
        except (ValueError, TypeError, LookupError, RecursionError, AssertionError):
            return None

    def pieces(self, uid: int, number: str, octets: int) -> Iterator[bytes]:
        """A part of a message as it is encoded, some MiB at a time; nothing is marked as seen. Raises Gone."""
        at = 0
        # several servers take longer over a piece than over the whole; one that lied about the size is cut off
        short = 0 < octets <= PIECE
        while True:
            with translated():
                wanted = f"BODY.PEEK[{number}]" if short else f"BODY.PEEK[{number}]<{at}.{PIECE}>"
                answer = self._client.fetch([uid], [wanted]).get(uid)
            if answer is None:
                raise Gone
            piece = _body(answer)
            if piece:
                yield piece
            at += len(piece)
            if short or len(piece) < PIECE:
                return

    def parts(self, uids: Sequence[int], number: str) -> dict[int, bytes]:
        """The same part of several messages as it is encoded, in one command; those that are gone are left out."""
        with translated():
            answers = self._client.fetch(uids, [f"BODY.PEEK[{number}]"])
        return {uid: _body(answer) for uid, answer in answers.items() if uid in uids}

    def act(self, uids: Sequence[int]) -> None:
        """The after-action; doing it twice is doing it once."""
        access = self._access
        if not uids or access.after_action is AfterAction.NONE:
            return
        with translated():
            if access.after_action is AfterAction.SEEN:
                self._client.add_flags(uids, [b"\\Seen"], silent=True)
                return
        try:
            self._move(uids, access.move_to or "")
        except MailboxRefused:
            with suppress(MillraceError), translated():
                self._client.create_folder(access.move_to)
            self._move(uids, access.move_to or "")

    def _move(self, uids: Sequence[int], folder: str) -> None:
        with translated():
            if self._client.has_capability("MOVE"):
                self._client.move(uids, folder)
                return
            self._client.copy(uids, folder)
            self._client.delete_messages(uids, silent=True)
            if self._client.has_capability("UIDPLUS"):  # else it would take what others have marked with it
                self._client.uid_expunge(uids)


def _body(answer: dict[bytes, Any]) -> bytes:
    return next((value for key, value in answer.items() if key.startswith(b"BODY[")), None) or b""


def _criteria(rules: Rules, since: date, above: int) -> list[Any]:
    criteria: list[Any] = ["SINCE", since]
    if above:
        criteria += ["UID", f"{above + 1}:*"]
    senders = [one for one in rules.senders if one.isascii()]
    if senders and len(senders) == len(rules.senders):
        wanted: list[Any] = ["FROM", senders[0]]
        for sender in senders[1:]:
            wanted = ["OR", wanted, ["FROM", sender]]
        criteria += wanted
    return criteria
