"""Recordings over HTTP: mailboxes, what was fetched from them, and the audio itself."""

from api.recordings import audio, calls, fetching, linking, mailboxes, mango, resource

routes = [
    *mailboxes.routes,
    *fetching.routes,
    *resource.routes,
    *audio.routes,
    *calls.routes,
    *linking.routes,
    *mango.routes,
]
