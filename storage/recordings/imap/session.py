"""One visit to a mailbox."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from imapclient import IMAPClient, exceptions

from domain.errors import MillraceError
from domain.errors.recordings import MailboxRefused, MailboxUnreachable
from domain.recordings.mail import Message, fits, message_of
from domain.recordings.mailboxes import AfterAction, Rules, Skipped
from storage.recordings.imap.connecting import hang_up, logged_in, too_long, translated
from storage.recordings.mailboxes import Access

PIECE = 4 * 1024**2  # bytes of a part that are asked for at once
AT_ONCE = 50  # messages whose descriptions are asked for at once
FOLDERS = 1000
RECONNECTS = 10  # of one visit, because of descriptions
# What may be asked of the server: an address, or part of one. A name may be encoded in what it cannot decode.
_ADDRESS = re.compile(r"[A-Za-z0-9_%+-]*[.@][A-Za-z0-9._%+@-]*")
_DESCRIPTION = ("ENVELOPE", "BODYSTRUCTURE", "RFC822.SIZE", "INTERNALDATE")


class Described(NamedTuple):
    """A look at some descriptions."""

    found: list[Message]
    """With audio, and the rules fit."""
    bad: list[tuple[int, Skipped]]
    """Not to be made sense of."""
    broken: list[int]
    """The connection broke off at them, each asked for by itself."""
    looked: list[int]
    """All of them. Where they are fewer than were asked for, the visit has had enough of it."""


class Gone(Exception):
    """The message is not there any more."""


@contextmanager
def connected(access: Access) -> Iterator["Session"]:
    """A session in the mailbox; raises as ``connecting.logged_in`` and, within the block, as ``Session`` does."""
    client = logged_in(access)
    session = Session(client, access)
    try:
        yield session
    finally:
        session.close()


class Session:
    """Every method raises MailboxUnreachable (the connection is lost) and MailboxRefused (the server says no)."""

    def __init__(self, client: IMAPClient, access: Access) -> None:
        self._client, self._access = client, access
        self._reconnects = 0
        self._readonly = True
        self.uidvalidity = 0
        self.messages = 0

    def close(self) -> None:
        # a goodbye to a server that has gone is no error, and neither is one it does not understand
        with suppress(Exception):
            self._client.logout()
        with suppress(Exception):
            self._client.shutdown()

    def open(self, *, readonly: bool) -> None:
        """The folder; ``uidvalidity`` and ``messages`` (their number) are known then."""
        self._readonly = readonly
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

    def described(self, uids: Sequence[int], rules: Rules) -> Iterator[Described]:
        """Those with audio that the rules fit, and those that cannot be made sense of, some at a time.

        One at which the connection is lost, or whose description has no end, is found out on a fresh connection and
        stops none of the others; after RECONNECTS of them the rest is left to the next visit.
        """
        for start in range(0, len(uids), AT_ONCE):
            some = uids[start : start + AT_ONCE]
            described = self._described(some, rules)
            yield described
            if len(described.looked) < len(some):
                return

    def _described(self, uids: Sequence[int], rules: Rules) -> Described:
        described = Described([], [], [], [])
        try:
            fetched = self._descriptions(uids)
        except MailboxUnreachable as error:
            if not self._again(error):
                return described
            fetched = None
        if fetched is not None:
            described.looked.extend(uids)
            _sort(fetched, rules, described)
            return described
        for uid in uids:  # one of them is answered with what cannot be read: it shall be the only one
            try:
                answers = self._descriptions([uid])
            except (MailboxUnreachable, MailboxRefused) as error:
                described.looked.append(uid)
                if too_long(error):
                    described.bad.append((uid, Skipped.LONG_DESCRIPTION))
                else:
                    described.broken.append(uid)
                if not self._again(error):
                    break
            else:
                described.looked.append(uid)
                _sort({uid: {}} if answers is None else answers, rules, described)
        return described

    def _again(self, error: MillraceError) -> bool:
        """A fresh connection after one that was lost; False when there were enough of them."""
        hang_up(self._client)
        if self._reconnects == RECONNECTS:
            return False
        self._reconnects += 1
        self._client, before = logged_in(self._access), self.uidvalidity
        self.open(readonly=self._readonly)
        if self.uidvalidity != before:
            raise error  # numbers mean others now: all from the beginning
        return True

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


def _sort(fetched: dict[int, Any], rules: Rules, described: Described) -> None:
    for uid, items in fetched.items():
        try:
            message = message_of(uid, items, rules.attachment)
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError):
            described.bad.append((uid, Skipped.UNREADABLE))
            continue
        if message.parts and fits(message, rules):
            described.found.append(message)


def _body(answer: dict[bytes, Any]) -> bytes:
    return next((value for key, value in answer.items() if key.startswith(b"BODY[")), None) or b""


def _criteria(rules: Rules, since: date, above: int) -> list[Any]:
    criteria: list[Any] = ["SINCE", since]
    if above:
        criteria += ["UID", f"{above + 1}:*"]
    senders = [one for one in rules.senders if _ADDRESS.fullmatch(one)]
    if senders and len(senders) == len(rules.senders):
        wanted: list[Any] = ["FROM", senders[0]]
        for sender in senders[1:]:
            wanted = ["OR", wanted, ["FROM", sender]]
        criteria += wanted
    return criteria
