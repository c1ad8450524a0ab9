"""The Python client of Millrace: ``from millrace.client import Client``. It needs a server's address, no server."""
