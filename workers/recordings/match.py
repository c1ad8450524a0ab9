"""The step `match`: the calls that the new recordings belong to, as far as they are known."""

from domain.pipelines import Context, Done, JobInStep, Outcome
from storage.database import transaction
from storage.recordings import keeping, matching


def match(job: JobInStep, context: Context) -> Outcome:
    """A recording whose call is not known yet is tried again when more is heard of calls."""
    with transaction() as connection:
        found = keeping.of_job(connection, job.id)
        matched = matching.match_new(connection, found) if found else 0
    return Done(message=f"{matched} of {len(found)} recordings matched" if found else "nothing new")
