"""Routes that need no credential."""

from litestar import get
from litestar.response import Response

from daemon.domain.views import Health
from daemon.web.decode import no_body
from daemon.web.describe import described
from daemon.web.openapi import OpenAPI, document
from daemon.web.routes.common import AnyRequest, about


@get("/health", opt=described("Can the daemon do its work?", Health, also=(503,)))
async def show_health(request: AnyRequest) -> Response[Health]:
    """Answer 200, or 503 with the part that fails."""
    await no_body(request)
    health = await about(request).services.admin.health()
    return Response(health, status_code=200 if health.status == "ok" else 503)


@get("/openapi.json", opt=described("The routes, as an OpenAPI 3.1 document", OpenAPI))
async def show_openapi(request: AnyRequest) -> Response[bytes]:
    """Describe every route."""
    await no_body(request)
    return Response(document(request.app), media_type="application/json")


HANDLERS = [show_health, show_openapi]
