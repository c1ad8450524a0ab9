"""Results and archives are read, on any screen and by any reader."""

import csv
import io
import json
import re
import zipfile
from typing import Any

import pytest

from stack.samples import DISGUISED
from tests.browser import Visitor
from tests.console.world import ARCHIVE, NAMES, verdicts


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
  const name = (node) => (node.getAttribute("aria-label") ?? "")
    + [...(node.labels ?? [])].map((one) => one.textContent).join("") + node.textContent.trim()
    + [...node.querySelectorAll("img")].map((one) => one.alt).join("");
  const kinds = "a[href], button, input, select, progress, summary, [role=region], [role=group]";
  const used = [...document.querySelectorAll(kinds)];
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
