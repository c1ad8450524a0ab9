"""The password is changed in the console: this window goes on, every other session of the account ends."""

import secrets
from typing import Any

from stack.up import Stack
from tests.browser import Visitor
from tests.console.world import PASSWORD, ZIP, PacedMl, job

NEW = "another horse entirely"


def test_a_new_password_is_asked_for_the_old_one_and_ends_other_sessions(
    house: Stack, browser: Any, ml: PacedMl
) -> None:
    ml.on.set()
    name = f"p-{secrets.token_hex(5)}"
    visitor, elsewhere = Visitor(browser, house.url), Visitor(browser, house.url)
    visitor.enter(name, PASSWORD)
    elsewhere.enter(name, PASSWORD, new=False)
    page = visitor.page
    page.get_by_role("button", name="Change password").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Present password").fill("a wrong one")
    dialog.get_by_label("New password").fill(NEW)
    visitor.picture("password")
    dialog.get_by_role("button", name="Save").click()
    dialog.get_by_text("the current password is needed").wait_for()
    dialog.get_by_label("Present password").fill(PASSWORD)
    dialog.get_by_role("button", name="Save").click()
    dialog.wait_for(state="detached")
    elsewhere.page.get_by_role("heading", name="Sign in").wait_for()
    page.locator('#connection[data-state="live"]').wait_for()
    page.locator("#files").set_input_files([ZIP])
    job(visitor, "succeeded").wait_for()
    api = browser.new_context().request
    for password, status in ((PASSWORD, 401), (NEW, 200)):
        answer = api.post(f"{house.url}/api/v1/auth/login", data={"username": name, "password": password})
        assert answer.status == status
    assert visitor.complaints(but=("422", "400")) == []
    for one in (visitor, elsewhere):
        one.close()
