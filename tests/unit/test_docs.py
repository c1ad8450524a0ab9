"""What the documentation says is there: pages, codes, settings, states, commands; and both READMEs say the same."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from domain.errors import tree
from domain.jobs import TRANSITIONS, EventType
from domain.pipelines import Done, InputFile, JobInStep
from stack import errors_page
from stack.ml import configuration as ml
from storage import objects
from workers import jobs

ROOT = Path(__file__).parents[2]
README, README_RU = ROOT / "README.md", ROOT / "README.ru.md"
PAGES = sorted([README, README_RU, ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
CODES = {error.code for error in tree()}

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _blocks(page: Path, language: str) -> list[str]:
    return [text for name, text in _FENCE.findall(page.read_text()) if name == language]


def _prose(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def _anchors(page: Path) -> set[str]:
    """The places a link may lead to in a page: its headings as forges name them, and ids."""
    text = _prose(page)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings} | set(
        re.findall(r'id="([^"]+)"', text)
    )


# ---------------------------------------------------------------- links


def _links() -> Iterator[Any]:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", _prose(page)):
            if not re.match(r"[a-z]+:", target):
                yield pytest.param(page, target, id=f"{_id(page)}:{target}")


@pytest.mark.parametrize(("page", "target"), list(_links()))
def test_a_relative_link_leads_somewhere(page: Path, target: str) -> None:
    path, _, anchor = target.partition("#")
    there = (page.parent / path) if path else page
    assert there.exists()
    assert there.resolve().is_relative_to(ROOT)
    if anchor:
        assert anchor in _anchors(there)


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = set(), [README]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        for target in re.findall(r"\]\(([^)#\s]+)", _prose(page)):
            there = (page.parent / target).resolve()
            if there.is_dir():
                waiting += there.glob("*.md")
            elif there.suffix == ".md":
                waiting.append(there)
    assert set(PAGES) <= reached


# ---------------------------------------------------------------- what is said of the code


def test_the_page_of_errors_is_what_the_tree_renders() -> None:
    assert (ROOT / "docs/errors.md").read_text() == errors_page.render()


def test_the_page_is_made_by_its_command() -> None:
    made = subprocess.run(
        [sys.executable, "-m", "stack.errors_page"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert made.stdout == errors_page.render()


def test_every_code_on_the_page_exists_and_none_is_missing() -> None:
    assert set(re.findall(r'<a id="(\w+)">', (ROOT / "docs/errors.md").read_text())) == CODES


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_a_code_that_is_named_exists(page: Path) -> None:
    # "409 `code`", and what the errors of jobs and bodies are called
    named = set(re.findall(r"\b[45]\d\d `([a-z_]+)`", page.read_text()))
    named |= set(re.findall(r"`((?:ml|archive|result|worker|pending|body|completion)_[a-z_]+)`", page.read_text()))
    settings_of_celery = set(re.findall(r"^(\w+) =", (ROOT / "celeryconfig.py").read_text(), re.MULTILINE))
    assert named - settings_of_celery <= CODES


def test_a_variable_that_is_named_exists() -> None:
    example = (ROOT / ".env.example").read_text()
    known = set(re.findall(r"^#?([A-Z][A-Z0-9_]*)=", example, re.MULTILINE))
    known |= {field.upper() for field in ml.Settings.__struct_fields__}
    # of uvicorn, of Celery, of Flower, of the tour and the client
    elsewhere = {"FORWARDED_ALLOW_IPS", "REMAP_SIGTERM", "FLOWER_BROKER_API", "MILLRACE_URL"}
    elsewhere |= {"MILLRACE_TOKEN", "MILLRACE_USERNAME", "MILLRACE_PASSWORD", "XDG_CONFIG_HOME"}
    for page in PAGES:
        named = set(re.findall(r"`\{?([A-Z][A-Z0-9]*_[A-Z0-9_]+)[=}`]", page.read_text()))
        assert named <= known | elsewhere, page


def test_the_table_of_states_is_the_table_of_the_code() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    table = text[text.index("## States") : text.index("## The engine")]
    rows = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("|")][2:]
    said = {
        (source, target)
        for sources, targets in rows
        for source in re.findall(r"`(\w+)`", sources)
        for target in re.findall(r"`(\w+)`", targets)
    }
    allowed = {(str(source), str(target)) for source, targets in TRANSITIONS.items() for target in targets}
    # the table of moves also allows what nobody does: a queued job has no step that could fail
    assert said == allowed - {("queued", "failed")}


def test_every_type_of_event_is_documented() -> None:
    text = (ROOT / "docs/http.md").read_text()
    for event in EventType:
        assert re.search(rf"\b{event}\b", text[text.index("## Streams") :]), event


def test_every_target_of_the_readme_is_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        assert set(re.findall(r"\bmake ([a-z]+)\b", "\n".join(_code(page)))) <= targets, page


def _code(page: Path) -> list[str]:
    """What stands there as code: words in backticks, and blocks of commands."""
    return [*re.findall(r"`([^`\n]+)`", _prose(page)), *_blocks(page, "text"), *_blocks(page, "sh")]


# ---------------------------------------------------------------- the two READMEs


def test_both_readmes_show_the_same_commands_and_code() -> None:
    for language in ("sh", "python"):
        assert _blocks(README, language) == _blocks(README_RU, language)
        assert _blocks(README, language)


def test_both_readmes_have_the_same_parts_and_links() -> None:
    def shape(page: Path) -> list[str]:
        text = _prose(page)
        return re.findall(r"^#+(?= )|\]\((?!README)[^)]+\)|<!-- figures -->", text, re.MULTILINE)

    assert shape(README) == shape(README_RU)


def test_the_pipeline_of_the_readme_can_be_added(monkeypatch: pytest.MonkeyPatch) -> None:
    declared: dict[str, Any] = {}
    done: dict[str, Any] = {}
    declaration, worker = _blocks(README, "python")
    exec(compile(declaration, "domain/checksums.py", "exec"), declared)
    exec(compile(worker, "workers/checksums.py", "exec"), done)
    (pipeline,) = declared["pipelines"]
    assert [step.name for step in pipeline.steps if step.name not in {**done["steps"], **jobs.steps}] == []

    data = b"0123456789" * 200_000
    monkeypatch.setattr(objects, "read_range", lambda key, start, length: data[start : start + length])
    file = InputFile(key="k", name="f", size=len(data), content_type="text/plain", kind="single")
    job = JobInStep(id=uuid4(), owner_id=uuid4(), kind="checksums", step="digest", attempt=1, params={}, file=file)
    assert done["steps"]["digest"](job, _Silent()) == Done(message="CRC-32 3c919161")


class _Silent:
    def progress(
        self, done: float, total: float, message: str | None = None, *, part: tuple[int, int] = (1, 1)
    ) -> None: ...

    def checkpoint(self) -> None: ...


def test_the_tests_that_are_named_as_evidence_are_there() -> None:
    named = re.findall(r"`([\w/*]+\.py)`", (ROOT / "docs" / "evidence.md").read_text())
    assert len(named) > 60
    for path in named:
        assert any((ROOT / "tests").glob(path)) or (ROOT / "benchmarks" / path).exists(), path
