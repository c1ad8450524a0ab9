"""A telephone exchange for the demo and the tests: signs and posts notifications of calls as Mango Office does.

    exchange = Exchange("http://127.0.0.1:8000", key, salt)
    for kind, message in inbound_call("79161234567", "74951234567", began_at):
        exchange.send(kind, message)

Key and salt are the stack's ``env["MANGO_API_KEY"]`` and ``env["MANGO_API_SALT"]``.
"""

import json
import secrets
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import httpx

from domain.recordings.mango import Kind, signature

SOURCE = "81.88.80.132"  # one of those the vendor sends from

Notification = tuple[Kind, dict[str, Any]]


class Exchange:
    """Posts to ``<url>/api/v1/mango``. ``source`` is the address it comes from, told as a proxy before the API tells
    it; the server believes it of the proxies in FORWARDED_ALLOW_IPS, by default those on this machine."""

    def __init__(self, url: str, key: str, salt: str, source: str = SOURCE) -> None:
        self._url, self._key, self._salt = f"{url}/api/v1/mango", key, salt
        self._headers = {"X-Forwarded-For": source} if source else {}

    def send(self, kind: Kind, message: Mapping[str, Any], *, to_one_url: bool = False) -> httpx.Response:
        """The answer to one notification."""
        text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
        return self.post("/webhook" if to_one_url else f"/events/{kind}", self.form(text))

    def form(self, text: str) -> dict[str, str]:
        """The fields of a notification whose JSON is ``text``."""
        return {"vpbx_api_key": self._key, "sign": signature(self._key, self._salt, text.encode()), "json": text}

    def post(self, path: str, form: Mapping[str, str]) -> httpx.Response:
        return httpx.post(self._url + path, data=form, headers=self._headers, timeout=30, trust_env=False)


def inbound_call(
    caller: str, line: str, began_at: datetime, *, rings: int = 2, talk_seconds: int = 60, recorded: bool = True
) -> Iterator[Notification]:
    """What the exchange tells of a call from outside: a greeting, ``rings`` telephones of which the last is picked up,
    and the summary. Numbers as the exchange writes them, without a plus; with ``talk_seconds`` 0 nobody picks up."""
    entry, second = secrets.token_urlsafe(12), int(began_at.timestamp())
    greeting = {"entry_id": entry, "call_id": f"{entry}-ivr", "from": {"number": caller}}
    heard = {"to": {"number": line, "line_number": line}, "location": "ivr"}
    yield Kind.CALL, {**greeting, **heard, "timestamp": second, "seq": 1, "call_state": "Appeared"}
    yield Kind.CALL, {**greeting, **heard, "timestamp": second + 1, "seq": 2, "call_state": "Connected"}
    now = second + 4
    for ring in range(1, rings + 1):
        reached = ring == rings and talk_seconds > 0
        to = {"extension": str(100 + ring), "number": f"sip:user{ring}@clinic.example", "line_number": line}
        leg = {"entry_id": entry, "call_id": f"{entry}-{ring}", "from": {"number": caller}, "location": "abonent"}
        yield Kind.CALL, {**leg, "to": to, "timestamp": now, "seq": 1, "call_state": "Appeared"}
        if reached:
            talk = now + 3
            yield Kind.CALL, {**leg, "to": to, "timestamp": talk, "seq": 2, "call_state": "Connected"}
        now = talk + talk_seconds if reached else now + 15
        over = {"timestamp": now, "seq": 3, "call_state": "Disconnected"}
        yield Kind.CALL, {**leg, **over, "to": to, "disconnect_reason": 1110 if reached else 1111}
    over = {"timestamp": now, "seq": 3, "call_state": "Disconnected", "disconnect_reason": 1100}
    yield Kind.CALL, {**greeting, **heard, **over}
    answered = talk_seconds > 0 and rings > 0
    yield (
        Kind.SUMMARY,
        {
            "entry_id": entry,
            "call_direction": 1,
            "from": {"number": caller},
            "to": {"extension": str(100 + rings), "number": f"sip:user{rings}@clinic.example"},
            "line_number": line,
            "create_time": second,
            "forward_time": second + 4,
            "talk_time": talk if answered else 0,
            "end_time": now,
            "entry_result": int(answered),
            "disconnect_reason": 1110,
        },
    )
    if recorded and answered:
        record = {"entry_id": entry, "recording_id": f"{entry}-rec"}
        state = {"recording_state": "Completed", "seq": 1, "timestamp": now, "completion_code": 1000}
        yield Kind.RECORDING, {**record, **state, "call_id": f"{entry}-{rings}"}
        yield Kind.RECORD_ADDED, {**record, "timestamp": now + 5}
