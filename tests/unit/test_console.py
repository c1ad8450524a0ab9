"""The console's files keep their own rules: their types and ETags, nothing inline, the same words in both languages."""

import re
import tomllib
from fnmatch import fnmatch
from html.parser import HTMLParser
from pathlib import Path

import pytest
from litestar.testing import TestClient

from api.console import ASSETS, PAGE, POLICY, TYPES
from domain.inference import PIPELINE
from domain.jobs import FINAL, EventType, Priority, Status
from domain.results.columns import KNOWN
from tests.unit.test_openapi import APP

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "api/console"
SCRIPTS = sorted(FOLDER.glob("*.js"))
HTML = (FOLDER / PAGE).read_text()
client = TestClient(APP)


def text(name: str) -> str:
    return (FOLDER / name).read_text()


def words() -> dict[str, dict[str, str]]:
    """What each language says, by key."""
    found: dict[str, dict[str, str]] = {}
    for line in text("words.js").splitlines():
        if language := re.fullmatch(r"  (\w\w): \{", line):
            found[language[1]] = {}
        elif word := re.fullmatch(r'    (\w+): "(.+)",', line):
            said = list(found.values())[-1]
            assert word[1] not in said, f"{word[1]} stands there twice"
            said[word[1]] = word[2]
        else:
            assert not line.startswith("    "), line
    return found


WORDS = words()


# ---------------------------------------------------------------- serving


def test_the_page_is_at_the_root_with_a_policy_that_lets_only_its_own_files_in() -> None:
    answer = client.get("/")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = answer.headers["content-security-policy"]
    sources = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert sources["default-src"] == "'none'"
    assert {source for name, source in sources.items() if name.endswith("-src")} == {"'none'", "'self'"}
    assert (sources["form-action"], sources["base-uri"], sources["frame-ancestors"]) == ("'none'",) * 3
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert 'data-panels="jobs"' in answer.text


@pytest.mark.parametrize("name", sorted({path.name for path in FOLDER.iterdir() if path.suffix[1:] in TYPES} - {PAGE}))
def test_a_file_is_served_with_its_type_and_its_etag(name: str) -> None:
    answer = client.get(f"/console/{name}")
    assert answer.content == (FOLDER / name).read_bytes()
    assert answer.headers["content-type"].partition(";")[0] == TYPES[name.rpartition(".")[2]]
    assert answer.headers["content-security-policy"] == POLICY
    again = client.get(f"/console/{name}", headers={"If-None-Match": f'"other", W/{answer.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == answer.headers["etag"]
    assert client.get(f"/console/{name}", headers={"If-None-Match": '"other"'}).status_code == 200


def test_each_file_has_an_etag_of_its_own() -> None:
    assert len({asset.etag for asset in ASSETS.values()}) == len(ASSETS)
    assert client.get("/", headers={"If-None-Match": client.get("/").headers["etag"]}).status_code == 304


@pytest.mark.parametrize("name", ["page.html", "__init__.py", "other.js", "..%2f__init__.py", "%2e%2e/app.py"])
def test_nothing_else_is_served(name: str) -> None:
    assert client.get(f"/console/{name}").status_code == 404


def test_the_wheel_holds_every_file() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["api.console"]
    for name in ASSETS:
        assert any(fnmatch(name, pattern) for pattern in patterns), name


# ---------------------------------------------------------------- nothing inline, nothing from elsewhere


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.feed(HTML)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))


def test_the_page_has_no_script_and_no_style_of_its_own() -> None:
    for tag, attributes in Page().elements:
        assert tag != "style"
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
        if tag == "script":
            assert (attributes["type"], attributes["src"]) == ("module", "/console/app.js")
        for link in (attributes.get("src", ""), attributes.get("href", "")):
            assert re.match(r"$|#|/console/|/docs", link)
            assert not link.startswith("/console/") or link.removeprefix("/console/") in ASSETS
    assert not re.search(r"<script[^>]*>[^<]", HTML)


@pytest.mark.parametrize("path", [*SCRIPTS, FOLDER / "style.css"], ids=lambda path: path.name)
def test_a_file_makes_no_markup_from_text_and_fetches_nothing_from_elsewhere(path: Path) -> None:
    said = path.read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc", said)
    assert not re.search(r"https?://|url\(|@import", said)
    for name in re.findall(r'from "\./([\w.]+)"', said):
        assert name in ASSETS


def test_the_page_has_its_landmarks_and_a_way_past_them() -> None:
    elements = Page().elements
    tags = [tag for tag, _ in elements]
    for landmark in ("header", "nav", "main", "footer"):
        assert tags.count(landmark) == 1
    assert next(attributes for tag, attributes in elements if tag == "a")["href"] == "#main"
    assert dict(elements)["main"]["id"] == "main"
    assert [attributes for _, attributes in elements if attributes.get("aria-live") == "polite"]


# ---------------------------------------------------------------- words


def test_both_languages_have_the_same_words_with_the_same_places() -> None:
    assert set(WORDS) == {"en", "ru"}
    assert list(WORDS["en"]) == list(WORDS["ru"]), "the same keys in the same order"
    for key, english in WORDS["en"].items():
        assert sorted(re.findall(r"\{\w+\}", english)) == sorted(re.findall(r"\{\w+\}", WORDS["ru"][key])), key


def test_russian_is_russian() -> None:
    plain = {key for key, said in WORDS["ru"].items() if not re.search("[а-яё]", said.lower())}
    assert plain == {"api", "job_stage", "job_ended"}


def test_every_word_that_is_said_is_there_and_none_is_left_over() -> None:
    code = "\n".join(text(path.name) for path in SCRIPTS if path.name != "words.js") + HTML
    said = set(re.findall(r'\bsay\("(\w+)"', code)) | set(re.findall(r'data-say(?:-label)?="(\w+)"', HTML))
    assert said <= WORDS["en"].keys()
    families = set(re.findall(r'sayOf\("(\w+)"', code)) | set(re.findall(r"`(\w+)_\$\{", code))
    families |= set(re.findall(r'startsWith\("(\w+)_"', code))
    endings = set(re.findall(r"\}_(\w+)`", code))
    for key in WORDS["en"]:
        named = f'"{key}"' in code or key.partition("_")[0] in families or key.rpartition("_")[2] in endings
        assert named, f"{key} is said nowhere"


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("status", list(Status)),
        ("stage", [*(step.name for step in PIPELINE.steps), "waiting", "done", "now", "next", "failed"]),
        ("priority", list(Priority)),
        ("column", [column.name for column in KNOWN]),
        (
            "outcome",
            ["running", "done", "retrying", "postponed", "failed", "interrupted", "lost", "timed_out", "cancelled"],
        ),
    ],
)
def test_everything_the_api_names_has_a_word(kind: str, names: list[str]) -> None:
    for name in names:
        assert f"{kind}_{name}" in WORDS["en"]


def test_every_sentence_of_the_engine_can_be_retold() -> None:
    kept = {said for key, said in WORDS["en"].items() if key.startswith("said_")}
    code = "\n".join(path.read_text() for path in (ROOT / "workers").glob("*.py"))
    assert set(re.findall(r'\bmessage="([^"]+)"', code)) <= kept


def test_the_console_hears_every_type_of_event() -> None:
    listed = re.search(r"const TYPES = \[(.*?)\]", text("live.js"), re.DOTALL)
    assert listed
    assert re.findall(r'"(\w+)"', listed[1]) == list(EventType)
    final = re.search(r"const FINAL = \[(.*?)\]", text("live.js"))
    assert final
    assert set(re.findall(r'"(\w+)"', final[1])) == FINAL


def test_the_stages_that_are_shown_are_those_of_the_pipeline() -> None:
    listed = re.search(r"inference: \[(.*?)\]", text("card.js"))
    assert listed
    way = [name for step in PIPELINE.steps if not step.aside for name in (step.name, "waiting" if step.overdue else "")]
    assert re.findall(r'"(\w+)"', listed[1]) == [name for name in way if name]


# ---------------------------------------------------------------- colours


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    digits = colour.removeprefix("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(scheme: int) -> None:
    block = re.findall(r":root \{(.*?)\}", text("style.css"), re.DOTALL)[scheme]
    colours = dict(re.findall(r"--([\w-]+): (#\w+)", block))
    for ink in ("ink", "soft", "accent", "good", "bad", "warn"):
        for behind in ("paper", "panel"):
            assert contrast(colours[ink], colours[behind]) >= 4.5, (ink, behind)
    pairs = ["ink mark", "warn mark", "bad bad-panel", "soft bad-panel", "on-accent accent"]
    for ink, behind in (pair.split() for pair in pairs):
        assert contrast(colours[ink], colours[behind]) >= 4.5, (ink, behind)
    assert contrast(colours["control"], colours["paper"]) >= 3
