"""The addresses of a host that a user has named: asked for once, every one checked, and used as they were checked."""

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from ipaddress import ip_address

from domain.addresses import Rules, may_be_called
from domain.errors.webhooks import HostUnknown, UrlRefused

THREADS = 16  # of a process, in which names are resolved: the system knows no time limit for it


def resolved(host: str, port: int, rules: Rules, seconds: float) -> list[str]:
    """The host's addresses in the resolver's order, to connect to as they are.

    One that may not be called refuses the host: who names such an address beside a public one is up to something.

    Raises:
        HostUnknown: it has none, or no answer came within ``seconds``.
        UrlRefused: one of them may not be called, or the port may not.
    """
    if rules.ports is not None and port not in rules.ports:
        raise UrlRefused(field="url", reason=f"port {port} is not allowed")
    try:
        found = _resolvers().submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM).result(seconds)
    except (OSError, UnicodeError) as error:  # TimeoutError is an OSError
        raise HostUnknown(field="url", host=host) from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not addresses:
        raise HostUnknown(field="url", host=host)
    if not all(may_be_called(ip_address(address), rules) for address in addresses):
        raise UrlRefused(field="url", reason="its address is not a public one")
    return addresses


@cache
def _resolvers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="resolver")


os.register_at_fork(after_in_child=_resolvers.cache_clear)
