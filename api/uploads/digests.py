"""The SHA-256 of uploads under way, as far as they have come, in the memory of this process.

hashlib's state can be copied but not written down, so it cannot follow an upload to another process. Where it is
missing at the end, the object is read once more; that is all its loss costs.
"""

import hashlib
from collections import OrderedDict
from uuid import UUID

REMEMBERED = 10_000  # at some hundred bytes each

_known: "OrderedDict[UUID, tuple[int, hashlib._Hash]]" = OrderedDict()


def at(upload_id: UUID, offset: int) -> "hashlib._Hash | None":
    """The digest of the first ``offset`` bytes, to be gone on with; None where it is not known here."""
    if offset == 0:
        return hashlib.sha256()
    seen, digest = _known.pop(upload_id, (0, None))
    return digest if seen == offset else None


def remember(upload_id: UUID, offset: int, digest: "hashlib._Hash") -> None:
    _known[upload_id] = (offset, digest)
    while len(_known) > REMEMBERED:
        _known.popitem(last=False)
