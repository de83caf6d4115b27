"""Owner routes of the kill switch."""

from litestar import get, post
from litestar.response import Response

from daemon.domain.errors import KILL_SWITCH_ALREADY_ACTIVE, KILL_SWITCH_NOT_ACTIVE, RECOVERY_WAIT_REQUIRED
from daemon.domain.requests import StopEverything
from daemon.domain.views import KillSwitchView, Recovery
from daemon.web.decode import body, no_body
from daemon.web.describe import described
from daemon.web.routes.common import AnyRequest, about, origin


@get("/v1/admin/kill-switch", opt=described("Show the kill switch", KillSwitchView))
async def show_kill_switch(request: AnyRequest) -> KillSwitchView:
    """Show whether everything is stopped."""
    await no_body(request)
    return await about(request).services.kill_switch.show()


@post(
    "/v1/admin/kill-switch",
    status_code=200,
    opt=described(
        "Stop everything",
        KillSwitchView,
        body=StopEverything,
        errors=(KILL_SWITCH_ALREADY_ACTIVE,),
        urgent=True,
    ),
)
async def activate_kill_switch(request: AnyRequest) -> KillSwitchView:
    """Revoke every session and suspend every active agent."""
    asked = await body(request, StopEverything)
    return await about(request).services.kill_switch.activate(asked.reason, origin(request))


@post(
    "/v1/admin/recover",
    status_code=200,
    opt=described(
        "Recover from the kill switch",
        Recovery,
        errors=(KILL_SWITCH_NOT_ACTIVE, RECOVERY_WAIT_REQUIRED),
        also=(202,),
    ),
)
async def recover(request: AnyRequest) -> Response[Recovery]:
    """Bring back the agents that the switch suspended, or begin to wait for it."""
    await no_body(request)
    made = await about(request).services.kill_switch.recover(origin(request))
    return Response(made, status_code=200 if made.state == "NORMAL" else 202)


HANDLERS = [show_kill_switch, activate_kill_switch, recover]
