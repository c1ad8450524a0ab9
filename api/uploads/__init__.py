"""Uploads: from the client's socket to the object storage, part by part.

    async with receive(request, limit) as form:
        row = await form.keep(lambda: create(form.file, form.fields))

The body is read once, as fast as the store takes it: what the store does not take is not read from the socket. No
whole body in memory, nothing on local disk. Uploads that can be resumed (``tus.py``) keep what fills no part in the
store, too.
"""

from api.uploads.description import ASKED, RAW, STREAMED, documented_upload, form
from api.uploads.receiver import ReceivedForm, receive
from api.uploads.tus import routes
from domain.files import StoredObject

__all__ = [
    "ASKED",
    "RAW",
    "STREAMED",
    "ReceivedForm",
    "StoredObject",
    "documented_upload",
    "form",
    "receive",
    "routes",
]
