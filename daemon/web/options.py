"""OPTIONS is refused like every other method that a route does not name."""

from litestar.plugins import ReceiveRoutePlugin
from litestar.routes import HTTPRoute
from litestar.routes.base import BaseRoute


class NoAutomaticOptions(ReceiveRoutePlugin):
    """Takes back the OPTIONS handler that Litestar adds to every route, where it would pass the guards."""

    def receive_route(self, route: BaseRoute) -> None:
        """Remove the handler before the route reaches the router, which then answers 405."""
        if isinstance(route, HTTPRoute):
            route.route_handler_map.pop("OPTIONS", None)
