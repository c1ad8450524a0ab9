"""A signed-in user of the command line, with files to send."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from stack.samples import make_archive
from stack.up import Stack
from tests.client import User
from tests.terminal import Terminal


@pytest.fixture
def http(stack: Stack) -> Iterator[User]:
    with User(stack.url) as user:
        yield user


@pytest.fixture
def at(http: User, tmp_path: Path) -> Terminal:
    """Signed in by ``MILLRACE_TOKEN`` as ``http`` is."""
    (tmp_path / "sample.zip").write_bytes(make_archive())
    (tmp_path / "note.txt").write_text("some text\n" * 30)
    (tmp_path / "broken.zip").write_text("this is a text and no archive, whatever its name says")
    return Terminal(http.url, tmp_path, http.http.headers["Authorization"].removeprefix("Bearer "))
