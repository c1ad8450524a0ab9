"""The console without a mouse and without eyes: where Tab leads, what a screen reader is told and what it is not."""

from typing import Any

from tests.browser import Visitor
from tests.console.world import ZIP, PacedMl, job

FOCUSED = """() => {
  const one = document.activeElement;
  const label = one.getAttribute("aria-label") ?? one.labels?.[0]?.textContent ?? one.textContent;
  const seen = one.id === "files" ? one.nextElementSibling : one;
  return [label.trim(), getComputedStyle(seen).outlineStyle !== "none"];
}"""
LIST = [
    "Skip to the content",
    "Millrace",
    "English",
    "Русский",
    "Change password",
    "Sign out",
    "Choose files",
    "Options for the next files",
    "Find by title",
    "State",
    "образцы.zip",
    "Run again: образцы.zip",
    "Delete: образцы.zip",
    "The API",
    "Error codes",
]


def walk(visitor: Visitor, key: str, steps: int) -> list[str]:
    """The names of what has the focus after each press."""
    names = []
    for _ in range(steps):
        visitor.page.keyboard.press(key)
        name, seen = visitor.page.evaluate(FOCUSED)
        assert seen, f"nobody sees that {name!r} has the focus"
        names.append(name)
    return names


def test_tab_leads_through_everything_in_the_order_it_stands_and_back(done: Visitor) -> None:
    page = done.page
    page.goto(done.url)
    page.locator(".job").wait_for()
    done.until("document.activeElement.tagName === 'H1'")
    page.locator(".skip").focus()
    assert walk(done, "Tab", len(LIST) - 1) == LIST[1:]
    assert walk(done, "Shift+Tab", len(LIST) - 1) == LIST[-2::-1]
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main", "the way past the header"
    assert walk(done, "Tab", 2) == ["Choose files", "Options for the next files"]
    for opened in (True, False):
        page.keyboard.press("Space")
        assert page.evaluate("document.querySelector('.options').open") is opened
    assert walk(done, "Tab", 3)[-1] == "образцы.zip"
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Results").wait_for()
    done.until("document.activeElement.tagName === 'H1'")
    page.go_back()
    page.get_by_role("heading", name="Jobs", exact=True).wait_for()
    done.until("document.activeElement.tagName === 'H1'")
    assert done.complaints() == []


def test_what_happens_takes_the_focus_from_nobody_and_is_told_once(visitor: Visitor, ml: PacedMl) -> None:
    page = visitor.page
    page.locator("#files").set_input_files([ZIP])
    card = page.locator(".job")
    card.get_by_text("17 of 42 files").wait_for()
    cancel = page.get_by_role("button", name="Cancel: образцы.zip")
    cancel.focus()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    assert page.evaluate(FOCUSED)[0] == "Find by title"
    page.keyboard.type("обр")
    ml.on.set()
    job(visitor, "succeeded").wait_for()
    page.keyboard.type("азцы")
    assert page.evaluate("[document.activeElement.id, document.activeElement.value]") == ["find", "образцы"]
    log = page.locator("#announcements")
    log.get_by_text("образцы.zip: Succeeded").wait_for()
    told = log.locator("p").all_inner_texts()
    assert told[-1] == "образцы.zip: Succeeded"
    assert told.count("образцы.zip: Succeeded") == 1
    assert [text for text in told if "is sent" in text], told
    assert not [text for text in told if "%" in text or " of 42" in text], "percentages are not read aloud"
    assert visitor.complaints() == []


def tree(visitor: Visitor) -> list[dict[str, Any]]:
    """What the browser tells a screen reader: role, name, value and properties of all it does not leave out."""
    session = visitor.context.new_cdp_session(visitor.page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    session.detach()
    return [
        {
            "role": node["role"]["value"],
            "name": node.get("name", {}).get("value", ""),
            "value": node.get("value", {}).get("value"),
            **{one["name"]: one["value"].get("value") for one in node.get("properties", [])},
        }
        for node in nodes
        if not node.get("ignored")
    ]


def test_a_screen_reader_is_given_the_page_as_it_is(visitor: Visitor, ml: PacedMl) -> None:
    page = visitor.page
    page.locator("#files").set_input_files([ZIP])
    page.locator(".job").get_by_text("17 of 42 files").wait_for()
    nodes = tree(visitor)

    def named(role: str) -> list[str]:
        return [node["name"] for node in nodes if node["role"] == role]

    for landmark in ("banner", "main", "contentinfo"):
        assert len(named(landmark)) == 1, landmark
    headings = [(node["level"], node["name"]) for node in nodes if node["role"] == "heading"]
    assert headings == [(1, "Jobs"), (2, "Send files"), (2, "Your jobs"), (3, "образцы.zip")]
    (bar,) = [node for node in nodes if node["role"] == "progressbar"]
    assert (bar["name"], bar["value"]) == ("Progress of образцы.zip", 38)
    assert {"Stages", "Your jobs"} <= set(named("list"))
    assert {"Find by title"} <= set(named("searchbox"))
    assert {"State"} <= set(named("combobox"))
    assert {"Cancel: образцы.zip", "Delete: образцы.zip", "Choose files"} <= set(named("button"))
    spoken = [node for node in nodes if node["role"] == "log"]
    assert [node.get("live") for node in spoken] == ["polite"]
    assert any(node["role"] == "status" for node in nodes)
    used = ("button", "link", "searchbox", "combobox", "progressbar", "textbox", "region")
    assert [node["role"] for node in nodes if node["role"] in used and not node["name"]] == []
    ml.on.set()
    job(visitor, "succeeded").wait_for()
    assert visitor.complaints() == []
