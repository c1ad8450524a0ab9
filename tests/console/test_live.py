"""What is known of a job only moves forward, and any number of tabs hear of it over one stream."""

import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from stack.up import Stack
from tests.browser import Visitor
from tests.console.world import PASSWORD, ZIP, PacedMl, job

COUNTED = """window.opened = 0;
window.EventSource = class extends EventSource { constructor(url) { super(url); window.opened += 1; } };"""


@pytest.fixture
def tabs(house: Stack, browser: Any, ml: PacedMl) -> Iterator[list[Any]]:
    """Eight of one browser, all of which show that they are live."""
    ml.on.clear()
    visitor = Visitor(browser, house.url)
    visitor.context.add_init_script(COUNTED)
    visitor.enter(f"t-{secrets.token_hex(5)}", PASSWORD)
    tabs = [visitor.page, *(visitor.context.new_page() for _ in range(7))]
    for tab in tabs[1:]:
        tab.set_default_timeout(10_000)
        tab.goto(house.url)
    for tab in tabs:
        tab.locator('#connection[data-state="live"]').wait_for()
    yield tabs
    ml.on.set()
    visitor.close()


def card(tab: Any, name: str, status: str) -> Any:
    return tab.locator(f'.job[data-status="{status}"]', has=tab.get_by_role("link", name=name, exact=True))


def send(tab: Any, name: str) -> None:
    tab.locator("#files").set_input_files([{**ZIP, "name": name}])


def waits(tab: Any, name: str) -> None:
    card(tab, name, "processing").locator('[data-stage="waiting"][aria-current="step"]').wait_for()


def streams(tabs: list[Any]) -> list[int]:
    """How many each tab has opened in all."""
    return [tab.evaluate("window.opened") for tab in tabs]


def hold_first(page: Any) -> list[Any]:
    """Where the answer to the first question about a single job is put, in place of being delivered."""
    held: list[Any] = []

    def hold(route: Any) -> None:
        if held or route.request.method != "GET":
            route.continue_()
        else:
            held.append(route)
            held.append(route.fetch())

    page.route("**/api/v1/jobs/*-*", hold)
    return held


def deliver(page: Any, held: list[Any]) -> None:
    route, answer = held
    route.fulfill(response=answer)
    page.evaluate("new Promise((done) => setTimeout(done, 200))")  # for the page to have read it


def test_a_late_answer_does_not_undo_the_end_of_a_job(visitor: Visitor, ml: PacedMl) -> None:
    page = visitor.page
    held = hold_first(page)
    sent = visitor.context.request.post(
        f"{visitor.url}/api/v1/jobs", multipart={"file": ZIP}, headers={"Sec-Fetch-Site": "same-origin"}
    )
    assert sent.status == 202
    page.locator('[data-stage="waiting"][aria-current="step"]').wait_for()
    ml.on.set()
    job(visitor, "succeeded").wait_for()
    assert held[1].json()["status"] in ("queued", "processing")
    deliver(page, held)
    assert page.locator(".job").get_attribute("data-status") == "succeeded"
    assert page.locator(".job progress").get_attribute("value") == "100"
    assert visitor.complaints() == []


def test_a_late_answer_does_not_bring_back_what_was_deleted(visitor: Visitor, ml: PacedMl) -> None:
    page = visitor.page
    page.locator("#files").set_input_files([ZIP])
    page.locator('[data-stage="waiting"][aria-current="step"]').wait_for()
    held = hold_first(page)
    ml.on.set()
    while len(held) < 2:
        page.wait_for_timeout(25)
    page.get_by_role("button", name="Delete: образцы.zip").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.locator(".job").wait_for(state="detached")
    deliver(page, held)
    assert page.locator(".job").count() == 0
    assert visitor.complaints() == []


def test_eight_tabs_see_a_job_to_its_end_over_one_stream(tabs: list[Any], ml: PacedMl) -> None:
    send(tabs[0], "a.zip")
    for tab in tabs:
        waits(tab, "a.zip")
    ml.on.set()
    for tab in tabs:
        card(tab, "a.zip", "succeeded").wait_for()
    tabs[5].get_by_role("button", name="Run again: a.zip").click()
    for tab in tabs:
        tab.locator('.job[data-status="succeeded"]').nth(1).wait_for()
    assert sorted(streams(tabs)) == [0] * 7 + [1]


def test_when_the_tab_with_the_stream_is_closed_nobody_misses_anything(tabs: list[Any], ml: PacedMl) -> None:
    send(tabs[3], "a.zip")
    send(tabs[4], "b.zip")
    for tab in tabs:
        waits(tab, "a.zip")
        waits(tab, "b.zip")
    leader = streams(tabs).index(1)
    left = [tab for place, tab in enumerate(tabs) if place != leader]
    tabs[leader].close(run_before_unload=False)
    ml.on.set()
    for tab in left:
        card(tab, "a.zip", "succeeded").wait_for()
        card(tab, "b.zip", "succeeded").wait_for()
        assert tab.locator("#connection").inner_text() == "Live"
    assert sorted(streams(left)) == [0] * 6 + [1]


def test_a_tab_that_sleeps_with_the_stream_is_replaced(tabs: list[Any], ml: PacedMl) -> None:
    opened = streams(tabs)
    asleep = tabs[opened.index(1)]
    awake = [tab for tab in tabs if tab is not asleep]
    dialogs: list[Any] = []

    def left_open(dialog: Any) -> None:
        dialogs.append(dialog)

    asleep.on("dialog", left_open)
    asleep.evaluate("void setTimeout(() => alert('nothing of this page goes on until somebody comes'))")
    while not dialogs:
        awake[0].wait_for_timeout(25)
    send(awake[0], "a.zip")
    for tab in awake[:2]:  # somebody looks at them
        tab.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    ml.on.set()
    for tab in awake:
        card(tab, "a.zip", "succeeded").wait_for()
    assert sum(streams(awake)) in (1, 2)  # two may have asked at the same moment
    dialogs[0].dismiss()
    send(asleep, "b.zip")
    for tab in tabs:
        card(tab, "b.zip", "succeeded").wait_for()
    assert sum(streams(tabs)) in (2, 3), "who wakes up leaves it to who has it"


def test_without_locks_each_tab_has_a_stream_of_its_own(house: Stack, browser: Any, ml: PacedMl) -> None:
    ml.on.set()
    visitor = Visitor(browser, house.url)
    visitor.context.add_init_script(COUNTED)
    visitor.context.add_init_script("Object.defineProperty(Navigator.prototype, 'locks', {value: undefined})")
    visitor.enter(f"o-{secrets.token_hex(5)}", PASSWORD)
    other = visitor.context.new_page()
    other.goto(house.url)
    for tab in (visitor.page, other):
        tab.locator('#connection[data-state="live"]').wait_for()
    send(other, "a.zip")
    for tab in (visitor.page, other):
        card(tab, "a.zip", "succeeded").wait_for(timeout=10_000)
    assert streams([visitor.page, other]) == [1, 1]
    visitor.close()
