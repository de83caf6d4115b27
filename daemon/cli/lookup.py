"""Agents, channels and verifiers by id or by name."""

import re

from daemon.cli.client import PAGE, Client
from daemon.cli.failure import FAILED, USAGE, Failure
from daemon.cli.output import one_line
from daemon.domain.message_views import ChannelView
from daemon.domain.oauth_views import VerifierView
from daemon.domain.views import AgentView

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def is_id(text: str) -> bool:
    """Return whether a text is an id, so that it may stand in a path."""
    return _UUID.fullmatch(text) is not None


def session_id(text: str) -> str:
    """Return a session's id.

    Raises:
        Failure: 2, if it is none.
    """
    if not is_id(text):
        raise Failure(f"{one_line(text)} is no session id", USAGE, hint="list them: daemon session list")
    return text


def agent_id(client: Client, ref: str) -> str:
    """Return the id of the agent that is meant.

    Raises:
        Failure: 1, if no agent has this name; 2, if several have it.
    """
    found = agent_id_or_none(client, ref)
    if found is None:
        raise Failure(f"No agent is called {one_line(ref)}", FAILED, hint="list them: daemon agent list")
    return found


def agent_id_or_none(client: Client, ref: str) -> str | None:
    """Return the id of the agent that is meant; an id is taken as it is.

    Living agents go before terminated ones, so that a name can be used again.

    Raises:
        Failure: 2, if several agents have this name.
    """
    if is_id(ref):
        return ref
    pages = client.pages("/v1/agents", limit=PAGE)
    named = [agent for page in pages for agent in page.read_list(AgentView) if agent.name == ref]
    living = [agent for agent in named if agent.status != "TERMINATED"]
    if len(candidates := living or named) > 1:
        ids = ", ".join(agent.id for agent in candidates)
        raise Failure(f"{len(candidates)} agents are called {one_line(ref)}", USAGE, hint=f"name one by its id: {ids}")
    return candidates[0].id if candidates else None


def channel_id(client: Client, ref: str) -> str:
    """Return the id of the channel that is meant; an id is taken as it is.

    Raises:
        Failure: 1, if no channel has this name; 2, if several have it.
    """
    if is_id(ref):
        return ref
    channels = client.call("GET", "/v1/owner/notification-channels").read_list(ChannelView)
    named = [channel.id for channel in channels if channel.name == ref]
    if not named:
        raise Failure(f"No channel is called {one_line(ref)}", FAILED, hint="list them: daemon channel list")
    if len(named) > 1:
        hint = f"name one by its id: {', '.join(named)}"
        raise Failure(f"{len(named)} channels are called {one_line(ref)}", USAGE, hint=hint)
    return named[0]


def verifier_id(client: Client, ref: str) -> str:
    """Return the id of the verifier that is meant; an id is taken as it is.

    Those that are in use go before revoked ones, so that a name can be used again.

    Raises:
        Failure: 1, if no verifier has this name; 2, if several have it.
    """
    if is_id(ref):
        return ref
    pages = client.pages("/v1/owner/verifiers", limit=PAGE)
    named = [verifier for page in pages for verifier in page.read_list(VerifierView) if verifier.name == ref]
    if not named:
        raise Failure(f"No verifier is called {one_line(ref)}", FAILED, hint="list them: daemon verifier list")
    if len(candidates := [one for one in named if one.revoked_at is None] or named) > 1:
        hint = f"name one by its id: {', '.join(one.id for one in candidates)}"
        raise Failure(f"{len(candidates)} verifiers are called {one_line(ref)}", USAGE, hint=hint)
    return candidates[0].id
