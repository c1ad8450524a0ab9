"""Jobs over HTTP: ordering them, reading them, following them live."""

from api.jobs import hub, ordering, resource, stream

routes = [*ordering.routes, *resource.routes, stream.stream_events]
lifespan = [hub.lifespan]
