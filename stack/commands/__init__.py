"""The commands for a server anywhere, on top of the Python client. What they import waits until one is run."""
