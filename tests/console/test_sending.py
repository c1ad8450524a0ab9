"""Files on their way: seen, stopped, refused, and sent again without becoming two jobs."""

import base64
from typing import Any

from tests.browser import Visitor
from tests.console.world import ARCHIVE, ZIP, PacedMl


def test_sending_is_seen_can_be_stopped_and_be_taken_up_again_after_a_broken_connection(visitor: Visitor) -> None:
    page = visitor.page
    network = visitor.context.new_cdp_session(page)
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 1_000_000}
    network.send("Network.emulateNetworkConditions", slow)
    big = {"name": "big.txt", "mimeType": "text/plain", "buffer": b"some text\n" * 300_000}
    page.locator("#files").set_input_files([big])
    visitor.until("(document.querySelector('.sendings progress')?.value ?? 0) % 1 > 0")
    page.get_by_role("button", name="Stop: big.txt").press("Enter")
    page.locator(".sendings li").wait_for(state="detached")
    assert page.evaluate("document.activeElement.id") == "files"
    network.send("Network.emulateNetworkConditions", {**slow, "uploadThroughput": -1})
    keys: list[str] = []

    def first_is_lost(route: Any) -> None:
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) == 1:
            route.fetch()  # it has arrived, and the answer is lost
            route.abort("connectionreset")
        else:
            route.continue_()

    page.route("**/api/v1/jobs", first_is_lost)
    page.locator("#files").set_input_files([ZIP])
    page.locator('.sendings [data-state="failed"]').get_by_text("The connection was lost.").wait_for()
    page.get_by_role("button", name="Send again: образцы.zip").click()
    page.locator(".sendings li").wait_for(state="detached")
    assert keys[0] == keys[1]
    page.reload()
    page.locator(".job").wait_for()
    assert page.locator(".job").count() == 1, "one job, whatever became of the first answer"
    assert visitor.complaints(but=("ERR_CONNECTION_RESET", "ERR_ABORTED")) == []


def test_what_is_not_taken_says_why_and_can_be_sent_again(visitor: Visitor) -> None:
    page = visitor.page
    big = {"name": "big.bin", "mimeType": "application/octet-stream", "buffer": bytes(5 * 1024**2)}
    page.locator("#files").set_input_files([big, ZIP])
    page.locator(".job").wait_for()
    failed = page.locator('.sendings [data-state="failed"]')
    failed.wait_for()
    assert failed.get_by_role("button", name="Send again: big.bin").is_visible()
    failed.get_by_role("button", name="Stop: big.bin").click()
    failed.wait_for(state="detached")
    assert page.evaluate("document.activeElement.id") == "files"


DROP = """(content) => {
  const data = new DataTransfer();
  data.items.add(new File([Uint8Array.from(atob(content), (one) => one.charCodeAt(0))], "dropped.zip"));
  data.items.add(new File(["some text"], "dropped.txt"));
  for (const place of [document.querySelector("footer"), document.querySelector(".drop")]) {
    const event = new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true});
    place.dispatchEvent(event);
    if (!event.defaultPrevented) throw new Error("the browser would leave the page");
  }
}"""


def test_files_are_dropped_into_their_place_and_nowhere_else(visitor: Visitor, ml: PacedMl) -> None:
    ml.on.set()
    page = visitor.page
    page.evaluate(DROP, base64.b64encode(ARCHIVE).decode())
    page.locator('.job[data-status="succeeded"]').nth(1).wait_for()
    assert sorted(page.locator(".job h3").all_inner_texts()) == ["dropped.txt", "dropped.zip"]
    assert visitor.complaints() == []
