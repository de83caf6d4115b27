"""Routes of sessions that agents make from their own: theirs, and the owner's view of the trees."""

from litestar import delete, get, post
from litestar.response import Response

from daemon.domain import errors
from daemon.domain.errors import SESSION_NOT_FOUND
from daemon.domain.filters import SessionFilter
from daemon.domain.ids import parse_id
from daemon.domain.requests import CreateChild
from daemon.domain.views import CreatedChild, RevokedSession, SessionSummary, SessionTree
from daemon.web.decode import Query, body, no_body
from daemon.web.describe import PAGE, an_id, described
from daemon.web.routes.common import IDEMPOTENCY_KEY, AnyRequest, about, caller, idempotency_key, origin, paged, path_id


@post(
    "/v1/session/children",
    opt=described(
        "Make a session below my own",
        CreatedChild,
        body=CreateChild,
        parameters=(IDEMPOTENCY_KEY,),
        errors=(errors.SESSION_LIMIT_EXCEEDED, errors.IDEMPOTENCY_CONFLICT),
        allows="session.delegate",
    ),
)
async def create_child(request: AnyRequest) -> CreatedChild:
    """Make a session that lasts no longer and may do no more than mine; its token is shown this once."""
    asked, key = await body(request, CreateChild), idempotency_key(request)
    delegation = about(request).services.delegation
    return await delegation.create(caller(request), asked, origin(request), idempotency_key=key)


@get(
    "/v1/session/children",
    opt=described(
        "List the sessions right below my own",
        list[SessionSummary],
        parameters=PAGE,
        listed=True,
        allows="session.read",
    ),
)
async def list_children(request: AnyRequest) -> Response[list[SessionSummary]]:
    """List the sessions of status ACTIVE that were made from mine, newest first."""
    await no_body(request)
    query = Query(request)
    page = query.page()
    query.close()
    return paged(request, await about(request).services.delegation.children(caller(request), page))


@delete(
    "/v1/session/children/{session_id:str}",
    status_code=200,
    opt=described("End a session below my own", RevokedSession, errors=(SESSION_NOT_FOUND,), allows="session.delegate"),
)
async def end_child(request: AnyRequest) -> RevokedSession:
    """End a session that descends from mine, with all that descends from it."""
    session_id = path_id(request, "session_id")
    await no_body(request)
    return await about(request).services.delegation.end(caller(request), session_id, origin(request))


@get(
    "/v1/owner/sessions/trees",
    opt=described(
        "Show what agents made from their sessions",
        list[SessionTree],
        parameters=(an_id("agentId", "Only this agent's."), *PAGE),
        listed=True,
    ),
)
async def list_trees(request: AnyRequest) -> Response[list[SessionTree]]:
    """Show the sessions that owners made, newest first, each with all that lives below it."""
    await no_body(request)
    query = Query(request)
    agent_id = query.text("agentId")
    which = SessionFilter(agent_id=parse_id(agent_id, "agentId") if agent_id else None, top=True)
    page = query.page()
    query.close()
    return paged(request, await about(request).services.delegation.trees(which, page))


@get(
    "/v1/sessions/{session_id:str}/tree",
    opt=described("Show what an agent made from a session", SessionTree, errors=(SESSION_NOT_FOUND,)),
)
async def show_tree(request: AnyRequest) -> SessionTree:
    """Show a session with all that lives below it."""
    await no_body(request)
    return await about(request).services.delegation.tree(path_id(request, "session_id"))


OF_AGENT = [create_child, list_children, end_child]
OF_OWNER = [list_trees, show_tree]
