"""Recordings and mailboxes are removed and put on and off the schedule from the console, and old messages fetched."""

import pytest

from stack.imap import MailServer
from tests.browser import Visitor
from tests.client import User
from tests.recordings_house import folder_with, watched


def test_a_mailbox_is_taken_off_the_schedule_and_put_on_it_and_forgotten(
    chief: Visitor, admin: User, mail: MailServer
) -> None:
    folder_with(mail, "passing")
    mailbox_id = watched(admin, mail, "passing")
    page = chief.page
    page.reload()
    box = page.locator(f'[data-mailbox="{mailbox_id}"]')
    box.get_by_role("button", name="Stop the schedule").click()
    box.get_by_text("not by the schedule").wait_for()
    assert admin.http.get(f"/mailboxes/{mailbox_id}").json()["scheduled"] is False
    box.get_by_role("button", name="Look by the schedule").click()
    box.get_by_role("button", name="Stop the schedule").wait_for()
    assert admin.http.get(f"/mailboxes/{mailbox_id}").json()["scheduled"] is True
    others = page.locator(".mailbox").count() - 1
    box.get_by_role("button", name="Forget").click()
    page.get_by_role("dialog").get_by_role("button", name="Forget").click()
    box.wait_for(state="detached")
    assert admin.http.get(f"/mailboxes/{mailbox_id}").status_code == 404
    assert page.locator(".mailbox").count() == others
    assert page.evaluate("document.activeElement.tagName") == "H1"
    assert chief.complaints() == []


def test_messages_of_the_last_days_are_asked_for(owner: Visitor) -> None:
    page = owner.page
    page.get_by_role("link", name="Mailboxes").click()
    box = page.locator(".mailbox")
    box.get_by_text("Fetch older messages too").click()
    days = box.get_by_label("Days back")
    days.fill("0")
    box.get_by_role("button", name="Fetch now").click()
    assert box.locator(".job").count() == 0
    days.fill("30")
    with page.expect_request("**/recordings/download*") as asked:
        box.get_by_role("button", name="Fetch now").click()
    assert "days_back=30" in asked.value.url
    box.locator('.job[data-status="succeeded"]').wait_for()
    owner.picture("mailbox-days-back")
    assert owner.complaints() == []


@pytest.mark.usefixtures("mailbox")
def test_a_recording_is_deleted_after_a_question(owner: Visitor, admin: User) -> None:
    page = owner.page
    page.get_by_text("Those that came last stand first.").wait_for()
    first = page.locator(".recording").first
    recording_id = first.get_attribute("data-recording")
    remove = first.get_by_role("button", name="Delete")
    remove.click()
    page.get_by_role("button", name="Keep it").click()
    assert admin.http.get(f"/recordings/{recording_id}").status_code == 200
    remove.click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.locator(f'[data-recording="{recording_id}"]').wait_for(state="detached")
    assert admin.http.get(f"/recordings/{recording_id}").status_code == 404
    assert owner.complaints() == []
