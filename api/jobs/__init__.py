"""Jobs over HTTP: ordering them, reading them, following them live."""

from api import tickets
from api.jobs import control, hub, ordering, resource, socket, stream, watch

routes = [
    *ordering.routes,
    *control.routes,
    *resource.routes,
    *stream.routes,
    *tickets.routes,
    socket.follow_job,
]
lifespan = [hub.lifespan, watch.lifespan]
