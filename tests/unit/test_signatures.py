"""Standard Webhooks: what is signed, what is refused, and that both sides mean the same."""

import base64

import pytest

from domain import signatures
from domain.signatures import sign, verify

# From the specification's own libraries (standard-webhooks/libraries, the example all of them test against).
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE, MOMENT, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
KEY = signatures.key_of(SECRET)
HEADERS = {"webhook-id": MESSAGE, "webhook-timestamp": str(MOMENT), "webhook-signature": SIGNATURE}


def test_the_example_of_the_specification() -> None:
    assert sign(KEY, MESSAGE, MOMENT, BODY) == HEADERS
    assert verify(KEY, HEADERS, BODY, MOMENT)


@pytest.mark.parametrize("seconds", [-300, -299, 0, 299, 300])
def test_five_minutes_either_way_are_fine(seconds: int) -> None:
    assert verify(KEY, HEADERS, BODY, MOMENT + seconds)


@pytest.mark.parametrize("seconds", [-301, 301, 86400, -(10**12)])
def test_older_or_newer_is_refused(seconds: int) -> None:
    assert not verify(KEY, HEADERS, BODY, MOMENT + seconds)


@pytest.mark.parametrize(
    "signature",
    [
        f"{SIGNATURE} v1,AAAA",
        f"v1,AAAA v1a,whatever {SIGNATURE}",
        f"v2,{SIGNATURE[3:]}  {SIGNATURE}",
        f"v1,not-base64! {SIGNATURE}",
    ],
)
def test_one_of_several_signatures_is_enough(signature: str) -> None:
    assert verify(KEY, {**HEADERS, "webhook-signature": signature}, BODY, MOMENT)


OTHER = base64.b64encode(b"another key of some 32 bytes ...").decode()


@pytest.mark.parametrize(
    "changes",
    [
        {"webhook-signature": ""},
        {"webhook-signature": SIGNATURE[3:]},
        {"webhook-signature": f"v1a,{SIGNATURE[3:]}"},
        {"webhook-signature": SIGNATURE[:-4]},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v1,AAAA " * 20 + SIGNATURE},
        {"webhook-signature": sign(signatures.key_of(f"whsec_{OTHER}"), MESSAGE, MOMENT, BODY)["webhook-signature"]},
        {"webhook-id": "msg_other"},
        {"webhook-id": ""},
        {"webhook-timestamp": str(MOMENT + 1)},
        {"webhook-timestamp": f"{MOMENT}.0"},
        {"webhook-timestamp": f" {MOMENT}"},
        {"webhook-timestamp": "٣"},
        {"webhook-timestamp": "9" * 400},
        {"webhook-timestamp": ""},
    ],
)
def test_a_forged_signature_is_refused(changes: dict[str, str]) -> None:
    assert not verify(KEY, {**HEADERS, **changes}, BODY, MOMENT)


def test_another_body_is_refused() -> None:
    assert not verify(KEY, HEADERS, BODY + b" ", MOMENT)
    assert not verify(KEY, HEADERS, b"", MOMENT)


@pytest.mark.parametrize("name", HEADERS)
def test_a_missing_header_is_refused(name: str) -> None:
    assert not verify(KEY, {other: value for other, value in HEADERS.items() if other != name}, BODY, MOMENT)


@pytest.mark.parametrize(
    "secret", ["", "whsec_", OTHER, "whsec_AAAA", "whsec_###", f"WHSEC_{OTHER}", "whsec_" + "A" * 200]
)
def test_a_secret_that_is_none_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="whsec_"):
        signatures.key_of(secret)
