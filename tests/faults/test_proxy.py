"""The proxy does to a connection what it says, so that the tests behind it test what they say."""

import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from tests.faults.nodes import eventually
from tests.faults.proxy import Faults, Proxy


class Echo(socketserver.ThreadingTCPServer):
    """Answers each line with itself, and remembers it."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        echo = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                try:
                    for line in self.rfile:
                        echo.heard.append(line)
                        self.wfile.write(line)
                except OSError:
                    return

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture
def echo() -> Iterator[Echo]:
    with Echo() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxy(echo.server_address[1]) as proxy:
        yield proxy


def ask(connection: socket.socket, line: bytes) -> bytes:
    connection.sendall(line)
    answer = b""
    while not answer.endswith(b"\n"):
        if not (piece := connection.recv(65536)):
            break
        answer += piece
    return answer


def connected(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def test_it_carries_several_connections_and_forgets_those_that_end(proxy: Proxy) -> None:
    connections = [connected(proxy) for _ in range(5)]
    for number, connection in enumerate(connections):
        assert ask(connection, b"%d\n" % number) == b"%d\n" % number
    assert (proxy.connections, proxy.open) == (5, 5)
    for connection in connections:
        connection.close()
    eventually(lambda: proxy.open == 0, 5, "closed connections are forgotten")


def test_latency_and_bandwidth(proxy: Proxy) -> None:
    with connected(proxy) as connection:
        proxy.faults.latency = 0.1
        began = time.monotonic()
        assert ask(connection, b"slow\n") == b"slow\n"
        assert time.monotonic() - began >= 0.2
        proxy.faults = Faults(bytes_per_second=20_000)
        began = time.monotonic()
        assert len(ask(connection, b"x" * 5_999 + b"\n")) == 6_000
        assert time.monotonic() - began >= 0.3


def test_a_hanging_connection_goes_on_where_it_was(proxy: Proxy, echo: Echo) -> None:
    with connected(proxy) as before:
        assert ask(before, b"a\n") == b"a\n"
        proxy.faults.hang = True
        before.settimeout(0.2)
        with pytest.raises(TimeoutError):
            ask(before, b"b\n")
        with connected(proxy) as during:
            during.settimeout(0.2)
            with pytest.raises(TimeoutError):
                ask(during, b"c\n")
            assert echo.heard == [b"a\n"]
            proxy.heal()
            for connection in (before, during):
                connection.settimeout(5)
            assert (before.recv(10), during.recv(10)) == (b"b\n", b"c\n")


def test_reset_and_refuse(proxy: Proxy) -> None:
    with connected(proxy) as connection:
        assert ask(connection, b"a\n") == b"a\n"
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with connected(proxy) as connection:
        assert ask(connection, b"b\n") == b"b\n"
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            connected(proxy)
    proxy.heal()
    with connected(proxy) as connection:
        assert ask(connection, b"c\n") == b"c\n"


def test_it_drops_after_so_many_bytes(proxy: Proxy, echo: Echo) -> None:
    proxy.faults.drop_after = 6
    with connected(proxy) as connection:
        assert ask(connection, b"ab\n") == b"ab\n"
        with pytest.raises(ConnectionResetError):
            ask(connection, b"cd\n")
    assert echo.heard == [b"ab\n"]


def test_an_answer_is_lost_after_the_server_has_acted(proxy: Proxy, echo: Echo) -> None:
    proxy.faults = Faults(lose_answers=1, lose_answer_to=b"commit")
    with connected(proxy) as connection:
        assert ask(connection, b"select\n") == b"select\n"
        with pytest.raises(ConnectionResetError):
            ask(connection, b"commit\n")
    assert echo.heard == [b"select\n", b"commit\n"]
    assert proxy.lost == 1
    with connected(proxy) as connection:
        assert ask(connection, b"commit\n") == b"commit\n"
