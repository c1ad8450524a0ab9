"""Ports on this machine: a free one, and whether somebody answers."""

import http.client
import random
import socket

# Below the range kernels hand out for outgoing connections (32768 on Linux, 49152 on macOS), so that no client's
# connection takes the port between our look and the server's start.
FIRST, LAST = 20_000, 32_000


def is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port(preferred: int | None = None, taken: frozenset[int] = frozenset()) -> int:
    """``preferred`` if nobody listens there, else a random free port, so that stacks starting at once do not meet.

    Raises:
        OSError: no port is free.
    """
    if preferred is not None and preferred not in taken and is_free(preferred):
        return preferred
    for port in random.sample(range(FIRST, LAST), 1000):
        if port not in taken and is_free(port):
            return port
    raise OSError(f"no free port between {FIRST} and {LAST}")


def accepts(port: int) -> bool:
    """Whether something accepts connections on 127.0.0.1:port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def answers(port: int, path: str) -> bool:
    """Whether ``GET http://127.0.0.1:port{path}`` answers 200 within 2 s."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
