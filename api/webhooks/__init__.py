"""Webhooks over HTTP: an owner's endpoints, and the log of what was delivered to them."""

from api.webhooks import deliveries, endpoints

routes = [*endpoints.routes, *deliveries.routes]
