"""Recordings in the console: listened to, found, put to their calls."""

import secrets
from typing import Any

from stack.up import Stack
from tests.browser import Visitor
from tests.client import ADMIN, User
from tests.console.recordings.world import AT, AT_HAND, LONG_SECONDS, MANY, recording, window

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
