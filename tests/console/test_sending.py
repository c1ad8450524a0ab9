"""Files on their way: seen, paused, stopped, refused, gone on with whatever broke, and never two jobs."""

import base64
import hashlib
import os
import time
from pathlib import Path
from typing import Any

import pytest

from stack.up import Stack
from tests.browser import Visitor
from tests.console.test_jobs import CUT_OFF
from tests.console.world import ARCHIVE, ZIP, PacedMl, job

MIB = 1024**2


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large enough that parts of it survive the API's death; on disk, for a browser knows a file by its time too."""
    path = tmp_path_factory.mktemp("files") / "big.bin"
    path.write_bytes(os.urandom(14 * MIB))
    return path


class Network:
    """How fast the page may send, in bytes a second."""

    def __init__(self, visitor: Visitor) -> None:
        self._session = visitor.context.new_cdp_session(visitor.page)

    def at(self, rate: float) -> None:
        slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": rate}
        self._session.send("Network.emulateNetworkConditions", slow)


def send(visitor: Visitor, path: Path) -> None:
    visitor.page.locator("#files").set_input_files(path)


def until_sent(visitor: Visitor, share: float) -> None:
    visitor.until(f"(document.querySelector('.sendings progress')?.value ?? 0) > {share}")


def ended(visitor: Visitor) -> None:
    """The one job has come to its end: nobody works for it any more when the test is over."""
    job(visitor, "succeeded").wait_for(timeout=20_000)


def jobs_of(visitor: Visitor) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = visitor.context.request.get(f"{visitor.url}/api/v1/jobs").json()["items"]
    return items


def test_sending_is_seen_and_can_be_paused_gone_on_with_and_stopped(visitor: Visitor, big: Path) -> None:
    page, network = visitor.page, Network(visitor)
    uploads: list[str] = []
    page.on("request", lambda request: uploads.append(request.url) if request.method == "PATCH" else None)
    network.at(2.5 * MIB)
    send(visitor, big)
    until_sent(visitor, 0.1)
    row = page.locator(".sendings li")
    row.get_by_text("left").wait_for()
    visitor.picture("sending")
    page.get_by_role("button", name="Pause: big.bin").press("Enter")
    page.locator('.sendings [data-state="paused"]').wait_for()
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Go on: big.bin"
    asked = len(uploads)
    page.wait_for_timeout(300)
    assert len(uploads) == asked
    page.keyboard.press("Enter")
    page.locator('.sendings [data-state="sending"]').wait_for()
    visitor.until("document.querySelector('.sendings progress').value > 0")
    page.get_by_role("button", name="Stop: big.bin").press("Enter")
    row.wait_for(state="detached")
    assert page.evaluate("document.activeElement.id") == "files"
    deadline = time.monotonic() + 10
    while (status := visitor.context.request.get(uploads[0]).status) != 404:
        assert time.monotonic() < deadline, f"what was sent is still there: {status}"
        page.wait_for_timeout(50)
    assert page.evaluate("localStorage.getItem('millrace.uploads')") == "[]"
    assert jobs_of(visitor) == []
    assert visitor.complaints(but=("ERR_ABORTED", "423")) == []


def test_an_upload_goes_on_by_itself_though_the_api_dies_in_the_middle(
    house: Stack, visitor: Visitor, big: Path, ml: PacedMl
) -> None:
    ml.on.set()
    page, network = visitor.page, Network(visitor)
    offsets: list[int] = []

    def note(request: Any) -> None:
        if request.method == "PATCH":
            offsets.append(int(request.headers["upload-offset"]))

    page.on("request", note)
    network.at(4 * MIB)
    send(visitor, big)
    until_sent(visitor, 0.6)
    house.processes["api"].kill()
    page.get_by_text("It goes on by itself.").wait_for()
    visitor.picture("sending-troubled")
    network.at(-1)
    ended(visitor)
    (made,) = jobs_of(visitor)
    assert (made["title"], made["file"]["sha256"]) == ("big.bin", hashlib.sha256(big.read_bytes()).hexdigest())
    assert offsets[0] == 0
    assert offsets[-1] >= 5 * MIB, "what the API had stored was not sent again"
    assert visitor.complaints(but=(*CUT_OFF, "ERR_CONNECTION_ABORTED")) == []


def on_a_phone(visitor: Visitor) -> None:
    """The same in Russian, in the dark, 320 pixels wide."""
    page = visitor.page
    page.set_viewport_size({"width": 320, "height": 640})
    page.emulate_media(color_scheme="dark")
    page.get_by_role("button", name="Русский").click()
    page.get_by_role("button", name="Выбрать файл: big.bin").wait_for()
    visitor.picture("sending-phone")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is cut off at the side"
    page.get_by_role("button", name="English").click()
    page.set_viewport_size({"width": 1200, "height": 900})


def test_after_a_reload_the_upload_is_gone_on_with_once_the_file_is_chosen(
    visitor: Visitor, big: Path, ml: PacedMl
) -> None:
    ml.on.set()
    page, network = visitor.page, Network(visitor)
    network.at(4 * MIB)
    send(visitor, big)
    until_sent(visitor, 0.5)
    page.reload()
    kept = page.locator('.sendings [data-state="kept"]')
    kept.get_by_text("begun before; choose the file again to go on").wait_for()
    assert float(kept.locator("progress").get_attribute("value") or 0) > 0
    visitor.picture("sending-kept")
    on_a_phone(visitor)
    offsets: list[int] = []
    page.on("request", lambda one: one.method == "PATCH" and offsets.append(int(one.headers["upload-offset"])))
    choose = page.get_by_role("button", name="Choose the file: big.bin")
    with page.expect_file_chooser() as chooser:
        choose.press("Enter")
    chooser.value.set_files([{"name": "big.bin", "mimeType": "text/plain", "buffer": b"another one"}])
    kept.get_by_text("That is another file than big.bin was.").wait_for()
    network.at(-1)
    with page.expect_file_chooser() as chooser:
        choose.press("Enter")
    chooser.value.set_files(big)
    ended(visitor)
    (made,) = jobs_of(visitor)
    assert made["file"]["sha256"] == hashlib.sha256(big.read_bytes()).hexdigest()
    assert offsets
    assert min(offsets) > 0
    page.reload()
    page.locator(".job").wait_for()
    assert page.locator(".sendings li").count() == 0
    assert visitor.complaints(but=("ERR_ABORTED",)) == []


def test_a_lost_answer_makes_no_second_job_and_a_lost_upload_is_begun_anew(visitor: Visitor, ml: PacedMl) -> None:
    ml.on.set()
    page = visitor.page
    seen: list[str] = []

    def first_is_lost(route: Any) -> None:
        seen.append(route.request.method)
        if route.request.method == "PATCH" and seen.count("PATCH") == 1:
            route.fetch()  # it has arrived, and the answer is lost
            route.abort("connectionreset")
        elif route.request.method == "HEAD" and seen.count("HEAD") == 1:
            route.fulfill(status=410)  # as if it had expired between its beginning and now
        else:
            route.continue_()

    page.route("**/api/v1/uploads/*", first_is_lost)
    page.locator("#files").set_input_files([ZIP])
    ended(visitor)
    page.locator(".sendings li").wait_for(state="detached")
    assert seen[:3] == ["HEAD", "HEAD", "PATCH"]
    assert [one["title"] for one in jobs_of(visitor)] == ["образцы.zip"], "one job, whatever became of the first answer"
    assert visitor.complaints(but=("ERR_CONNECTION_RESET", "410")) == []


def test_what_is_not_taken_says_why_and_can_be_sent_again(visitor: Visitor, tmp_path: Path, ml: PacedMl) -> None:
    ml.on.set()
    page = visitor.page
    (tmp_path / "big.bin").write_bytes(bytes(25 * MIB))
    (tmp_path / ZIP["name"]).write_bytes(ARCHIVE)
    page.locator("#files").set_input_files([tmp_path / "big.bin", tmp_path / ZIP["name"]])
    ended(visitor)
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
