"""Jobs over HTTP: ordering them, reading them, following them live."""

from api.jobs import control, hub, ordering, resource, stream

routes = [*ordering.routes, *control.routes, *resource.routes, stream.stream_events]
lifespan = [hub.lifespan]
