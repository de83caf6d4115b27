"""Owner routes of agents."""

from typing import get_args

from litestar import delete, get, patch, post
from litestar.response import Response

from daemon.domain.errors import AGENT_EXISTS, AGENT_NOT_FOUND, AGENT_TERMINATED
from daemon.domain.requests import CreateAgent, PatchAgent, WithReason
from daemon.domain.rows import AgentStatus
from daemon.domain.views import AgentView, TerminatedView
from daemon.web.decode import Query, body, no_body
from daemon.web.describe import PAGE, described, one_of
from daemon.web.routes.common import AnyRequest, about, origin, paged, path_id

_STATUS = one_of("status", "Only agents of this status.", get_args(AgentStatus))
_KNOWN = (AGENT_NOT_FOUND, AGENT_TERMINATED)


@post("/v1/agents", opt=described("Register an agent", AgentView, body=CreateAgent, errors=(AGENT_EXISTS,)))
async def create_agent(request: AnyRequest) -> AgentView:
    """Register an agent."""
    return await about(request).services.agents.create(await body(request, CreateAgent), origin(request))


@get("/v1/agents", opt=described("List agents", list[AgentView], parameters=(_STATUS, *PAGE), listed=True))
async def list_agents(request: AnyRequest) -> Response[list[AgentView]]:
    """List agents, newest first."""
    await no_body(request)
    query = Query(request)
    status, page = query.choice("status", AgentStatus), query.page()
    query.close()
    return paged(request, await about(request).services.agents.find(status, page))


@get("/v1/agents/{agent_id:str}", opt=described("Show an agent", AgentView, errors=(AGENT_NOT_FOUND,)))
async def show_agent(request: AnyRequest) -> AgentView:
    """Show an agent."""
    await no_body(request)
    return await about(request).services.agents.get(path_id(request, "agent_id"))


@patch("/v1/agents/{agent_id:str}", opt=described("Change an agent", AgentView, body=PatchAgent, errors=_KNOWN))
async def patch_agent(request: AnyRequest) -> AgentView:
    """Change the attributes that the body names."""
    agent_id = path_id(request, "agent_id")
    return await about(request).services.agents.patch(agent_id, await body(request, PatchAgent), origin(request))


@post(
    "/v1/agents/{agent_id:str}/suspend",
    status_code=200,
    opt=described("Refuse the agent's tokens for now", AgentView, body=WithReason, errors=_KNOWN),
)
async def suspend_agent(request: AnyRequest) -> AgentView:
    """Refuse the agent's tokens until it is activated."""
    agent_id = path_id(request, "agent_id")
    reason = (await body(request, WithReason)).reason
    return await about(request).services.agents.suspend(agent_id, reason, origin(request))


@post(
    "/v1/agents/{agent_id:str}/activate",
    status_code=200,
    opt=described("Accept the agent's tokens again", AgentView, body=WithReason, errors=_KNOWN),
)
async def activate_agent(request: AnyRequest) -> AgentView:
    """Accept the agent's tokens again."""
    agent_id = path_id(request, "agent_id")
    reason = (await body(request, WithReason)).reason
    return await about(request).services.agents.activate(agent_id, reason, origin(request))


@delete(
    "/v1/agents/{agent_id:str}",
    status_code=200,
    opt=described("End an agent and its sessions for good", TerminatedView, errors=_KNOWN),
)
async def terminate_agent(request: AnyRequest) -> TerminatedView:
    """End the agent for good and revoke its sessions."""
    agent_id = path_id(request, "agent_id")
    await no_body(request)
    return await about(request).services.agents.terminate(agent_id, origin(request))


HANDLERS = [create_agent, list_agents, show_agent, patch_agent, suspend_agent, activate_agent, terminate_agent]
