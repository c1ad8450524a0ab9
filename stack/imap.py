"""A mail server for tests and the demo: pymap, with one mailbox in memory."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from imapclient import IMAPClient

from stack import StackFailed
from stack.network import accepts, free_port

HOST = "127.0.0.1"
READY_SECONDS = 20.0
PASSWORD = "only for this machine"  # noqa: S105  # no secret: it guards nothing


@dataclass(frozen=True)
class MailServer:
    """A running server with one account."""

    port: int
    username: str
    password: str

    def settings(self) -> dict[str, str]:
        """What lets a stack connect to it."""
        return {"MAILBOX_PORTS": "any", "MAILBOX_ALLOWED_NETWORKS": "127.0.0.0/8", "MAILBOX_PLAINTEXT": "true"}

    def order(self) -> dict[str, object]:
        """The body of POST /mailboxes, as far as the server goes."""
        return {
            "host": HOST,
            "port": self.port,
            "security": "none",
            "username": self.username,
            "secret": self.password,
        }

    @contextlib.contextmanager
    def client(self) -> Iterator[IMAPClient]:
        client = IMAPClient(HOST, self.port, ssl=False, timeout=30)
        try:
            client.login(self.username, self.password)
            yield client
        finally:
            client.shutdown()

    def deliver(self, *messages: bytes, folder: str = "INBOX", at: datetime | None = None) -> None:
        """Put messages into a folder."""
        with self.client() as client:
            for message in messages:
                client.append(folder, message, msg_time=at)


@contextlib.contextmanager
def serving(log: Path, username: str = "recordings", password: str = PASSWORD) -> Iterator[MailServer]:
    """A server for the length of a block. Raises StackFailed when it does not start."""
    port = free_port()
    command = [
        sys.executable,
        "-c",
        "from pymap.main import main; main()",
        "--host",
        HOST,
        "--port",
        str(port),
        "--no-tls",
    ]
    account = ["dict", "--demo-user", username, "--demo-password", password]
    with log.open("wb") as output:
        process = subprocess.Popen([*command, *account], stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not accepts(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise StackFailed("the mail server does not start: pip install pymap", log.read_text(errors="replace"))
            time.sleep(0.05)
        yield MailServer(port, username, password)
    finally:
        process.kill()
        process.wait()
