"""The demo's second half: a mailbox with a recording, the call it is of, and how the two find each other."""

import contextlib
import io
import math
import secrets
import struct
import tempfile
import time
import wave
from collections.abc import Iterator
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
from rich.console import Console

from stack import StackFailed
from stack.exchange import Exchange, inbound_call
from stack.imap import MailServer, serving

CALLER, LINE = "79161234567", "74951234567"
PATIENCE_SECONDS = 60.0
RATE = 8000  # Hz, as telephones have it


class World:
    """What the demo's own stack is started with for it: a mail server, an exchange's key, an admin."""

    def __init__(self, mail: MailServer) -> None:
        self.mail = mail
        self.admin = {"username": f"demo-admin-{secrets.token_hex(4)}", "password": secrets.token_urlsafe(16)}
        self.key, self.salt = secrets.token_hex(16), secrets.token_hex(16)

    def settings(self) -> dict[str, str]:
        return {
            **self.mail.settings(),
            "ADMIN_USERNAME": self.admin["username"],
            "ADMIN_PASSWORD": self.admin["password"],
            "MANGO_API_KEY": self.key,
            "MANGO_API_SALT": self.salt,
            "RECORDING_LISTEN_SECONDS": "1",
        }


@contextlib.contextmanager
def world() -> Iterator[World]:
    """With its mail server running."""
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "imap.log") as mail:
        yield World(mail)


def show(console: Console, url: str, world: World) -> None:
    """A call is told of by the exchange, its recording comes by mail, and is fetched, matched and listened to.

    Raises:
        StackFailed: it is not, within a minute.
    """
    began_at = datetime.now(UTC).replace(microsecond=0)
    world.mail.deliver(_letter(began_at))
    with httpx.Client(base_url=f"{url}/api/v1", timeout=30, trust_env=False) as http:
        token = http.post("/auth/login", json=world.admin).raise_for_status().json()["access_token"]
        http.headers["Authorization"] = f"Bearer {token}"
        exchange = Exchange(url, world.key, world.salt)
        for kind, message in inbound_call(CALLER, LINE, began_at, talk_seconds=12):
            exchange.send(kind, message).raise_for_status()
        console.print(f"\nthe exchange told of a call of [bold]+{CALLER}[/] to [bold]+{LINE}[/]")
        order = {**world.mail.order(), "poll_seconds": 86400}
        mailbox = http.post("/mailboxes", json=order).raise_for_status().json()
        try:
            http.post("/recordings/download", params={"mailbox_id": mailbox["id"]}).raise_for_status()
            recording = _arrived(http, mailbox["id"])
        finally:
            # its server ends with the demo
            http.delete(f"/mailboxes/{mailbox['id']}")
    console.print(
        f"fetched [bold]{recording['name']}[/] from its mailbox: {recording['codec']}, "
        f"{recording['duration_seconds']:.1f} s, {recording['speech_share'] or 0:.0%} of it speech"
    )
    console.print(f"it is of call [bold]{recording['call_id']}[/], matched by {recording['matched_by']}")


def _arrived(http: httpx.Client, mailbox_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        found = http.get("/recordings", params={"mailbox_id": mailbox_id}).raise_for_status().json()["items"]
        if found and found[0]["listened"] and found[0]["status"] == "matched":
            return dict(found[0])
        time.sleep(0.2)
    raise StackFailed(f"the recording was not fetched and matched within {PATIENCE_SECONDS:.0f} s")


def _letter(began_at: datetime) -> bytes:
    local = began_at.astimezone(ZoneInfo("Europe/Moscow"))
    letter = EmailMessage()
    letter["From"], letter["Subject"] = "auto-mailer@mangotele.com", "Запись разговора"
    letter["Message-ID"] = f"<{secrets.token_hex(8)}@mangotele.com>"
    letter.set_content("Запись разговора во вложении.\n")
    name = f"{local:%Y.%m.%d__%H-%M-%S}__{CALLER}__{LINE}.wav"
    letter.add_attachment(speech(12), maintype="audio", subtype="wav", filename=name)
    return letter.as_bytes()


def speech(seconds: float) -> bytes:
    """A WAV in which something like a voice says vowels: a buzz through three resonances, in syllables and phrases."""
    vowels = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410))  # Hz
    samples: list[float] = []
    state = [[0.0, 0.0] for _ in range(3)]
    phase = 0.0
    for n in range(int(seconds * RATE)):
        at = n / RATE
        syllable = int(at / 0.22)
        voiced = at % 3 < 2.2
        pitch = 120 + 18 * math.sin(2 * math.pi * 0.7 * at) + 4 * math.sin(2 * math.pi * 5 * at)
        phase += pitch / RATE
        pulse = 1.0 if phase >= 1 else 0.0
        phase -= pulse
        loud = math.sin(math.pi * (at / 0.22 % 1)) ** 0.5 if voiced else 0.0
        sound = 0.0
        for place, formant in enumerate(vowels[(syllable * 7 + syllable // 3) % len(vowels)]):
            radius = math.exp(-math.pi * (60 + 40 * place) / RATE)
            one, two = state[place]
            value = pulse * loud + 2 * radius * math.cos(2 * math.pi * formant / RATE) * one - radius**2 * two
            state[place] = [value, one]
            sound += value / (1 + place)
        samples.append(sound)
    loudest = max(map(abs, samples)) or 1.0
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes(struct.pack(f"<{len(samples)}h", *(int(one / loudest * 20000) for one in samples)))
    return buffer.getvalue()
