"""Why a file was refused is told in Russian to the end, not to the colon."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from domain.archives import paths
from domain.archives.directory import _NODES
from domain.errors import archives, inference, retold
from domain.errors.reasons import ARCHIVES, REASONS, in_russian
from domain.results.formats import _SIGNATURES

ROOT = Path(__file__).parents[2]
FILES = [*(ROOT / "domain/archives").glob("*.py"), *(ROOT / "domain/results").glob("*.py"), ROOT / "workers/ml.py"]
FILES += [ROOT / "workers/inference.py"]


def texts(said: ast.expr) -> Iterator[str]:
    """With {} for what is put in; nothing for what is said elsewhere."""
    if isinstance(said, ast.IfExp):
        yield from (*texts(said.body), *texts(said.orelse))
    elif isinstance(said, ast.JoinedStr):
        yield "".join(str(one.value) if isinstance(one, ast.Constant) else "{}" for one in said.values)
    elif isinstance(said, ast.Constant) and isinstance(said.value, str):
        yield said.value


def given(tree: ast.AST) -> Iterator[str]:
    """Reasons, wherever they are given: by name, to a function that raises, or as a warning that a rule may refuse."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            for one in node.keywords:
                if one.arg == "reason":
                    yield from texts(one.value)
            name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
            if name in ("_contradiction", "damaged"):
                yield from texts(node.args[-1])
        elif isinstance(node, ast.Assign) and "warnings[" in ast.unparse(node.targets[0]):
            yield from texts(node.value)


SAID = sorted({(path.name, text) for path in FILES for text in given(ast.parse(path.read_text()))})
KEPT = {re.sub(r"\{\w+\}", "{}", english) for english in REASONS}


def test_every_reason_in_the_code_is_in_the_table() -> None:
    assert len(SAID) > 80
    composed = {"the directory holds {}", "it is {}"}
    assert {text for _, text in SAID if text not in KEPT} <= composed
    told = [f"the directory holds {more}" for more in ("more entries than it counts", "something after its entries")]
    told += [f"it is {what}" for _, what in _SIGNATURES]
    assert {*told, *_NODES.values()} <= REASONS.keys()


def test_each_has_the_same_places_in_russian() -> None:
    for english, russian in REASONS.items():
        assert sorted(re.findall(r"\{\w+\}", english)) == sorted(re.findall(r"\{\w+\}", russian)), english
        assert re.search("[а-яё]", russian), english


@pytest.mark.parametrize("english", REASONS)
def test_each_is_found_with_what_stands_in_its_places(english: str) -> None:
    names = re.findall(r"\{(\w+)\}", english)
    values = {name: f"'{number} of a.txt'" for number, name in enumerate(names, 7)}
    assert in_russian(english.format_map(values)) == REASONS[english].format_map(values)


def test_a_stored_error_is_retold_to_its_end() -> None:
    stored = str(archives.ArchiveTruncated(reason="the end of the directory is missing"))
    assert retold("archive_truncated", stored, "ru") == "Архив обрезан или повреждён: нет конца оглавления"
    assert archives.ArchiveTruncated(reason="-").message("ru").endswith(": -")
    said = inference.MlFailed(reason="the scanner was upside down")
    assert said.message("ru") == "ML-сервис не справился: the scanner was upside down"


def test_the_parts_of_a_path_are_told_apart() -> None:
    assert in_russian(f"a part longer than {paths._PART_LETTERS} characters") == "часть длиннее 255 знаков"
    assert in_russian("the part '..'") == "часть '..'"
    assert ARCHIVES["after {name}"] == "после {name}"
