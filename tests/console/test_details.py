"""A job looked at closely: what is not there is not asked for, and long results are walked through."""

import csv
import io
from typing import Any

from tests.browser import Visitor
from tests.console.world import ARCHIVE, NAMES, PacedMl, job


def order(visitor: Visitor, name: str, content: bytes) -> None:
    visitor.page.locator("#files").set_input_files([{"name": name, "mimeType": "application/zip", "buffer": content}])


def results_of(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def test_an_archive_that_failed_its_inspection_is_not_asked_for_its_listing(visitor: Visitor) -> None:
    page = visitor.page
    order(visitor, "broken.zip", ARCHIVE[:-40])
    job(visitor, "failed").wait_for()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.get_by_role("link", name="broken.zip").click()
    page.get_by_text("There are no results.").wait_for()
    page.locator(".message", has_text="the end of the directory is missing").wait_for()
    page.get_by_role("button", name="Русский").click()
    page.locator(".message", has_text="Архив обрезан или повреждён: нет конца оглавления").wait_for()
    visitor.picture("failed-russian")
    page.get_by_text("Попытки").first.wait_for()
    assert [url for url in asked if "zip" in url] == []
    assert visitor.complaints() == []


def test_a_file_of_an_archive_is_downloaded_by_itself(done: Visitor) -> None:
    page = done.page
    page.goto(done.url)
    page.get_by_role("link", name="образцы.zip").click()
    region = page.get_by_role("region", name="In the archive")
    with page.expect_download() as download:
        region.get_by_role("link", name=f"Download {NAMES[0]}", exact=True).click()
    assert download.value.suggested_filename == NAMES[0].rpartition("/")[2]
    assert done.complaints() == []


def test_long_results_have_ends_and_every_column(visitor: Visitor, ml: PacedMl, monkeypatch: Any) -> None:
    rows = [{"path": f"{place}.txt", "score": 0.5} for place in range(260)]
    rows[120] = {**rows[120], "remark": "only here"}
    monkeypatch.setattr("tests.console.world.verdicts", lambda: results_of(rows))
    ml.on.set()
    page = visitor.page
    order(visitor, "long.zip", ARCHIVE)
    job(visitor, "succeeded").wait_for()
    page.get_by_role("link", name="long.zip").click()
    pages = page.get_by_role("group", name="Pages of: Results")
    pages.get_by_text("1–25 of 260").wait_for()
    assert pages.get_by_role("button", name="First").get_attribute("aria-disabled") == "true"
    pages.get_by_role("button", name="Last").press("Enter")
    pages.get_by_text("251–260 of 260").wait_for()
    table = page.get_by_role("region", name="Results")
    assert table.locator("tbody tr").count() == 10
    assert "remark" in "".join(table.locator("thead th").all_inner_texts())
    pages.get_by_role("button", name="Previous").click()
    pages.get_by_text("226–250 of 260").wait_for()
    pages.get_by_role("button", name="First").click()
    pages.get_by_text("1–25 of 260").wait_for()
    table.get_by_role("button", name="remark").click()
    table.get_by_text("only here").wait_for()
    visitor.picture("long-results")
    assert visitor.complaints() == []


def test_one_row_is_a_row(visitor: Visitor, ml: PacedMl, monkeypatch: Any) -> None:
    monkeypatch.setattr("tests.console.world.verdicts", lambda: results_of([{"path": "a.txt", "flagged": "false"}]))
    ml.on.set()
    order(visitor, "one.zip", ARCHIVE)
    job(visitor, "succeeded").get_by_text("1 row, 0 flagged").wait_for()
    visitor.page.get_by_role("button", name="Русский").click()
    job(visitor, "succeeded").get_by_text("1 строка, отмечено: 0").wait_for()
    assert visitor.complaints() == []
