"""What becomes of jobs is seen as it happens, whatever breaks in between, and can be acted on."""

import secrets
from typing import Any

from stack.up import Stack
from tests.browser import Visitor
from tests.console.world import PASSWORD, ZIP, PacedMl, job

CUT_OFF = ("ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE")


def test_a_job_is_watched_to_its_end_though_the_api_dies_in_the_middle(house: Stack, browser: Any, ml: PacedMl) -> None:
    visitor = Visitor(browser, house.url)
    visitor.register(f"v-{secrets.token_hex(5)}", PASSWORD)
    page = visitor.page
    page.evaluate("window.loadedOnce = true")
    page.locator("#files").set_input_files([ZIP])
    card = page.locator(".job")
    card.locator('[data-stage="waiting"][aria-current="step"]').wait_for()
    card.get_by_text("17 of 42 files").wait_for()
    at = int(card.locator("progress").get_attribute("value") or 0)
    assert 10 < at < 80
    visitor.picture("under-way")

    connection = page.locator("#connection")
    page.locator('#connection[data-state="live"]').wait_for()
    assert connection.inner_text() == "Live"
    house.processes["api"].kill()
    ml.on.set()
    page.get_by_text("Reconnecting…").wait_for()
    visitor.picture("reconnecting")
    job(visitor, "succeeded").wait_for(timeout=20_000)
    page.locator('#connection[data-state="live"]').wait_for()
    assert card.locator("progress").get_attribute("value") == "100"
    assert card.locator(".stages .done").count() == 5
    assert page.locator(".job").count() == 1
    assert page.evaluate("window.loadedOnce"), "nothing was loaded anew"
    page.locator("#announcements").get_by_text("образцы.zip: Succeeded").wait_for()
    assert visitor.complaints(but=CUT_OFF) == []
    visitor.close()


def test_a_stream_that_is_refused_is_opened_anew_and_what_happens_elsewhere_is_seen(
    house: Stack, browser: Any, ml: PacedMl
) -> None:
    ml.on.set()
    visitor = Visitor(browser, house.url)
    page = visitor.page
    page.route("**/api/v1/events*", lambda route: route.fulfill(status=502, body="a proxy says so"))
    visitor.enter(f"e-{secrets.token_hex(5)}", PASSWORD)
    page.get_by_text("Reconnecting…").wait_for()
    page.unroute("**/api/v1/events*")
    page.locator('#connection[data-state="live"]').wait_for()
    sent = visitor.context.request.post(
        f"{house.url}/api/v1/jobs",
        multipart={"file": {**ZIP, "name": "elsewhere.zip"}},
        headers={"Sec-Fetch-Site": "same-origin"},
    )
    assert sent.status == 202, sent.text()
    job(visitor, "succeeded").get_by_role("link", name="elsewhere.zip").wait_for()

    other = visitor.context.new_page()
    other.goto(house.url)
    other.locator(".job").wait_for()
    other.get_by_role("button", name="Sign out").click()
    page.get_by_role("heading", name="Sign in").wait_for()
    assert visitor.complaints(but=("502",)) == []
    visitor.close()


def test_a_job_is_cancelled_run_again_and_deleted(visitor: Visitor, ml: PacedMl) -> None:
    page = visitor.page
    page.locator("#files").set_input_files([ZIP])
    page.locator('[data-stage="waiting"][aria-current="step"]').wait_for()
    cancel = page.get_by_role("button", name="Cancel: образцы.zip")
    cancel.focus()
    cancel.press("Enter")
    job(visitor, "cancelled").wait_for()
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Run again: образцы.zip"
    ml.on.set()
    page.keyboard.press("Enter")
    job(visitor, "succeeded").wait_for()
    assert [one.get_attribute("data-status") for one in page.locator(".job").all()] == ["succeeded", "cancelled"]

    remove = job(visitor, "cancelled").get_by_role("button", name="Delete: образцы.zip")
    remove.click()
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.textContent") == "Delete", "the focus is back where it was"
    remove.click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    job(visitor, "cancelled").wait_for(state="detached")
    assert page.locator(".job").count() == 1
    page.reload()
    page.locator(".job").wait_for()
    assert page.locator(".job").count() == 1
    assert visitor.complaints() == []


def order(visitor: Visitor, name: str, content: bytes, profile: str = "") -> None:
    page = visitor.page
    if not page.locator("#profile").is_visible():
        page.get_by_text("Options for the next files").click()
    page.get_by_label("Profile").fill(profile)
    page.locator("#files").set_input_files([{"name": name, "mimeType": "text/plain", "buffer": content}])


def test_why_a_job_failed_is_told_in_both_languages(visitor: Visitor) -> None:
    page = visitor.page
    order(visitor, "scan.txt", b"some text\n", "fails")
    job(visitor, "failed").wait_for()
    reason = page.locator(".reason")
    assert reason.get_by_text("The ML service could not do it: the scanner was upside down").is_visible()
    assert reason.locator("code").inner_text() == "ml_failed"
    stage = reason.inner_text().splitlines()[-1]
    # the service may call back before the step that submitted it has come to its end
    assert "ML service" in stage or "Hand over" in stage
    page.get_by_role("button", name="Русский").click()
    page.get_by_text("ML-сервис не справился: the scanner was upside down").wait_for()
    assert page.locator("html").get_attribute("lang") == "ru"
    assert page.get_by_role("heading", name="Ваши задачи").is_visible()
    page.reload()
    page.get_by_text("ML-сервис не справился").wait_for()
    visitor.picture("russian")
    assert visitor.complaints() == []


def test_many_jobs_come_in_pages_and_can_be_searched(visitor: Visitor) -> None:
    page = visitor.page
    for number in range(23):
        made = visitor.context.request.post(
            f"{visitor.url}/api/v1/jobs", data={"title": f"job {number}"}, headers={"Sec-Fetch-Site": "same-origin"}
        )
        assert made.status == 202
    page.reload()
    titles = page.locator(".job h3")
    page.get_by_role("button", name="Show older jobs").click()
    visitor.until("document.querySelectorAll('.job').length === 23")
    assert titles.all_inner_texts() == [f"job {number}" for number in range(22, -1, -1)]
    page.get_by_label("Find by title").fill("job 2")
    visitor.until("document.querySelectorAll('.job').length === 4")
    assert titles.all_inner_texts() == ["job 22", "job 21", "job 20", "job 2"]
    page.get_by_label("State").select_option("failed")
    page.get_by_text("No job fits.").wait_for()
    assert visitor.complaints() == []
