"""The mailboxes in the console, and how it all looks."""

import json
from typing import Any

import pytest

from stack.imap import MailServer
from stack.up import Stack
from tests.browser import Visitor
from tests.client import ADMIN, User
from tests.console.recordings.world import BEGAN, MANY, letter
from tests.console.test_reading import RUN_AXE, UNNAMED
from tests.mailbox_corpus import sound

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
    box.get_by_role("button", name="Забрать сейчас").wait_for()  # the page is drawn anew
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
