"""The archive of a job: what is in it, and one member of it by itself."""

from api.archives import listing, members

routes = [*listing.routes, *members.routes]
