"""What is known of the content of uploads under way, as far as they have come, in the memory of this process.

hashlib's state can be copied but not written down, so it cannot follow an upload to another process. Where it is
missing at the end, the object is read once more; that is all its loss costs.
"""

from collections import OrderedDict
from uuid import UUID

from storage.uploads.content import Content

REMEMBERED = 10_000  # at about a thousand bytes each
_HELD = 4096  # of a file, at most: an honest header that a request has cut in two is shorter

_known: "OrderedDict[UUID, tuple[int, Content]]" = OrderedDict()


def at(upload_id: UUID, offset: int) -> Content | None:
    """Of the first ``offset`` bytes, to be gone on with; None where it is not known here."""
    if offset == 0:
        return Content()
    seen, content = _known.pop(upload_id, (0, None))
    return content if seen == offset else None


def remember(upload_id: UUID, offset: int, content: Content) -> None:
    content.rest(_HELD)
    _known[upload_id] = (offset, content)
    while len(_known) > REMEMBERED:
        _known.popitem(last=False)
