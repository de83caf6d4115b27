"""The route for Prometheus, where `server.metrics` is on."""

from typing import Any

from litestar import get
from litestar.types import ASGIApp

from daemon.web.decode import no_body
from daemon.web.describe import described
from daemon.web.exposition import Exposition
from daemon.web.routes.common import AnyRequest, about, answered


def handlers() -> list[Any]:
    """Return the route; it remembers what it answered a moment ago."""
    exposition = Exposition()

    @get("/metrics", opt=described("Metrics, if `server.metrics` is on (Prometheus, OpenMetrics)", str, metrics=True))
    async def show_metrics(request: AnyRequest) -> ASGIApp:
        """Answer also while the kill switch is on or the database is away: that is when somebody looks."""
        await no_body(request)
        accept = ",".join(request.headers.getall("accept", []))
        text, media_type = await exposition.text(about(request).services, accept)
        return answered(text, 200, media_type.encode())

    return [show_metrics]
