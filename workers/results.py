"""The step `parse`: the result file into rows."""

from functools import partial

from msgspec.structs import replace

from domain.errors.inference import ResultMissing, ResultUnreadable
from domain.errors.neighbours import ObjectMissing
from domain.errors.requests import BodyTooLarge
from domain.pipelines import Context, Done, JobInStep, Outcome
from domain.results import parse
from domain.results.summary import Summary
from storage import objects, results
from storage.configuration import settings


def parse_result(job: JobInStep, context: Context) -> Outcome:
    """Read the job's result from storage and keep its rows.

    Raises:
        ResultMissing: the object is not there.
        ResultUnreadable: it is larger than RESULT_MAX_BYTES, or not a result file.
    """
    config = settings()
    if job.result is None:
        raise ResultMissing
    try:
        data = objects.read(job.result.key, config.result_max_bytes)
    except ObjectMissing:
        raise ResultMissing from None
    except BodyTooLarge as error:
        raise ResultUnreadable(reason=str(error)) from None
    parsed = parse(
        data, config.result_max_rows, lambda done, rows: context.progress(done, rows, f"{done} of {rows} rows")
    )
    return Done(
        message=_in_words(parsed.summary),
        effects=(partial(results.store, job_id=job.id, parsed=parsed),),
        result=replace(job.result, size=len(data)),  # measured: what the service says may be missing or wrong
    )


def _in_words(summary: Summary) -> str:
    words = "1 row" if summary.rows == 1 else f"{summary.rows} rows"
    for count, what in ((summary.flagged, "flagged"), (summary.pathologies, "with pathology")):
        if count is not None:
            words += f", {count} {what}"
    return words


steps = {"parse": parse_result}
