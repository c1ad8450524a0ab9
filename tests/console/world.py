"""What the tests of the console stand on: an archive, what the ML service says of it, and its pace."""

import csv
import io
import threading
import time
import zipfile
from typing import Any

import httpx

from stack.samples import DISGUISED, make_archive
from tests.browser import Visitor
from tests.scripted_ml import ScriptedMl

ARCHIVE = make_archive()
NAMES = zipfile.ZipFile(io.BytesIO(ARCHIVE)).namelist()
ZIP = {"name": "образцы.zip", "mimeType": "application/zip", "buffer": ARCHIVE}
PASSWORD = "correct horse battery"


def verdicts() -> bytes:
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["path", "detected_type", "score", "flagged"])
    for place, name in enumerate(NAMES):
        rows.writerow(
            [name, name.rpartition(".")[2] or "text", round(0.99 - place * 7 % 50 / 100, 2), name in DISGUISED]
        )
    return text.getvalue().encode()


class PacedMl(ScriptedMl):
    """Goes to 40 % by itself and on from there when it is told to."""

    def __init__(self, token: str) -> None:
        super().__init__(token)
        self.on = threading.Event()

    def _paced(self, request: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        def work() -> None:
            time.sleep(0.3)
            url = request["callback_url"].replace("completion", "progress")
            told = {"progress": 40, "message": "17 of 42 files"}
            httpx.post(url, json=told, headers={"Authorization": f"Bearer {self.token}"}, timeout=20)
            self.on.wait(60)
            self.deliver(request, verdicts())
            while True:  # as a service does: the API may be away
                try:
                    self.complete(request, status="done", output_object=request["output_object"])
                except httpx.TransportError:
                    time.sleep(0.1)
                else:
                    return

        return self._later(work)


def job(visitor: Visitor, status: str) -> Any:
    return visitor.page.locator(f'.job[data-status="{status}"]')
