"""A real Chromium for the tests, where the machine has one; nothing is downloaded."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SCREENSHOTS = Path(__file__).parent / "screenshots"  # git ignores it


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless browser; skips where there is none."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"there is no Chromium on this machine ({', '.join(NAMES)})")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


class Visitor:
    """One person's window: what the page says on its console is kept, and a violation of its policy."""

    def __init__(self, browser: Any, url: str, **options: Any) -> None:
        self.url = url
        self.said: list[str] = []
        self.context = browser.new_context(**{"locale": "en-GB", "viewport": {"width": 1200, "height": 900}, **options})
        self.page = self.context.new_page()
        self.page.set_default_timeout(10_000)
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.said.append(f"{message.type}: {message.text} ({message.location.get('url', '')})")

    def until(self, expression: str) -> None:
        """Wait until it is true. Playwright's ``wait_for_function`` evaluates text, which the page's policy forbids."""
        deadline = time.monotonic() + 10
        while not self.page.evaluate(expression):
            assert time.monotonic() < deadline, expression
            self.page.wait_for_timeout(25)

    def complaints(self, *, but: tuple[str, ...] = ()) -> list[str]:
        """Errors, warnings and violations; ``but`` are pieces of those that are meant to come."""
        return [line for line in self.said if not any(piece in line for piece in but)]

    def register(self, name: str, password: str = "correct horse battery") -> None:
        """As a person does: the form, then the list of jobs."""
        page = self.page
        page.goto(self.url)
        page.get_by_role("button", name="No account yet? Register").click()
        page.get_by_label("Username").fill(name)
        page.get_by_label("Password").fill(password)
        page.get_by_role("button", name="Register", exact=True).click()
        page.get_by_role("heading", name="Jobs", exact=True).wait_for()

    def enter(self, name: str, password: str = "correct horse battery", *, new: bool = True) -> None:
        """The same without the form, which has a test of its own; ``new``: the account is to be made."""
        account = {"username": name, "password": password}
        api = self.context.request
        assert not new or api.post(f"{self.url}/api/v1/auth/register", data=account).status == 201
        assert api.post(f"{self.url}/api/v1/auth/login", data={**account, "session": True}).status == 200
        self.context.add_init_script("localStorage.setItem('millrace.signed-in-until', Date.now() + 3600000)")
        self.page.goto(self.url)
        self.page.get_by_role("heading", name="Jobs", exact=True).wait_for()

    def picture(self, name: str) -> None:
        SCREENSHOTS.mkdir(exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)

    def close(self) -> None:
        self.context.close()
