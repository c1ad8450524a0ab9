"""The tick `files.reconcile`: rows and objects are compared both ways, a bounded piece at a time.

What nothing names is deleted once it is old; what is named and gone is reported and never deleted. It runs beside the
steps and not beside the sweep, which must not wait for the store.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from uuid import UUID

import structlog

from domain.errors.neighbours import ObjectMissing
from storage import housekeeping, objects
from storage import reconciliation as rows
from storage.configuration import settings
from storage.database import autocommit, transaction
from storage.housekeeping import Progress
from storage.reconciliation import Named
from storage.uploads import removal as uploads

RUN_SECONDS = 10.0  # of a run at most, and a page of each pass: a worker of the steps is held meanwhile
PAGE = 1000
# More leftovers in a page than the database has files: more likely this is another database, or a restored one.
SUSPICIOUS = 100
LISTINGS = 3  # pages of objects looked at for one page of rows; what is not among them is asked for one by one
LOGGED = 20  # missing objects of a page that are named in the log

_log = structlog.get_logger()

Deletion = Callable[[list[str]], tuple[int, int]]  # of keys that are old: (deleted, held back)


def reconcile() -> None:
    """Abort old unfinished uploads, then go on with each pass where the last run stopped.

    Safe to run twice at once: both delete what neither may keep, and the slower one's progress is not noted.
    """
    age = timedelta(seconds=settings().upload_leftover_seconds)
    aborted = objects.sweep(age, PAGE, _under_way)
    with autocommit() as connection:
        place = housekeeping.place(connection, "uploads")
        housekeeping.advance(connection, "uploads", place.version, Progress(after="", found=aborted))
        rows.forget(connection, PAGE)
    passes: dict[str, Callable[[str], Progress]] = {
        "objects.inputs": partial(_sweep, "inputs/", age, partial(_delete_unnamed, "files")),
        "objects.recordings": partial(_sweep, "recordings/", age, partial(_delete_unnamed, "recordings")),
        "objects.results": partial(_sweep, "results/", age, _delete_results),
        "rows.files": partial(_look, rows.files),
        "rows.recordings": partial(_look, rows.recordings),
        "rows.results": partial(_look, rows.results),
    }
    for name, piece in passes.items():
        _go_on(name, piece, time.monotonic() + RUN_SECONDS / len(passes))


def _under_way(keys: Iterable[str]) -> set[str]:
    with autocommit() as connection:
        return uploads.under_way(connection, keys)


def _go_on(name: str, piece: Callable[[str], Progress], deadline: float) -> None:
    with autocommit() as connection:
        at, version = housekeeping.place(connection, name)
    while True:
        progress = piece(at)
        with autocommit() as connection:
            noted = housekeeping.advance(connection, name, version, progress)
        at, version = progress.after, version + 1
        if not noted or not at or time.monotonic() > deadline:
            return


# ---------------------------------------------------------------- objects that no row names


def _sweep(folder: str, age: timedelta, delete: Deletion, at: str) -> Progress:
    found, more = objects.listed(folder, at, PAGE)
    old = [one.key for one in found if one.age > age]
    deleted, held = delete(old) if old else (0, 0)
    if deleted:
        _log.info("leftovers_swept", folder=folder, number=deleted)
    return Progress(after=found[-1].key if more else "", found=deleted, held=held)


def _delete_unnamed(table: str, keys: list[str]) -> tuple[int, int]:
    with autocommit() as connection:
        candidates = rows.unnamed(connection, keys)
    if not candidates or _is_suspicious(table, candidates):
        return 0, len(candidates)
    with transaction() as connection:
        fenced = rows.fence(connection, candidates)
    objects.delete(fenced)  # after the commit: no row can name them any more
    return len(fenced), 0


def _delete_results(keys: list[str]) -> tuple[int, int]:
    """All below a job stays as long as the job: a step may have written what no row names yet."""
    owners = {key: owner for key in keys if (owner := _job_of(key))}
    with autocommit() as connection:
        gone = rows.without_job(connection, list(set(owners.values())))
    left = [key for key, owner in owners.items() if owner in gone]
    if not left or _is_suspicious("files", left):
        return 0, len(left)
    objects.delete(left)
    return len(left), 0


def _job_of(key: str) -> UUID | None:
    try:
        return UUID(key.split("/")[1])
    except (ValueError, IndexError):
        return None  # nothing of ours


def _is_suspicious(table: str, left: Sequence[str]) -> bool:
    if len(left) <= SUSPICIOUS:
        return False
    with autocommit() as connection:
        suspicious = rows.fewer_than(connection, table, len(left))
    if suspicious:
        _log.error("leftovers_held", number=len(left), first=left[0])
    return suspicious


# ---------------------------------------------------------------- rows whose object is gone


def _look(page: rows.Page, at: str) -> Progress:
    with autocommit() as connection:
        named = page(connection, UUID(at) if at else UUID(int=0), PAGE)
    missing = _missing(named) if named else []
    for one in missing[:LOGGED]:
        _log.warning("object_missing", id=str(one.id), key=one.key)
    return Progress(after=str(named[-1].id) if len(named) == PAGE else "", found=len(missing))


def _missing(named: list[Named]) -> list[Named]:
    seen = _seen(min(one.key for one in named), max(one.key for one in named))
    gone = [one for one in named if one.key not in seen and not _is_there(one.key)]
    if not gone:
        return []
    with autocommit() as connection:
        still = rows.still_named(connection, gone)
    return [one for one in gone if one.key in still]


def _seen(first: str, last: str) -> set[str]:
    """The keys of the objects from ``first`` to ``last``, or as far as some listings reach."""
    seen: set[str] = set()
    at = first[:-1]  # a listing begins after the key it is given
    for _ in range(LISTINGS):
        found, more = objects.listed("", at, PAGE)
        seen.update(one.key for one in found)
        if not more or found[-1].key >= last:
            break
        at = found[-1].key
    return seen


def _is_there(key: str) -> bool:
    try:
        objects.size_of(key)
    except ObjectMissing:
        return False
    return True


schedule = {"files.reconcile": (reconcile, "reconcile_seconds", "io")}
