"""Which URLs and addresses may be called on behalf of a user, who must not reach what only we can reach.

The table is our own: Python's ``is_global`` calls NAT64, 6to4 and multicast global. Source: IANA's registries of
special-purpose addresses (RFC 6890 and its successors).
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

import msgspec

from domain.errors.webhooks import UrlRefused

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

LONGEST_URL = 2048  # characters

_PRIVATE_4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",
        "100.64.0.0/10",  # shared by carriers; clouds keep metadata there
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local, and the metadata of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
# All that is given out for use is in there; what is outside (IPv4-mapped, NAT64, unique local, link-local, multicast)
# is refused by not being in it.
_PUBLIC_6 = IPv6Network("2000::/3")
_PRIVATE_6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments: Teredo, benchmarking, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which carries any IPv4 address
        "3ffe::/16",  # 6bone, given back
        "3fff::/20",  # documentation
    )
)


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    https_only: bool
    ports: frozenset[int] | None  # None: any
    networks: tuple[Network, ...]  # not public, and allowed all the same


def rules_of(*, https_only: bool, ports: str, networks: str) -> Rules:
    """From the text of the settings. Raises ValueError."""
    return Rules(https_only=https_only, ports=ports_of(ports), networks=networks_of(networks))


def ports_of(text: str) -> frozenset[int] | None:
    """``443,8443``, or ``any``, which is None. Raises ValueError."""
    return None if text.strip() == "any" else frozenset(int(word) for word in text.split(","))


def networks_of(text: str) -> tuple[Network, ...]:
    """``10.1.0.0/16,fd00::/8``. Raises ValueError."""
    return tuple(ip_network(word.strip()) for word in text.split(",") if word.strip())


def may_be_called(address: Address, rules: Rules) -> bool:
    """Whether the address is public, or of a network that is allowed by name."""
    if any(address.version == network.version and address in network for network in rules.networks):
        return True
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _PRIVATE_4)
    return address in _PUBLIC_6 and not any(address in network for network in _PRIVATE_6)


def check_url(url: str, rules: Rules) -> tuple[str, int]:
    """(host, port) of a URL that may be called, as far as can be seen without asking for the host's addresses.

    Raises:
        UrlRefused: with the field ``url`` and the reason.
    """
    try:
        return _checked(url, rules)
    except ValueError as error:
        raise UrlRefused(field="url", reason=str(error)) from None


def _checked(url: str, rules: Rules) -> tuple[str, int]:
    if len(url) > LONGEST_URL:
        raise ValueError(f"it has more than {LONGEST_URL} characters")
    if not all("!" <= character <= "~" for character in url) or "\\" in url:
        # what two readers of a URL take for two hosts mostly has one of these
        raise ValueError("it must be visible ASCII without backslashes; write other characters percent-encoded")
    parts = urlsplit(url)
    if parts.scheme not in (("https",) if rules.https_only else ("https", "http")):
        raise ValueError("it must begin with https://")
    if "@" in parts.netloc:
        raise ValueError("it must not hold a user name or a password")
    if "#" in url:
        raise ValueError("it must not have a fragment")
    host = parts.hostname or ""
    if not host or "%" in host:
        raise ValueError("it has no host")
    port = (443 if parts.scheme == "https" else 80) if parts.port is None else parts.port
    if not port or (rules.ports is not None and port not in rules.ports):
        raise ValueError(f"port {port} is not allowed")
    try:
        address = ip_address(host)
    except ValueError:
        return host, port
    if not may_be_called(address, rules):
        raise ValueError("its address is not a public one")
    return host, port
