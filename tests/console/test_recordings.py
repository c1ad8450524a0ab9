"""Recordings in the console: listened to, found, put to their calls; and the mailboxes they come from."""

import io
import json
import secrets
import wave
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from stack.exchange import Exchange, inbound_call
from stack.imap import MailServer, serving
from stack.recordings import speech
from stack.up import Stack
from tests.browser import Visitor
from tests.client import ADMIN, User
from tests.console.test_reading import RUN_AXE, UNNAMED
from tests.console.world import PASSWORD
from tests.mailbox_corpus import sound
from tests.receiver import until
from tests.recordings_house import fetched, folder_with, kept, recordings_house, watched

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


@pytest.fixture(scope="module")
def mail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MailServer]:
    with serving(tmp_path_factory.mktemp("imap") / "imap.log") as server:
        yield server


@pytest.fixture(scope="module")
def house(browser: Any, mail: MailServer) -> Iterator[Stack]:
    env = {"MANGO_API_KEY": "key", "MANGO_API_SALT": "salt", "RECORDING_SPEECH_SECONDS": "20"}
    with recordings_house(mail, env) as stack:
        yield stack


@pytest.fixture(scope="module")
def admin(house: Stack) -> Iterator[User]:
    with User.admin(house.url) as user:
        yield user


@pytest.fixture(scope="module")
def mailbox(house: Stack, mail: MailServer, admin: User) -> str:
    """Fetched from once; the owner's recordings are there and listened to, and so are the calls."""
    exchange = Exchange(house.url, "key", "salt")
    after = [timedelta(minutes=40), timedelta(minutes=20)]
    calls = [(CALLER, BEGAN), *((CALLER, HAND + one) for one in after), (ELSE, HAND + timedelta(minutes=10))]
    for caller, at in calls:
        for kind, message in inbound_call(caller, LINE, at, rings=1, talk_seconds=75):
            exchange.send(kind, message).raise_for_status()
    many = [letter(BEGAN - timedelta(days=1, minutes=one), sound(one), "79030000000") for one in range(MANY)]
    program = letter(BEGAN, b"MZ this is a program", name="program.wav")
    folder_with(mail, "calls", *many, program, letter(HAND, long()), letter(BEGAN, speech(12)))
    account = {"username": OWNER, "password": PASSWORD}
    owner = httpx.post(f"{house.url}/api/v1/auth/register", json=account, trust_env=False).raise_for_status().json()
    mailbox_id = watched(admin, mail, "calls", owner_id=owner["id"])
    assert fetched(admin, mailbox_id)["status"] == "succeeded"
    until(lambda: len(kept(admin)) == MANY + 3 and all(one["listened"] for one in kept(admin)), 30)
    until(lambda: admin.http.get("/recordings", params={"status": "matched"}).json()["items"])
    return mailbox_id


def window(browser: Any, house: Stack, name: str, password: str = PASSWORD, **options: Any) -> Visitor:
    visitor = Visitor(browser, house.url, **options)
    visitor.enter(name, password, new=False)
    return visitor


@pytest.fixture
def owner(browser: Any, house: Stack, mailbox: str) -> Iterator[Visitor]:
    visitor = window(browser, house, OWNER)
    visitor.page.get_by_role("link", name="Recordings", exact=True).click()
    visitor.page.get_by_role("heading", name="Recordings", exact=True).wait_for()
    visitor.page.locator(".recording").first.wait_for()
    yield visitor
    visitor.close()


@pytest.fixture
def chief(browser: Any, house: Stack, mailbox: str) -> Iterator[Visitor]:
    """The admin, with the mailboxes open."""
    visitor = window(browser, house, ADMIN["username"], ADMIN["password"])
    visitor.page.get_by_role("link", name="Recordings", exact=True).click()
    visitor.page.get_by_role("link", name="Mailboxes").click()
    visitor.page.locator(".mailbox").first.wait_for()
    yield visitor
    visitor.close()


def recording(visitor: Visitor, text: str) -> Any:
    return visitor.page.locator(".recording").filter(has_text=text)


AT = "15 Sept 2025, 08:00:00"  # the browser of the tests lives in UTC
AT_HAND = "15 Sept 2025, 11:00:00"


# ---------------------------------------------------------------- the list


def test_what_is_known_of_a_recording_is_shown_and_found(owner: Visitor) -> None:
    page = owner.page
    cards = page.locator(".recording")
    assert cards.count() == 20
    page.get_by_role("button", name="Show older recordings").click()
    owner.until(f"document.querySelectorAll('.recording').length === {MANY + 3}")
    assert page.get_by_role("button", name="Show older recordings").is_hidden()
    one = recording(owner, AT).filter(has_text="Call found")
    assert one.locator("h2").inner_text().startswith("+7 916 123-45-67 →")
    text = one.inner_text()
    for piece in ("Call found · by the rule", "duration 0:12", "recordings"):
        assert piece in text, text
    assert 50 < int(one.locator(".speech").inner_text().removeprefix("speech ").removesuffix("%")) <= 100
    one.get_by_text("The call").click()
    one.get_by_text("the caller hung up").wait_for()
    assert "1:15" in one.locator("dl").inner_text()

    page.get_by_label("Call", exact=True).select_option("matched")
    owner.until("document.querySelectorAll('.recording').length === 1")
    page.get_by_label("Call", exact=True).select_option("")
    page.get_by_label("Find by number").fill("8 (903) 000-00-00")
    headings = "[...document.querySelectorAll('.recording h2')].map((one) => one.textContent)"
    owner.until(f"{headings}.length === 20 && {headings}.every((one) => one.includes('+7 903 000-00-00'))")
    page.get_by_label("Find by number").fill("8 (903) 000-00-01")
    page.get_by_text("No recording fits.").wait_for()
    page.get_by_label("Find by number").fill("")
    broken = recording(owner, "program.wav")
    broken.get_by_text("This is no audio.").wait_for()
    assert broken.locator("audio").count() == 0
    with page.expect_download() as download:
        broken.get_by_role("link", name="Download the recording").click()
    assert download.value.path().read_bytes() == b"MZ this is a program"
    assert owner.complaints() == []


def test_nothing_of_it_is_there_for_another_account(browser: Any, house: Stack, mailbox: str) -> None:
    visitor = Visitor(browser, house.url)
    visited: list[str] = []
    visitor.page.on("request", lambda one: visited.append(one.url.removeprefix(house.url)))
    visitor.enter(f"other-{secrets.token_hex(4)}")
    page = visitor.page
    assert page.get_by_role("link", name="Recordings").count() == 0
    page.goto(f"{house.url}/#/recordings")
    page.reload()
    page.get_by_role("heading", name="Jobs", exact=True).wait_for()
    assert page.locator(".recording, .mailbox").count() == 0
    asked = {one for one in visited if one.startswith(("/api/v1/recordings", "/api/v1/mailboxes", "/api/v1/calls"))}
    assert asked == {"/api/v1/recordings?limit=1", "/api/v1/recordings/status"}
    assert visitor.complaints() == []
    visitor.close()


# ---------------------------------------------------------------- listening


def test_a_recording_plays_and_the_rest_of_it_is_asked_for_where_one_seeks(owner: Visitor, admin: User) -> None:
    page = owner.page
    one = recording(owner, AT_HAND)
    audio = one.locator("audio")
    recording_id = one.get_attribute("data-recording")
    assert audio.evaluate("one => [one.readyState, one.preload, one.controls]") == [0, "none", True]

    def parts() -> list[str]:
        accesses = admin.http.get("/recordings/accesses", params={"recording_id": recording_id}).json()["items"]
        return [each["part"] for each in accesses]

    assert parts() == [], "nothing is loaded before somebody listens"
    audio.evaluate("one => { one.muted = true; return one.play(); }")
    playing = f"document.querySelector('[data-recording=\"{recording_id}\"] audio')"
    owner.until(f"{playing}.currentTime > 0.3")
    assert audio.evaluate("one => Math.round(one.duration)") == LONG_SECONDS
    assert parts() == ["bytes=0-"]
    audio.evaluate(f"one => {{ one.currentTime = {LONG_SECONDS - 20}; }}")
    owner.until(f"{playing}.currentTime > {LONG_SECONDS - 20} + 0.3 && !{playing}.seeking")
    begins = [int(each.removeprefix("bytes=").partition("-")[0]) for each in parts()]
    assert max(begins) > 16000 * (LONG_SECONDS - 60), begins

    recording(owner, AT).locator("audio").first.evaluate("one => { one.muted = true; return one.play(); }")
    assert audio.evaluate("one => one.paused"), "two voices at once are none"
    owner.until("[...document.querySelectorAll('audio')].some((one) => !one.paused && one.currentTime > 0.3)")
    page.get_by_role("link", name="Jobs", exact=True).click()
    page.get_by_role("heading", name="Jobs", exact=True).wait_for()
    assert owner.complaints() == []


def test_what_does_not_play_says_why_and_can_be_tried_again(owner: Visitor) -> None:
    page = owner.page
    answers = ["lost", "no sound", ""]

    def answer(route: Any) -> None:
        if answers[0] == "lost":
            route.abort()
        elif answers[0] == "no sound":
            route.fulfill(body=b"no sound at all", content_type="audio/wav")
        else:
            route.continue_()

    page.route("**/audio", answer)
    one = page.locator(".recording[data-match=matched]")
    play = "one => { one.muted = true; one.play().catch(() => {}); }"
    one.locator("audio").evaluate(play)
    one.get_by_role("alert").get_by_text("The connection was lost.").wait_for()
    answers.pop(0)
    one.locator("audio").evaluate(play)
    one.get_by_role("alert").get_by_text("This browser cannot play it.").wait_for()
    one.get_by_role("link", name="Download the recording").wait_for()
    answers.pop(0)
    one.locator("audio").evaluate(play)
    owner.until("[...document.querySelectorAll('audio')].some((one) => one.currentTime > 0.3)")
    assert one.locator("[role=alert]").text_content() == ""
    assert one.get_by_role("link", name="Download the recording").count() == 0
    assert owner.complaints(but=("ERR_FAILED",)) == []


# ---------------------------------------------------------------- calls


def test_a_recording_is_put_to_its_call_by_hand_and_taken_off(
    browser: Any, house: Stack, admin: User, mailbox: str
) -> None:
    # an admin sees all calls, its owner those alone of which a recording is theirs
    visitor = window(browser, house, ADMIN["username"], ADMIN["password"])
    page = visitor.page
    page.goto(f"{house.url}/#/recordings")
    one = recording(visitor, AT_HAND)
    recording_id = one.get_attribute("data-recording")
    one.get_by_text("No call found").wait_for()
    choose = one.get_by_role("button", name="Choose its call…")
    choose.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Which call is it of?")
    dialog.get_by_text("nearest in time first: 3").wait_for()  # one of them three hours before
    times = dialog.locator("time").evaluate_all("all => all.map((one) => one.getAttribute('datetime'))")
    assert times == ["2025-09-15T11:20:00Z", "2025-09-15T11:40:00Z", "2025-09-15T08:00:00Z"]
    assert dialog.locator(".choice").nth(2).get_by_text("has a recording").count() == 1
    dialog.get_by_label("Also calls with other numbers").check()
    dialog.get_by_text("+7 999 000-00-01").wait_for()
    assert dialog.locator(".choice").count() == 3
    page.keyboard.press("Escape")
    dialog.wait_for(state="detached")
    assert page.evaluate("document.activeElement.textContent") == "Choose its call…", "the focus is back"
    assert admin.http.get(f"/recordings/{recording_id}").json()["call_id"] is None

    page.keyboard.press("Enter")
    dialog.get_by_text("nearest in time first: 3").wait_for()
    dialog.get_by_role("radio").first.focus()
    page.keyboard.press("Space")
    page.keyboard.press("ArrowDown")
    visitor.picture("choosing-a-call")
    page.keyboard.press("Enter")
    one.get_by_text("Call found · by hand").wait_for()
    call = admin.http.get(f"/calls/{admin.http.get(f'/recordings/{recording_id}').json()['call_id']}").json()
    assert call["began_at"] == "2025-09-15T11:40:00Z"
    page.locator("#announcements").get_by_text("The call is chosen").wait_for()
    one.get_by_role("button", name="Not this call").focus()
    page.keyboard.press("Enter")
    page.get_by_role("dialog").get_by_role("button", name="Not this call").click()
    one.get_by_text("No call found").wait_for()
    assert page.evaluate("document.activeElement.textContent") == "Choose its call…"
    assert admin.http.get(f"/recordings/{recording_id}").json()["call_id"] is None
    assert visitor.complaints() == []
    visitor.close()


# ---------------------------------------------------------------- mailboxes


def test_an_admin_sees_how_a_mailbox_stands_tries_it_and_fetches(chief: Visitor, mail: MailServer) -> None:
    page = chief.page
    box = page.locator(".mailbox").filter(has_text="· calls")
    assert box.get_attribute("data-state") == "on"
    assert box.locator("[data-count=found] dd").inner_text() == str(MANY + 3)
    box.get_by_role("button", name="Check").click()
    box.get_by_text(f"Messages in the folder: {MANY + 3}; by the rules: {MANY + 3}.").wait_for()
    assert box.get_by_role("region").locator("tbody tr").count() == 20
    mail.deliver(letter(BEGAN, sound(5000)), letter(BEGAN, sound(5001)), folder="calls")
    box.get_by_role("button", name="Fetch now").click()
    job = box.locator(".job")
    job.wait_for()
    assert job.locator(".stages li").all_inner_texts()[0].startswith("Look")
    box.locator('.job[data-status="succeeded"]').wait_for()
    assert "0 of 2 recordings matched" in job.locator(".said").inner_text()
    chief.until(f"document.querySelector('[data-count=found] dd').textContent === '{MANY + 5}'")
    chief.picture("mailbox-fetched")
    job.get_by_role("link").click()
    page.get_by_role("link", name="Its recordings").click()
    page.get_by_role("heading", name="Recordings of the job").wait_for()
    chief.until("document.querySelectorAll('.recording').length === 2")
    assert chief.complaints() == []


def test_an_owner_sees_how_their_mailbox_stands_and_may_fetch(owner: Visitor) -> None:
    page = owner.page
    page.get_by_role("link", name="Mailboxes").click()
    box = page.locator(".mailbox")
    box.wait_for()
    assert page.get_by_role("button", name="Add a mailbox").count() == 0
    buttons = box.get_by_role("button")
    assert buttons.all_inner_texts() == ["Fetch now"]
    buttons.focus()
    page.keyboard.press("Enter")
    box.locator('.job[data-status="succeeded"]').get_by_text("nothing new").wait_for()
    page.locator("#announcements").get_by_text("recordings at 127.0.0.1: Succeeded").wait_for()
    page.get_by_role("button", name="Русский").click()
    page.get_by_role("heading", name="Почтовые ящики").wait_for()
    assert box.get_by_role("button").all_inner_texts() == ["Забрать сейчас"]
    page.get_by_role("link", name="последняя задача").click()
    page.locator(".said").get_by_text("ничего нового").wait_for()
    assert owner.complaints() == []


def test_a_mailbox_is_added_refused_mended_and_enabled_again(chief: Visitor, admin: User, mail: MailServer) -> None:
    page = chief.page
    page.get_by_role("button", name="Add a mailbox").click()
    dialog = page.get_by_role("dialog", name="Add a mailbox")
    order = mail.order()
    dialog.get_by_label("Mail server (IMAP)").fill("10.0.0.1")
    dialog.get_by_label("Encryption").select_option("none")
    dialog.get_by_label("Port").fill(str(order["port"]))
    dialog.get_by_label("Mailbox username").fill(mail.username)
    dialog.get_by_label("Mailbox password").fill("not this one")
    dialog.get_by_label("Senders").fill("auto-mailer@, x@mango")
    dialog.get_by_role("button", name="Save").click()
    dialog.get_by_role("alert").get_by_text("public").wait_for()
    chief.until("document.activeElement.id === 'box-host'")
    dialog.get_by_label("Mail server (IMAP)").fill(str(order["host"]))
    dialog.get_by_role("button", name="Save").click()
    dialog.wait_for(state="detached")
    box = page.locator(".mailbox").filter(has_text="· INBOX")
    box.get_by_text("Switched off: the login was refused.").wait_for(timeout=20_000)  # by its first scheduled look
    assert box.get_attribute("data-state") == "off"
    mailbox_id = box.get_attribute("data-mailbox")
    made = admin.http.get(f"/mailboxes/{mailbox_id}").json()
    assert made["rules"]["senders"] == ["auto-mailer@", "x@mango"]
    assert box.get_by_role("button", name="Fetch now").is_hidden()
    box.get_by_text("mailbox_login_refused").wait_for()
    chief.picture("mailbox-refused")
    box.get_by_role("button", name="Change…").click()
    dialog = page.get_by_role("dialog", name="Change the mailbox")
    dialog.get_by_label("Mailbox password").fill(mail.password)
    with page.expect_request(lambda one: one.method == "PUT") as put:
        dialog.get_by_role("button", name="Save").click()
    assert json.loads(put.value.post_data) == {"secret": mail.password}, "only what has changed"
    dialog.wait_for(state="detached")
    box.get_by_role("button", name="Enable").click()
    box.get_by_role("button", name="Fetch now").wait_for()
    box.get_by_role("button", name="Check").click()
    box.get_by_text("It works.").wait_for()
    assert chief.complaints(but=("422",)) == []
    admin.http.delete(f"/mailboxes/{mailbox_id}")


# ---------------------------------------------------------------- how it looks


LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"viewport": {"width": 320, "height": 640}},
    "russian": {"locale": "ru-RU"},
}


@pytest.mark.parametrize("look", LOOKS)
def test_it_fits_and_can_be_read_by_machines(
    browser: Any, house: Stack, mailbox: str, look: str, axe: str | None
) -> None:
    visitor = Visitor(browser, house.url, **LOOKS[look])
    page = visitor.page
    if axe:
        page.add_init_script(axe)
    visitor.context.request.post(f"{house.url}/api/v1/auth/login", data={**ADMIN, "session": True})
    visitor.context.add_init_script("localStorage.setItem('millrace.signed-in-until', Date.now() + 3600000)")
    for name, address, there in (
        ("recordings", "#/recordings", ".recording[data-match=matched] summary"),
        ("mailboxes", "#/recordings/mailboxes", ".mailbox button:nth-of-type(2)"),
        ("mailbox", "#/recordings/mailboxes", "main > p > button"),
    ):
        page.goto(f"{house.url}/{address}")
        page.locator(there).first.click()
        page.locator(".recording dd, .mailbox [role=region], dialog").first.wait_for()
        visitor.picture(f"{name}-{look}")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is cut off at the side"
        assert page.evaluate(UNNAMED) == []
        if axe:
            assert json.loads(page.evaluate(RUN_AXE)) == []
    assert visitor.complaints() == []
    visitor.close()
