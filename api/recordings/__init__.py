"""Recordings over HTTP: mailboxes, what was fetched from them, and the audio itself."""

from api.recordings import calls, linking, mango

routes = [*calls.routes, *linking.routes, *mango.routes]
