"""Signing in and out, without a mouse, and what is left afterwards."""

import secrets
import time
from typing import Any

import httpx

from stack.up import Stack
from tests.browser import Visitor
from tests.console.world import PASSWORD, ZIP, PacedMl, job


def test_signing_in_and_sending_a_file_need_no_mouse(house: Stack, browser: Any, ml: PacedMl) -> None:
    ml.on.set()
    account = {"username": f"keys-{secrets.token_hex(4)}", "password": PASSWORD}
    httpx.post(f"{house.url}/api/v1/auth/register", json=account).raise_for_status()
    visitor = Visitor(browser, house.url)
    page = visitor.page
    press = page.keyboard.press
    choosers: list[Any] = []
    page.on("filechooser", lambda one: choosers.append(one))  # noqa: PLW0108  # it takes no built-in method
    page.goto(house.url)
    page.get_by_role("heading", name="Sign in").wait_for()
    page.keyboard.type(account["username"])
    press("Tab")
    page.keyboard.type("not the password")
    press("Enter")
    page.get_by_role("alert").get_by_text("The username or the password is wrong.").wait_for()
    assert page.evaluate("document.activeElement.id") == "password"
    press("Control+A")
    page.keyboard.type(account["password"])
    press("Enter")
    page.get_by_role("heading", name="Jobs", exact=True).wait_for()
    visitor.until("document.activeElement.tagName === 'H1'")
    press("Tab")
    assert page.evaluate("document.activeElement.id") == "files"
    outline = page.locator(".drop .button").evaluate("node => getComputedStyle(node).outlineStyle")
    assert outline == "solid", "the focus can be seen"
    press("Enter")
    deadline = time.monotonic() + 10
    while not choosers and time.monotonic() < deadline:
        page.wait_for_timeout(25)
    choosers[0].set_files([ZIP])
    job(visitor, "succeeded").wait_for()
    for _ in range(20):
        press("Tab")
        if page.evaluate("document.activeElement.textContent") == "образцы.zip":
            break
    press("Enter")
    page.get_by_role("heading", name="Results").wait_for()
    visitor.until("document.activeElement.tagName === 'H1'")
    bad = [line for line in visitor.complaints() if "401" not in line]  # the wrong password
    assert bad == []
    visitor.close()


def test_signing_out_leaves_nothing_behind(visitor: Visitor) -> None:
    page = visitor.page
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("heading", name="Sign in").wait_for()
    assert visitor.context.cookies() == []
    assert page.locator(".job").count() == 0
    page.evaluate("location.hash = '#/jobs'")
    page.get_by_role("heading", name="Sign in").wait_for()
    assert page.evaluate("fetch('/api/v1/auth/me').then((answer) => answer.status)") == 401


def test_a_session_that_ends_asks_to_sign_in_again(visitor: Visitor) -> None:
    visitor.context.clear_cookies()
    visitor.page.get_by_label("State").select_option("failed")
    visitor.page.get_by_text("The session has ended. Sign in again.").wait_for()
