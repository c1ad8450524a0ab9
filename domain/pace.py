"""How long something will likely take still, judged by how far it has come since it was first looked at.

The share done so far at the mean pace so far: nothing is assumed of what one cannot see. ``storage.jobs.statements``
has the same rule in SQL, for what others report.
"""

WATCHED_SECONDS = 1.0  # a shorter look says nothing of a pace
LEAST_SHARE = 0.001  # nor does a smaller step forward


class Pace:
    """The pace of one stage, from ``share`` (0 to 1) at ``now`` (seconds, of any clock that does not jump)."""

    def __init__(self, share: float, now: float) -> None:
        self._share, self._since = share, now

    def left(self, share: float, now: float) -> float | None:
        """Seconds from ``now`` until all is done; None where that cannot be known (yet). What falls back begins
        anew."""
        if share < self._share:
            self._share, self._since = share, now
        watched, done = now - self._since, share - self._share
        if watched < WATCHED_SECONDS or done < LEAST_SHARE:
            return None
        return watched * (1.0 - share) / done
