"""The tour of the README, typed as it stands there, in both languages."""

import json
import os
import re
import subprocess
import zipfile
from pathlib import Path

import pytest

from stack.up import Stack

ROOT = Path(__file__).parents[2]


def tour(page: str) -> str:
    """The commands of the section between the start and the map of the house."""
    _, _, text = (ROOT / page).read_text().partition("make up")
    section = text[text.index("```sh") : text.index("\n## ", text.index("```sh"))]
    return "\n".join(re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("page", ["README.md", "README.ru.md"])
def test_the_tour_works_as_it_is_written(stack: Stack, page: str, tmp_path: Path) -> None:
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", tour(page)],
        cwd=tmp_path,
        env={**os.environ, "MILLRACE_URL": stack.url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    events = re.findall(r"^event: (\w+)$", ran.stdout, re.MULTILINE)
    assert events[0] == "queued"
    assert events[-1] == "succeeded"
    printed = ran.stdout[ran.stdout.index("event: succeeded") :]
    assert '"status": "succeeded"' in printed
    assert re.findall(r'"path": "(.+)"', printed) == ["notes.md", "page.html", "photo.png"]
    assert re.findall(r'"flagged": (true|false)', printed) == ["false", "false", "true"]
    problem = json.loads(ran.stdout.strip().splitlines()[-1])
    assert (problem["code"], problem["field"]) == ("invalid", "threshold")
    assert zipfile.is_zipfile(tmp_path / "results.xlsx")
