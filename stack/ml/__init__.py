"""The reference ML service: Google's magika looks at every file of an archive and says what it truly is.

A process of its own (``python -m stack.ml --port N``) that speaks the contract of ``docs`` over HTTP only; it shares
neither the database nor the storage's credentials with Millrace, so any other service can stand in its place.
"""
