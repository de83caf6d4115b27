"""Owner routes of notification channels and of the delivery log."""

from typing import get_args

from litestar import delete, get, post, put
from litestar.response import Response

from daemon.domain.errors import CHANNEL_NOT_FOUND, INVALID_CHANNEL_CONFIG, MIN_CHANNELS_REQUIRED
from daemon.domain.filters import AttemptFilter
from daemon.domain.message_views import AttemptView, ChannelTest, ChannelView
from daemon.domain.notifications import EVENTS
from daemon.domain.requests import AddChannel, UpdateChannel
from daemon.domain.rows import AttemptStatus
from daemon.web.decode import Query, body, no_body
from daemon.web.describe import PAGE, Parameter, described, one_of
from daemon.web.routes.common import AnyRequest, about, origin, paged, path_id

_FORCE = Parameter(
    "force", "Disable it even if too few channels remain.", {"type": "string", "enum": ["true", "false"]}
)
_STATUS = one_of("status", "Only attempts that ended so.", get_args(AttemptStatus))
_EVENT = one_of("event", "Only attempts to tell of this event.", (*EVENTS, "TEST"))
_CHANGE = (CHANNEL_NOT_FOUND, INVALID_CHANNEL_CONFIG, MIN_CHANNELS_REQUIRED)


@post(
    "/v1/owner/notification-channels",
    opt=described("Add a notification channel", ChannelView, body=AddChannel, errors=(INVALID_CHANNEL_CONFIG,)),
)
async def add_channel(request: AnyRequest) -> ChannelView:
    """Add a channel that passed its health check."""
    return await about(request).services.channels.add(await body(request, AddChannel), origin(request))


@get("/v1/owner/notification-channels", opt=described("List notification channels", list[ChannelView]))
async def list_channels(request: AnyRequest) -> list[ChannelView]:
    """List the channels, the one that is tried first at the top; credentials are masked."""
    await no_body(request)
    return await about(request).services.channels.find()


@put(
    "/v1/owner/notification-channels/{channel_id:str}",
    opt=described("Change a notification channel", ChannelView, body=UpdateChannel, errors=_CHANGE),
)
async def update_channel(request: AnyRequest) -> ChannelView:
    """Change what the body names; `***` in `config` keeps what is stored."""
    channel_id = path_id(request, "channel_id")
    return await about(request).services.channels.update(
        channel_id, await body(request, UpdateChannel), origin(request)
    )


@delete(
    "/v1/owner/notification-channels/{channel_id:str}",
    status_code=200,
    opt=described(
        "Disable a notification channel",
        ChannelView,
        parameters=(_FORCE,),
        errors=(CHANNEL_NOT_FOUND, MIN_CHANNELS_REQUIRED),
    ),
)
async def disable_channel(request: AnyRequest) -> ChannelView:
    """Disable a channel; the delivery log keeps its reference."""
    channel_id = path_id(request, "channel_id")
    await no_body(request)
    query = Query(request)
    force = query.flag("force")
    query.close()
    return await about(request).services.channels.disable(channel_id, origin(request), force=force)


@post(
    "/v1/owner/notification-channels/{channel_id:str}/test",
    status_code=200,
    opt=described("Send a test message", ChannelTest, errors=(CHANNEL_NOT_FOUND, INVALID_CHANNEL_CONFIG)),
)
async def test_channel(request: AnyRequest) -> ChannelTest:
    """Send a test message and answer what the service said."""
    channel_id = path_id(request, "channel_id")
    await no_body(request)
    return await about(request).services.channels.test(channel_id)


@get(
    "/v1/owner/notifications",
    opt=described("List what was sent", list[AttemptView], parameters=(_STATUS, _EVENT, *PAGE), listed=True),
)
async def list_attempts(request: AnyRequest) -> Response[list[AttemptView]]:
    """List the attempts to reach the owner, newest first."""
    await no_body(request)
    query = Query(request)
    which = AttemptFilter(status=query.choice("status", AttemptStatus), event=query.word("event", (*EVENTS, "TEST")))
    page = query.page()
    query.close()
    return paged(request, await about(request).services.notifications.log(which, page))


HANDLERS = [add_channel, list_channels, update_channel, disable_channel, test_channel, list_attempts]
