"""What the tests of recordings in the console stand on: messages with their audio, and windows of those who look."""

import io
import secrets
import wave
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from typing import Any
from zoneinfo import ZoneInfo

from stack.up import Stack
from tests.browser import Visitor
from tests.console.world import PASSWORD
from tests.mailbox_corpus import sound

CALLER, LINE, ELSE = "79161234567", "74951234567", "79990000001"
OWNER = "owner.of.recordings"
BEGAN = datetime(2025, 9, 15, 8, 0, tzinfo=UTC)
HAND = BEGAN + timedelta(hours=3)  # of this one the calls are too far off for the rule
MANY = 22  # of no call
LONG_SECONDS = 360


def letter(at: datetime, audio: bytes, caller: str = CALLER, name: str | None = None) -> bytes:
    made = EmailMessage()
    made["From"], made["Subject"] = "auto-mailer@mangotele.com", "Запись разговора"
    made["Message-ID"] = f"<{secrets.token_hex(8)}@mangotele.com>"
    made.set_content("Запись разговора во вложении.\n")
    local = at.astimezone(ZoneInfo("Europe/Moscow"))
    name = name or f"{local:%Y.%m.%d__%H-%M-%S}__{caller}__{LINE}.wav"
    made.add_attachment(audio, maintype="audio", subtype="wav", filename=name)
    return made.as_bytes()


def long() -> bytes:
    """More than a browser reads ahead."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as out:
        out.setparams((1, 2, 8000, 0, "NONE", ""))
        out.writeframes(sound(1, 1.0)[44:] * LONG_SECONDS)
    return buffer.getvalue()


def window(browser: Any, house: Stack, name: str, password: str = PASSWORD, **options: Any) -> Visitor:
    visitor = Visitor(browser, house.url, **options)
    visitor.enter(name, password, new=False)
    return visitor


def recording(visitor: Visitor, text: str) -> Any:
    return visitor.page.locator(".recording").filter(has_text=text)


AT = "15 Sept 2025, 08:00:00"  # the browser of the tests lives in UTC
AT_HAND = "15 Sept 2025, 11:00:00"
