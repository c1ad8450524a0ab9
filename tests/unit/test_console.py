"""The console's files keep their own rules: their types and ETags, nothing inline, the same words in both languages."""

import ast
import re
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args

import pytest
from litestar import Litestar
from litestar.testing import TestClient

from api.console import ASSETS, PAGE, POLICY, TYPES, routes
from domain import errors, recordings
from domain.inference import PIPELINE
from domain.jobs import FINAL, EventType, Priority, Status
from domain.recordings.audio import AudioWarning, MatchStatus
from domain.recordings.calls import REASONS, Direction, Outcome
from domain.recordings.mailboxes import AfterAction, DisabledReason, MailboxStanding, Security
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
COUNTS = [name for name, of in MailboxStanding.__annotations__.items() if int in get_args(of) and name != "failures"]
INSECURE = "MailboxInsecure"  # refuses an order; no look fails with it


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
    assert 'data-panels="jobs recordings"' in answer.text


def test_a_capability_that_is_left_out_has_no_panel() -> None:
    page, _ = routes(["accounts", "files", "jobs", "inference"])
    with TestClient(Litestar([page])) as other:
        assert 'data-panels="jobs"' in other.get("/").text
        assert "recordings" not in other.get("/").text


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
        ("stage", [step.name for step in recordings.PIPELINE.steps]),
        ("match", list(MatchStatus)),
        ("by", ["rule", "hand"]),
        ("warning", list(AudioWarning)),
        ("direction", list(Direction)),
        ("was", list(Outcome)),
        ("reason", list(REASONS.values())),
        ("disabled", list(DisabledReason)),
        ("security", list(Security)),
        ("after", list(AfterAction)),
        ("count", COUNTS),
        ("fault", [one.code for name, one in vars(errors).items() if name.startswith("Mailbox") and name != INSECURE]),
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


def sentences(tree: ast.AST) -> Iterator[ast.expr]:
    """What is said of a job: as a `message`, or as the third of what `progress` is told."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from (one.value for one in node.keywords if one.arg == "message")
            if isinstance(node.func, ast.Attribute) and node.func.attr == "progress":
                yield from node.args[2:3]
        elif isinstance(node, ast.Assign) and [ast.unparse(one) for one in node.targets] == ["message"]:
            yield node.value


def spoken(said: ast.expr) -> set[str]:
    """With {} for what is put in; nothing for what is said elsewhere."""
    if isinstance(said, ast.IfExp):
        return spoken(said.body) | spoken(said.orelse)
    if isinstance(said, ast.JoinedStr):
        return {"".join(str(one.value) if isinstance(one, ast.Constant) else "{}" for one in said.values)}
    return {said.value} if isinstance(said, ast.Constant) and isinstance(said.value, str) else set()


def test_every_sentence_of_the_engine_can_be_retold() -> None:
    kept = {re.sub(r"\{\w+\}", "{}", said) for key, said in WORDS["en"].items() if key.startswith("said_")}
    code = [ast.parse(path.read_text()) for path in (ROOT / "workers").rglob("*.py")]
    said = {one for tree in code for sentence in sentences(tree) for one in spoken(sentence)}
    assert {"1 file", "{} files in the archive", "{} of {} entries", "{} of {} messages", "nothing new"} <= said
    assert said <= kept


def test_a_mailbox_shows_every_count() -> None:
    listed = re.search(r"const COUNTS = \[(.*?)\]", text("mailboxes.js"))
    assert listed
    assert re.findall(r'"(\w+)"', listed[1]) == COUNTS


def test_the_console_hears_every_type_of_event() -> None:
    listed = re.search(r"const TYPES = \[(.*?)\]", text("live.js"), re.DOTALL)
    assert listed
    assert re.findall(r'"(\w+)"', listed[1]) == list(EventType)
    final = re.search(r"const FINAL = \[(.*?)\]", text("live.js"))
    assert final
    assert set(re.findall(r'"(\w+)"', final[1])) == FINAL


def test_the_stages_that_are_shown_are_those_of_the_pipeline() -> None:
    for pipeline in (PIPELINE, recordings.PIPELINE):
        listed = re.search(rf"  {pipeline.name}: \[(.*?)\]", text("card.js"))
        assert listed
        steps = [step for step in pipeline.steps if not step.aside]
        way = [name for step in steps for name in (step.name, "waiting" if step.overdue else "")]
        assert re.findall(r'"(\w+)"', listed[1]) == [name for name in way if name]
        assert (pipeline.name in re.findall(r'WITHOUT_FILE = \["(\w+)"\]', text("card.js"))) is not pipeline.takes_file


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
