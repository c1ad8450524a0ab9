"""The console in a real Chromium: everything a person does there, before a real stack; the API dies in the middle."""

import csv
import io
import json
import re
import secrets
import subprocess
import threading
import time
import zipfile
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from stack.samples import DISGUISED, make_archive
from stack.up import Stack, running
from tests.brokers import broker_env
from tests.browser import Visitor, chromium
from tests.integration.conftest import ML_TOKEN
from tests.scripted_ml import PROFILES, ScriptedMl

ARCHIVE = make_archive()
NAMES = zipfile.ZipFile(io.BytesIO(ARCHIVE)).namelist()
ZIP = {"name": "образцы.zip", "mimeType": "application/zip", "buffer": ARCHIVE}
PASSWORD = "correct horse battery"
CUT_OFF = ("ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE")


def verdicts() -> bytes:
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["path", "detected_type", "score", "flagged"])
    for place, name in enumerate(NAMES):
        rows.writerow([name, name.rpartition(".")[2] or "text", round(0.99 - place * 7 % 50 / 100, 2), name in DISGUISED])
    return text.getvalue().encode()


class PacedMl(ScriptedMl):
    """Goes to 40 % by itself and on from there when it is told to."""

    def __init__(self, token: str) -> None:
        super().__init__(token)
        self.on = threading.Event()

    def _paced(self, request: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        def work() -> None:
            time.sleep(0.3)
            url = request["callback_url"].replace("completion", "progress")
            told = {"progress": 40, "message": "17 of 42 files"}
            httpx.post(url, json=told, headers={"Authorization": f"Bearer {self.token}"}, timeout=20)
            self.on.wait(60)
            self.deliver(request, verdicts())
            while True:  # as a service does: the API may be away
                try:
                    self.complete(request, status="done", output_object=request["output_object"])
                except httpx.TransportError:
                    time.sleep(0.1)
                else:
                    return

        return self._later(work)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def ml(browser: Any) -> Iterator[PacedMl]:
    ml = PacedMl(ML_TOKEN)
    with ml:
        yield ml
        ml.on.set()


@pytest.fixture(scope="module")
def house(ml: PacedMl) -> Iterator[Stack]:
    env = {
        "ML_SERVICE_URL": ml.url,
        "ML_SERVICE_TOKEN": ML_TOKEN,
        "ML_PROFILES": f"{PROFILES},paced",
        "ML_DEFAULT_PROFILE": "paced",
        "SWEEP_SECONDS": "0.5",
        "LEASE_SECONDS": "3",
        "MAX_UPLOAD_BYTES": str(4 * 1024**2),
        **broker_env(),
    }
    with running(only=["api", "worker", "sweeper", "beat"], env=env) as stack:
        yield stack


@pytest.fixture
def visitor(house: Stack, browser: Any, ml: PacedMl) -> Iterator[Visitor]:
    ml.on.clear()
    visitor = Visitor(browser, house.url)
    visitor.enter(f"v-{secrets.token_hex(5)}", PASSWORD)
    yield visitor
    ml.on.set()
    visitor.close()


@pytest.fixture(scope="module")
def done(house: Stack, browser: Any, ml: PacedMl) -> Iterator[Visitor]:
    """With one job that has succeeded, on the list; it is only looked at."""
    ml.on.set()
    visitor = Visitor(browser, house.url)
    visitor.enter(f"d-{secrets.token_hex(5)}", PASSWORD)
    visitor.page.locator("#files").set_input_files([ZIP])
    job(visitor, "succeeded").wait_for()
    yield visitor
    visitor.close()


def job(visitor: Visitor, status: str) -> Any:
    return visitor.page.locator(f'.job[data-status="{status}"]')


def order(visitor: Visitor, name: str, content: bytes, profile: str = "") -> None:
    page = visitor.page
    if not page.locator("#profile").is_visible():
        page.get_by_text("Options for the next files").click()
    page.get_by_label("Profile").fill(profile)
    page.locator("#files").set_input_files([{"name": name, "mimeType": "text/plain", "buffer": content}])


# ---------------------------------------------------------------- the main way


def test_a_job_is_watched_to_its_end_though_the_api_dies_in_the_middle(
    house: Stack, browser: Any, ml: PacedMl
) -> None:
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


def column(page: Any, name: str) -> list[str]:
    table = page.get_by_role("region", name="Results")
    heads = [re.sub(r"\W+$", "", head) for head in table.locator("thead th").all_inner_texts()]
    return list(table.locator(f"tbody tr > :nth-child({heads.index(name) + 1})").all_inner_texts())


def test_results_are_sorted_whole_and_flagged_rows_stand_out(done: Visitor) -> None:
    page = done.page
    page.get_by_role("link", name="образцы.zip").click()
    results = page.get_by_role("region", name="Results")
    results.wait_for()
    pages = page.get_by_role("group", name="Pages of: Results")
    pages.get_by_text(f"1–25 of {len(NAMES)}").wait_for()
    assert column(page, "File") == NAMES[:25]
    pages.get_by_role("button", name="Next").press("Enter")
    pages.get_by_text(f"26–{len(NAMES)} of {len(NAMES)}").wait_for()
    assert column(page, "File") == NAMES[25:]
    assert set(results.locator("tr.marked th").all_inner_texts()) == DISGUISED
    assert results.get_by_text("Flagged", exact=False).count() >= len(DISGUISED), "not by colour alone"

    sure = results.get_by_role("button", name="Sure")
    sure.click()
    results.locator('th[aria-sort="ascending"]').wait_for()
    scores = [float(text) for text in column(page, "Sure")]
    everything = sorted(float(row["score"]) for row in csv.DictReader(io.StringIO(verdicts().decode())))
    assert scores == everything[:25], "the smallest of all rows, not of a page"
    sure.click()
    results.locator('th[aria-sort="descending"]').wait_for()
    assert [float(text) for text in column(page, "Sure")] == everything[::-1][:25]
    page.get_by_label("Only flagged").check()
    pages.get_by_text(f"1–{len(DISGUISED)} of {len(DISGUISED)}").wait_for()
    assert set(column(page, "File")) == DISGUISED
    done.picture("results")

    archive = page.get_by_role("group", name="Pages of: In the archive")
    archive.get_by_role("button", name="Next").click()
    archive.get_by_text(f"26–{len(NAMES)} of {len(NAMES)}").wait_for()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download results (XLSX)").click()
    assert zipfile.is_zipfile(download.value.path())
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the file").click()
    assert download.value.path().read_bytes() == ARCHIVE
    assert download.value.suggested_filename == "образцы.zip"
    assert done.complaints() == []


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


def test_why_a_job_failed_is_told_in_both_languages(visitor: Visitor) -> None:
    page = visitor.page
    order(visitor, "scan.txt", b"some text\n", "fails")
    job(visitor, "failed").wait_for()
    reason = page.locator(".reason")
    assert reason.get_by_text("The ML service could not do it: the scanner was upside down").is_visible()
    assert reason.locator("code").inner_text() == "ml_failed"
    assert "ML service" in reason.inner_text().splitlines()[-1]
    page.get_by_role("button", name="Русский").click()
    page.get_by_text("ML-сервис не справился: the scanner was upside down").wait_for()
    assert page.locator("html").get_attribute("lang") == "ru"
    assert page.get_by_role("heading", name="Ваши задачи").is_visible()
    page.reload()
    page.get_by_text("ML-сервис не справился").wait_for()
    visitor.picture("russian")
    assert visitor.complaints() == []


# ---------------------------------------------------------------- by keyboard, by ear, on a phone


def test_signing_in_and_sending_a_file_need_no_mouse(house: Stack, browser: Any, ml: PacedMl) -> None:
    ml.on.set()
    account = {"username": f"keys-{secrets.token_hex(4)}", "password": PASSWORD}
    httpx.post(f"{house.url}/api/v1/auth/register", json=account).raise_for_status()
    visitor = Visitor(browser, house.url)
    page = visitor.page
    press = page.keyboard.press
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
    page.wait_for_function("document.activeElement.tagName === 'H1'")
    press("Tab")
    assert page.evaluate("document.activeElement.id") == "files"
    outline = page.locator(".drop .button").evaluate("node => getComputedStyle(node).outlineStyle")
    assert outline == "solid", "the focus can be seen"
    with page.expect_file_chooser() as chooser:
        press("Enter")
    chooser.value.set_files([ZIP])
    job(visitor, "succeeded").wait_for()
    for _ in range(20):
        press("Tab")
        if page.evaluate("document.activeElement.textContent") == "образцы.zip":
            break
    press("Enter")
    page.get_by_role("heading", name="Results").wait_for()
    page.wait_for_function("document.activeElement.tagName === 'H1'")
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


LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"viewport": {"width": 320, "height": 640}},
}


@pytest.mark.parametrize("look", LOOKS)
def test_it_fits_and_can_be_read_by_machines(done: Visitor, browser: Any, look: str, axe: str | None) -> None:
    other = Visitor(browser, done.url, storage_state=done.context.storage_state(), **LOOKS[look])
    page = other.page
    if axe:
        page.add_init_script(axe)
    page.goto(done.url)
    page.locator(".job").wait_for()
    for name in ("list", "job"):
        if name == "job":
            page.get_by_role("link", name="образцы.zip").click()
            page.get_by_text(f"1–25 of {len(NAMES)}").nth(1).wait_for()
        other.picture(f"{name}-{look}")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is cut off at the side"
        assert page.evaluate(UNNAMED) == []
        if axe:
            assert json.loads(page.evaluate(RUN_AXE)) == []
    assert other.complaints() == []
    other.close()


# What can be used but has no name, ids that stand twice, and headings that leave a level out.
UNNAMED = """() => {
  const name = (node) => (node.getAttribute("aria-label") ?? "") + (node.labels ? [...node.labels].map((one) => one.textContent).join("") : "")
    + node.textContent.trim() + [...node.querySelectorAll("img")].map((one) => one.alt).join("");
  const used = [...document.querySelectorAll("a[href], button, input, select, progress, summary, [role=region], [role=group]")];
  const ids = [...document.querySelectorAll("[id]")].map((node) => node.id);
  const levels = [...document.querySelectorAll("h1, h2, h3")].map((node) => Number(node.tagName[1]));
  return [
    ...used.filter((node) => !name(node).trim()).map((node) => node.outerHTML.slice(0, 120)),
    ...ids.filter((id, place) => ids.indexOf(id) !== place),
    ...levels.filter((level, place) => level > (levels[place - 1] ?? 0) + 1).map(String),
    ...(document.querySelectorAll("h1").length === 1 ? [] : ["one h1"]),
  ];
}"""
RUN_AXE = """async () => {
  const found = await axe.run(document, {resultTypes: ["violations"]});
  return JSON.stringify(found.violations.map((one) => [one.id, one.nodes.map((node) => node.target.join(" "))]));
}"""


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str | None:
    """axe-core's script, where npm can fetch it; the other checks do without."""
    folder = tmp_path_factory.mktemp("axe")
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "axe-core@4"]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return (folder / "node_modules/axe-core/axe.min.js").read_text()
