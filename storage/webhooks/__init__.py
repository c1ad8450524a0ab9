"""Endpoints, what is to be delivered to them, and how that went."""

from storage.webhooks import deliveries, endpoints, feed, log, tables

__all__ = ["deliveries", "endpoints", "feed", "log", "tables"]
