"""The parsed results of a job, a page at a time, and the result as a file."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request, Response, get, route
from litestar.di import NamedDependency
from litestar.enums import HttpMethod
from litestar.params import FromPath, QueryParameter
from msgspec import Meta

from api.downloads import documented_download, download
from api.jobs.reading import found, found_with_keys
from api.objects import blocking
from api.openapi.operation import documented
from domain.accounts import Principal
from domain.errors.jobs import JobNotReady
from domain.errors.requests import NotFound
from domain.jobs import Status
from domain.results import CellWarning, Row, Summary, to_xlsx
from storage import objects, results
from storage.database import autocommit, transaction

XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
_ERRORS = NotFound(what="job"), JobNotReady(what="results", status=Status.PROCESSING)


ROWS = [
    {
        "path": "scans/readme.jpg",
        "detected_type": "markdown",
        "score": 0.9998,
        "expected_type": "jpeg",
        "flagged": True,
        "extra": {},
    },
    {
        "path": "scans/licence.txt",
        "detected_type": "txt",
        "score": 0.9987,
        "expected_type": "txt",
        "flagged": False,
        "extra": {},
    },
    {
        "path": "scans/app.py",
        "detected_type": "python",
        "score": None,
        "expected_type": "python",
        "flagged": False,
        "extra": {},
    },
]


class ResultPage(msgspec.Struct, frozen=True, kw_only=True):
    """Rows in the file's order; pass ``next`` as ``after`` for the following page, null after the last."""

    parsed_at: Annotated[datetime, Meta(tz=True, examples=["2025-09-15T11:41:58.016022Z"])]
    columns: Annotated[
        list[str],
        Meta(
            description="Known columns, in the file's order",
            examples=[["path", "detected_type", "score", "expected_type", "flagged"]],
        ),
    ]
    summary: Summary
    warnings: Annotated[list[CellWarning], Meta(description="Cells that could not be read, the first thousand")]
    warnings_total: Annotated[int, Meta(examples=[1])]
    rows: Annotated[
        list[Row],
        Meta(
            description="Each with every column, null where the cell is blank or unreadable, and `extra` for the rest",
            examples=[ROWS],
        ),
    ]
    next: Annotated[int | None, Meta(examples=[None])]


@get(
    "/jobs/{job_id:uuid}/results",
    tags=["results"],
    summary="The parsed results",
    sync_to_thread=True,
    **documented(*_ERRORS),
)
def read_results(
    job_id: FromPath[UUID],
    principal: NamedDependency[Principal],
    limit: Annotated[int, QueryParameter(ge=1, le=1000, description="Rows on a page")] = 100,
    after: Annotated[int, QueryParameter(ge=0, description="`next` of the page before")] = 0,
) -> ResultPage:
    """Cells that could not be read are null and stand in `warnings`. 409 `job_not_ready` until they are parsed."""
    job = found(job_id, principal)
    with autocommit() as connection:
        head = results.head(connection, job_id)
        numbered = results.page(connection, job_id, after=after, limit=limit + 1) if head else []
    if head is None:
        raise JobNotReady(what="results", status=job.status)
    return ResultPage(
        **msgspec.structs.asdict(head),
        rows=[row for _, row in numbered[:limit]],
        next=numbered[limit - 1][0] if len(numbered) > limit else None,
    )


@route(
    "/jobs/{job_id:uuid}/results.xlsx",
    http_method=[HttpMethod.GET, HttpMethod.HEAD],
    status_code=200,
    tags=["results"],
    summary="The result as an XLSX file",
    **documented_download(*_ERRORS, media_type=XLSX),
)
async def read_result_file(
    request: Request[Any, Any, Any], job_id: FromPath[UUID], principal: NamedDependency[Principal]
) -> Response[Any]:
    """The ML service's own file where it is XLSX, else a workbook made of the parsed rows. 409 `job_not_ready` until
    they are parsed."""
    job, _, key = await blocking(found_with_keys, job_id, principal)
    if key is None or job.results_parsed_at is None:
        raise JobNotReady(what="results", status=job.status)
    size = await blocking(objects.size_of, key)
    if (await blocking(objects.read_range, key, 0, 4)).startswith(b"PK"):
        return await download(request, key, f"{job_id}.xlsx", size, f"{job_id}-{size}", XLSX)
    workbook = await blocking(_workbook, job_id)
    disposition = {"Content-Disposition": f'attachment; filename="{job_id}.xlsx"'}
    return Response(workbook, media_type=XLSX, headers=disposition)


def _workbook(job_id: UUID) -> bytes:
    with transaction() as connection:
        head = results.head(connection, job_id)
        return to_xlsx(head.columns if head else [], results.every_row(connection, job_id))


routes = [read_results, read_result_file]
