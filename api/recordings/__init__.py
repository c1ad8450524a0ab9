"""Recordings over HTTP: mailboxes, what was fetched from them, and the audio itself."""
