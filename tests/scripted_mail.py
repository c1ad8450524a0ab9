"""A mail server of a few lines, for what real ones say only at the worst moment: refusals, and nothing at all."""

import contextlib
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from stack.imap import HOST, MailServer


@dataclass
class Scripted:
    """What it says, and what it has heard."""

    answer: bytes  # to LOGIN and AUTHENTICATE
    capabilities: bytes = b"IMAP4rev1"
    heard: list[bytes] = field(default_factory=list)
    server: MailServer = field(init=False)

    @property
    def logins(self) -> list[bytes]:
        return [line for line in self.heard if line.split()[1:2] in ([b"LOGIN"], [b"AUTHENTICATE"])]


@contextlib.contextmanager
def serving(script: Scripted) -> Iterator[Scripted]:
    """On a port of this machine, for the length of a block."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"* OK here\r\n")
            for line in self.rfile:
                script.heard.append(line)
                tag, command, *_ = line.split()
                match command.upper():
                    case b"LOGIN":
                        self.wfile.write(tag + b" " + script.answer + b"\r\n")
                    case b"AUTHENTICATE":
                        self.wfile.write(b"+ \r\n")
                        script.heard.append(self.rfile.readline())
                        self.wfile.write(tag + b" " + script.answer + b"\r\n")
                    case b"CAPABILITY":
                        self.wfile.write(b"* CAPABILITY " + script.capabilities + b"\r\n" + tag + b" OK done\r\n")
                    case _:
                        self.wfile.write(tag + b" OK done\r\n")

    with socketserver.ThreadingTCPServer((HOST, 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        script.server = MailServer(server.server_address[1], "u", "secret")
        try:
            yield script
        finally:
            server.shutdown()
            thread.join()
