"""Ways out of a step that are not failures; raised at its checkpoints."""


class Cancelled(Exception):
    """The job's owner asked for it to end."""


class ClaimGone(Exception):
    """The lease ran out and the step belongs to another worker; whatever is done here no longer counts."""
