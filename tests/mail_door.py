"""A door before a mail server: TLS with a certificate of its own, access tokens instead of the password, and an ear.

pymap has neither TLS from the first byte nor XOAUTH2; what is behind the door does not know of either.
"""

import base64
import contextlib
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from stack.imap import HOST, MailServer


class Door:
    """Stands at ``port``. ``heard`` is all that clients have said, in clear, before they were let in."""

    def __init__(self, mail: MailServer, context: ssl.SSLContext | None, token: str | None) -> None:
        self.mail, self.context, self.token = mail, context, token
        self.heard = bytearray()
        self.port = 0

    def serve(self, client: socket.socket) -> None:
        if self.context is not None:
            client = self.context.wrap_socket(client, server_side=True)
        with (
            client,
            socket.create_connection((HOST, self.mail.port)) as server,
            client.makefile("rb") as said,
            server.makefile("rb") as answers,
        ):
            client.sendall(_without_starttls(answers.readline()))
            if self.token is not None and not self._let_in(client, server, said, answers):
                return
            back = threading.Thread(target=_carry, args=(answers, client), daemon=True)
            back.start()
            while piece := said.readline():
                self.heard += piece
                server.sendall(piece)
            server.shutdown(socket.SHUT_WR)
            back.join()

    def _let_in(self, client: socket.socket, server: socket.socket, said: Any, answers: Any) -> bool:
        while line := said.readline():
            tag, command, *_ = line.split()
            if command.upper() != b"AUTHENTICATE":
                capabilities = b"* CAPABILITY IMAP4rev1 AUTH=XOAUTH2\r\n"
                client.sendall((capabilities if command == b"CAPABILITY" else b"") + tag + b" OK done\r\n")
                continue
            client.sendall(b"+ \r\n")
            wanted = f"user={self.mail.username}\x01auth=Bearer {self.token}\x01\x01".encode()
            if base64.b64decode(said.readline()) != wanted:
                client.sendall(b"+ " + base64.b64encode(b'{"status":"400"}') + b"\r\n")
                said.readline()
                client.sendall(tag + b" NO [AUTHENTICATIONFAILED] Invalid credentials\r\n")
                continue
            server.sendall(tag + f' LOGIN {self.mail.username} "{self.mail.password}"\r\n'.encode())
            client.sendall(answers.readline())
            return True
        return False


def _without_starttls(greeting: bytes) -> bytes:
    return greeting.replace(b" STARTTLS", b"")


def _carry(source: Any, to: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.read1(65536):
            to.sendall(piece)
        to.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def door(mail: MailServer, context: ssl.SSLContext | None = None, token: str | None = None) -> Iterator[Door]:
    """A door for the length of a block."""
    made = Door(mail, context, token)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):  # a client that does not like the certificate hangs up
                made.serve(self.request)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Server((HOST, 0), Handler) as server:
        made.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield made
        server.shutdown()
        thread.join()


class Authority:
    """A certificate authority of the test's own; ``file`` is its certificate."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Millrace tests")])
        own = self._signed(self._name, self._key, x509.BasicConstraints(ca=True, path_length=0))
        self.file = folder / "authority.pem"
        self.file.write_bytes(own.public_bytes(serialization.Encoding.PEM))

    def certificate(self, host: str) -> tuple[Path, Path]:
        """(certificate, key) for a name."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        made = self._signed(name, key, x509.SubjectAlternativeName([x509.DNSName(host)]))
        where = self._folder / f"{host}.pem", self._folder / f"{host}.key"
        where[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
        where[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return where

    def context(self, host: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.certificate(host))
        return context

    def _signed(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(self._name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=1))
        return builder.add_extension(extension, critical=True).sign(self._key, hashes.SHA256())
