"""The rules of webhooks, and above all whom they never call."""

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from domain import settings
from domain.addresses import check_url, may_be_called, rules_of
from domain.errors.neighbours import BadSetting
from domain.errors.webhooks import HostUnknown, UrlRefused
from domain.jobs import TERMINAL, EventType
from domain.webhooks import ENDS, HookType, delays_of, message_id, new_secret, next_delay, signed
from stack.up import ROOT
from storage import addresses
from storage.webhooks.deliveries import Attempted, Sending
from tests.receiver import Receiver
from tests.unit.test_pipelines import _ENVIRON, house
from workers.webhooks import dispatching, request

ID = UUID("01990000-0000-7000-8000-000000000001")
STRICT = rules_of(https_only=True, ports="443,8443", networks="")
OPEN = {"WEBHOOK_PORTS": "any", "WEBHOOK_REQUEST_SECONDS": "1"}


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def configure(**changes: str) -> None:
        made = settings.from_environ({**_ENVIRON, **OPEN, **changes})
        monkeypatch.setattr(request, "settings", lambda: made)
        request.client.cache_clear()

    configure()
    return configure


def post(url: str) -> Attempted:
    sending = Sending(
        id=ID, claim=ID, webhook_id=ID, type="ping", at=datetime.now(UTC), data={}, failed_attempts=0, url=url,
        enabled=True, secrets=[],
    )  # fmt: skip
    return request.post(sending, [new_secret()])


def resolves(monkeypatch: pytest.MonkeyPatch, **names: list[list[str]]) -> list[str]:
    """Names that resolve to these addresses, a list for each time they are asked for; the answer is who was asked."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def answer(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in {f"{one}.test" for one in names}:
            ip_address(name)  # nothing else is asked for but addresses as they are
            return real(host, port, *args, **kwargs)
        asked.append(name)
        turns = names[name.removesuffix(".test")]
        found = turns[min(asked.count(name), len(turns)) - 1]
        return [entry for one in found for entry in real(one, port, *args, **kwargs)]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return asked


# ---------------------------------------------------------------- whom they never call


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254"),
        *("169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.1.1"),
        *("198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1"),
        *("64:ff9b::808:808", "64:ff9b:1::a00:1", "100::1", "2001::1", "2001:10::1", "2001:20::1", "2001:db8::1"),
        *("2002:7f00:1::", "2002:808:808::", "3ffe::1", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1"),
        *("fe80::1%1", "fec0::1", "ff02::1", "ff0e::1"),
    ],
)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    assert not may_be_called(ip_address(address), STRICT)
    literal = f"[{address}]" if ":" in address else address
    with pytest.raises(UrlRefused):
        check_url(f"https://{literal}/", STRICT)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "100.63.255.255", "172.32.0.1", "192.0.1.1", "223.255.255.255", "2a00:1450::1", "2606::1"]
)
def test_a_public_address_is_not(address: str) -> None:
    assert may_be_called(ip_address(address), STRICT)


def test_a_network_is_allowed_by_its_name() -> None:
    rules = rules_of(https_only=True, ports="any", networks="10.1.0.0/16, fd00::/8")
    assert may_be_called(ip_address("10.1.2.3"), rules)
    assert may_be_called(ip_address("fd12::1"), rules)
    assert not may_be_called(ip_address("10.2.0.1"), rules)
    assert not may_be_called(ip_address("::ffff:10.1.2.3"), rules)


@pytest.mark.parametrize(
    "url",
    [
        *("http://example.com/", "ftp://example.com/", "file:///etc/passwd", "gopher://example.com/", "//example.com/"),
        *("example.com", "https:///x", "https://", "https://:443/", "javascript:alert(1)", "HTTPS//example.com"),
        *("https://user@example.com/", "https://user:password@example.com/", "https://@example.com/"),
        *("https://8.8.8.8@127.0.0.1/", "https://example.com\\@127.0.0.1/", "https://example.com/ x", "https://a b/"),
        *("https://example.com/\r\nX: y", "https://example.com/\0", "https://пример.рф/", "https://example.com/#x"),
        *("https://example.com:80/", "https://example.com:22/", "https://example.com:0/", "https://example.com:99999/"),
        *("https://example.com:x/", "https://[::1/", "https://[fe80::1%25eth0]/", "https://" + "a" * 2048),
        *("https://１２７.0.0.1/", "https://127.0.0.1\u3002/"),
    ],
)
def test_a_url_that_is_not_a_plain_one_is_refused(url: str) -> None:
    with pytest.raises(UrlRefused) as caught:
        check_url(url, STRICT)
    assert caught.value.field == "url"


def test_a_plain_one_is_not() -> None:
    assert check_url("https://hooks.example.com/a?b=c%20d", STRICT) == ("hooks.example.com", 443)
    assert check_url("https://hooks.example.com:8443", STRICT) == ("hooks.example.com", 8443)
    development = rules_of(https_only=False, ports="any", networks="")
    assert check_url("http://hooks.example.com/", development) == ("hooks.example.com", 80)


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "127.1", "0x7f000001", "2130706433", "017700000001", "127.0.0.1.", "0.0.0.0", "0"),
        *("[::1]", "[::ffff:127.0.0.1]", "[::]", "LOCALHOST", "localhost.", "%31%32%37.0.0.1", "[::ffff:7f00:1]"),
    ],
)
def test_loopback_is_never_called_however_it_is_written(host: str, configured: Callable[..., None]) -> None:
    with Receiver() as canary:
        done = post(f"http://{host}:{canary.port}/")
        assert done.fault in ("url_refused", "host_unknown")
        time.sleep(0.05)  # a connection would be counted in another thread
        assert canary.connections == 0


def test_the_canary_sings_when_its_network_is_allowed(configured: Callable[..., None]) -> None:
    configured(WEBHOOK_ALLOWED_NETWORKS="127.0.0.0/8")
    with Receiver() as canary:
        assert post(f"{canary.url}/").fault is None
        assert canary.connections == 1


@contextmanager
def two_hosts() -> Iterator[tuple[Receiver, Receiver]]:
    """The same port on two addresses of this machine: one that may be called and one that may not."""
    try:
        with Receiver("127.0.0.2") as allowed, Receiver("127.0.0.1", allowed.port) as canary:
            yield allowed, canary
    except OSError:
        pytest.skip("this system has one loopback address")


def test_a_name_that_changes_its_mind_is_called_where_it_was_checked(
    configured: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    configured(WEBHOOK_ALLOWED_NETWORKS="127.0.0.2/32")
    with two_hosts() as (allowed, canary):
        asked = resolves(monkeypatch, rebinds=[["127.0.0.2"], ["127.0.0.1"]])
        url = f"http://rebinds.test:{allowed.port}/"
        assert post(url).fault is None
        assert asked == ["rebinds.test"], "asked once"
        assert len(allowed.requests) == 1
        assert allowed.requests[0].headers["host"] == f"rebinds.test:{allowed.port}"
        assert post(url).fault == "url_refused", "and checked at every attempt"
        assert canary.connections == 0


def test_one_address_that_may_not_be_called_refuses_the_name(
    configured: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    configured(WEBHOOK_ALLOWED_NETWORKS="127.0.0.2/32")
    with two_hosts() as (allowed, canary):
        resolves(monkeypatch, mixed=[["127.0.0.2", "127.0.0.1"]])
        assert post(f"http://mixed.test:{allowed.port}/").fault == "url_refused"
        assert (allowed.connections, canary.connections) == (0, 0)


def test_an_address_that_is_down_is_followed_by_the_next(
    configured: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    configured(WEBHOOK_ALLOWED_NETWORKS="127.0.0.0/8")
    with Receiver() as receiver:
        resolves(monkeypatch, several=[["127.0.0.3", "127.0.0.1"]])
        assert post(f"http://several.test:{receiver.port}/").fault is None


def test_no_proxy_of_the_environment_is_used(configured: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    configured(WEBHOOK_ALLOWED_NETWORKS="127.0.0.0/8")
    with Receiver() as proxy, Receiver() as receiver:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        assert post(f"{receiver.url}/").fault is None
        assert post("http://10.0.0.1/").fault == "url_refused"
        assert proxy.connections == 0


def test_a_resolver_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    woken = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: woken.wait(10))
    began = time.monotonic()
    with pytest.raises(HostUnknown):
        addresses.resolved("hangs.test", 443, STRICT, 0.2)
    assert time.monotonic() - began < 5, "it hangs for ten seconds"
    woken.set()


@pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 64 + ".test", "..", "xn--"])
def test_a_name_without_an_address_is_named(host: str) -> None:
    with pytest.raises(HostUnknown):
        addresses.resolved(host, 443, STRICT, 5)


# ---------------------------------------------------------------- TLS


def certified(folder: Path, name: str) -> ssl.SSLContext:
    """A server's side of TLS with a certificate nobody has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    pem = folder / "server.pem"
    pem.write_bytes(
        made.public_bytes(encoding)
        + key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


def test_a_certificate_that_nobody_vouches_for_is_refused(
    configured: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    configured(WEBHOOK_ALLOWED_NETWORKS="127.0.0.0/8")
    resolves(monkeypatch, own=[["127.0.0.1"]])
    with Receiver() as receiver:
        receiver.speak_tls(certified(tmp_path, "own.test"))
        assert post(f"https://own.test:{receiver.port}/").fault == "tls"
        assert receiver.requests == []


# ---------------------------------------------------------------- when, what, and with whose name


def test_the_schedule_is_that_of_the_standard() -> None:
    delays = settings.from_environ(_ENVIRON).webhook_delays
    assert (0, *delays) == (0, 5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
    assert [next_delay(delays, failed, 0) for failed in range(1, 11)] == [*delays, None]
    assert sum(delays) > 3 * 86400


def test_delays_are_spread_and_what_the_receiver_asks_for_counts() -> None:
    assert next_delay((100, 5), 1, -1) == pytest.approx(80)
    assert next_delay((100, 5), 1, 1) == pytest.approx(120)
    assert next_delay((100, 5), 1, 0, retry_after=50) == 100
    assert next_delay((100, 5), 1, 0, retry_after=500) == 500
    assert next_delay((100, 5), 1, 0, retry_after=1e9) == 86400
    assert next_delay((100, 5), 3, 0, retry_after=500) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("WEBHOOK_RETRIES", value) for value in ("5,x", "0", "-1", ",", "inf", "nan")),
        *(("WEBHOOK_PORTS", value) for value in ("https", "443,", "all")),
        *(("WEBHOOK_ALLOWED_NETWORKS", value) for value in ("10.0.0.1/8", "localhost", "10.0.0.0/33")),
        ("WEBHOOK_ENCRYPTION_KEYS", "short"),
    ],
)
def test_a_setting_that_cannot_be_read_is_named(name: str, value: str) -> None:
    with pytest.raises(BadSetting, match=name):
        settings.from_environ({**_ENVIRON, name: value})


def test_only_development_calls_without_tls() -> None:
    production = {**_ENVIRON, "MILLRACE_ENV": "production"}
    assert settings.from_environ(production).webhook_rules.https_only
    assert not settings.from_environ(_ENVIRON).webhook_rules.https_only
    assert settings.from_environ(production).webhook_rules.networks == ()
    one = settings.from_environ({**_ENVIRON, "WEBHOOK_ALLOWED_NETWORKS": "10.0.0.0/8"})
    assert one.webhook_rules.networks == (ip_network("10.0.0.0/8"),)


def test_every_stored_event_can_be_asked_for() -> None:
    stored = set(EventType) - {EventType.PROGRESS}
    assert {str(one) for one in HookType} == {f"job.{event}" for event in stored}
    assert {str(one) for one in ENDS} == {f"job.{event}" for event in TERMINAL}


def test_what_is_signed_has_no_full_stop_in_its_id() -> None:
    headers = signed([new_secret(), new_secret()], ID, 1700000000, b"{}")
    assert headers["webhook-id"] == message_id(ID) == "msg_01990000000070008000000000000001"
    assert [one[:3] for one in headers["webhook-signature"].split(" ")] == ["v1,", "v1,"]


def test_delays_are_numbers() -> None:
    assert delays_of("1, 2.5") == (1, 2.5)


def test_the_payload_keeps_the_order_of_its_fields(configured: Callable[..., None]) -> None:
    configured(WEBHOOK_ALLOWED_NETWORKS="127.0.0.0/8")
    with Receiver() as receiver:
        post(receiver.url)
        body = receiver.requests[0].body
    assert list(msgspec.json.decode(body)) == ["type", "timestamp", "data"]
    assert "webhook-id" in receiver.requests[0].headers
    assert "cookie" not in receiver.requests[0].headers


def test_switched_off_it_leaves_no_trace() -> None:
    with_it, without = (json.loads(house(modules).stdout) for modules in ("webhooks", "inference"))
    assert {"webhooks.deliver", "webhooks.dispatch", "webhooks.retention"} <= set(with_it["tasks"])
    assert {"webhooks.dispatch", "webhooks.retention"} <= set(with_it["beat"])
    assert "/api/v1/webhooks/{webhook_id:uuid}/deliveries" in with_it["routes"]
    assert not [name for kind in ("routes", "tasks", "beat") for name in without[kind] if "webhook" in name]


def test_a_queue_of_webhooks_is_served() -> None:
    assert f"-Q {dispatching.QUEUE} " in (ROOT / "Procfile").read_text()
