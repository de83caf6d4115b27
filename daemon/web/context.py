"""What is known about the request that is being answered."""

from collections.abc import Callable
from typing import Any, Literal, cast

import msgspec

from daemon.domain.rows import Verifier
from daemon.services.admin import Admin
from daemon.services.agents import Agents
from daemon.services.answers import Answers
from daemon.services.audit import Audit
from daemon.services.auth import SessionAuth
from daemon.services.backups import Backups
from daemon.services.caller import Caller
from daemon.services.channels import Channels
from daemon.services.conversations import Conversations
from daemon.services.delegation import Delegation
from daemon.services.kill_switch import KillSwitch
from daemon.services.measures import Measures
from daemon.services.notifications import Notifications
from daemon.services.oauth import OAuth
from daemon.services.owner import OwnerAuth
from daemon.services.processes import Processes
from daemon.services.sessions import Sessions
from daemon.services.summary import DailySummary
from daemon.services.tokens import Tokens
from daemon.services.verifiers import Verifiers
from daemon.web.meter import RequestMeter
from daemon.web.streams import Streams

_KEY = "daemon"


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """What the guards and the routes call; `stop` begins the ordinary stop."""

    owner: OwnerAuth
    auth: SessionAuth
    agents: Agents
    sessions: Sessions
    tokens: Tokens
    processes: Processes
    conversations: Conversations
    delegation: Delegation
    audit: Audit
    admin: Admin
    backups: Backups
    kill_switch: KillSwitch
    channels: Channels
    notifications: Notifications
    answers: Answers
    verifiers: Verifiers
    oauth: OAuth
    summary: DailySummary
    streams: Streams
    measures: Measures
    meter: RequestMeter
    stop: Callable[[str], None]


class RequestContext(msgspec.Struct, gc=False):
    """One request; the envelope makes it, the guards fill in who is asking.

    Args:
        request_id: the client's, or a new one.
        ip: the peer's address; None over the unix socket.
        client: `cli` or `run` as `X-Daemon-Client` says; None for everybody else.
        services: what the routes call.
        has_body: whether the request's headers announce a body.
        actor: `anonymous` until a guard sets `owner`, `agent:<id>` or `verifier:<id>`.
        session_id: of the session whose token was accepted.
        agent_id: of that session's agent.
        headers: added to the response, names in lower case.
        cause: the exception behind an INTERNAL_ERROR, for the log alone.
        ticket: the owner ticket that was accepted, if one was.
        caller: the agent that passed the session check.
        verifier: the service whose credential was accepted.
    """

    request_id: str
    ip: str | None
    client: Literal["cli", "run"] | None
    services: Services
    has_body: bool = False
    actor: str = "anonymous"
    session_id: str | None = None
    agent_id: str | None = None
    headers: list[tuple[bytes, bytes]] = []
    cause: BaseException | None = None
    ticket: str | None = None
    caller: Caller | None = None
    verifier: Verifier | None = None


def context(scope: Any) -> RequestContext:
    """Return the context of the request with this ASGI scope."""
    return cast("RequestContext", scope[_KEY])


def attach(scope: Any, made: RequestContext) -> None:
    """Make `made` the context of the request with this ASGI scope."""
    scope[_KEY] = made
