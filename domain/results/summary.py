"""What a whole result file comes to."""

import math
from typing import Annotated, Any

import msgspec
from msgspec import Meta


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Counts over all rows; null where the file has no such column."""

    rows: Annotated[int, Meta(examples=[3])]
    succeeded: Annotated[int | None, Meta(description="`processing_status` is Success", examples=[None])] = None
    failed: Annotated[int | None, Meta(description="`processing_status` is Failure", examples=[None])] = None
    flagged: Annotated[int | None, Meta(description="`flagged` is true", examples=[1])] = None
    pathologies: Annotated[int | None, Meta(description="`pathology` is 1", examples=[None])] = None
    mean_probability: Annotated[
        float | None, Meta(description="Of `probability_of_pathology`, over the rows that have it", examples=[None])
    ] = None
    total_seconds: Annotated[float | None, Meta(description="Of `time_of_processing`", examples=[None])] = None


def summarise(columns: list[str], rows: list[dict[str, Any]]) -> Summary:
    """Sum the rows up; ``columns`` says which canonical columns the file has."""

    def values(name: str) -> list[Any] | None:
        return [row[name] for row in rows] if name in columns else None

    statuses, flagged, pathology = values("processing_status"), values("flagged"), values("pathology")
    probabilities = [value for value in values("probability_of_pathology") or () if value is not None]
    times = values("time_of_processing")
    return Summary(
        rows=len(rows),
        succeeded=None if statuses is None else statuses.count("Success"),
        failed=None if statuses is None else statuses.count("Failure"),
        flagged=None if flagged is None else flagged.count(True),
        pathologies=None if pathology is None else pathology.count(1),
        mean_probability=math.fsum(probabilities) / len(probabilities) if probabilities else None,
        total_seconds=None if times is None else math.fsum(value for value in times if value is not None),
    )
