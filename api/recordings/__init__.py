"""Recordings over HTTP: mailboxes, what was fetched from them, and the audio itself."""

from api.recordings import audio, fetching, mailboxes, resource

routes = [*mailboxes.routes, *fetching.routes, *resource.routes, *audio.routes]
