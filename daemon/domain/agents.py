"""Agents: registered identities that have sessions."""

from typing import Literal

import msgspec

from daemon.domain.changes import Outcome, Rows
from daemon.domain.errors import AGENT_EXISTS, AGENT_NOT_FOUND, AGENT_TERMINATED, DaemonError
from daemon.domain.facts.agents import AgentActivated, AgentCreated, AgentSuspended, AgentTerminated, AgentUpdated
from daemon.domain.lifecycle import revoke_every
from daemon.domain.requests import PatchAgent
from daemon.domain.rows import Agent, SuspendedBy
from daemon.domain.views import AgentView, TerminatedView

OwnerState = Literal["NONE", "GRACE", "LOCKED"]


def owner_state(agent: Agent) -> OwnerState:
    """Return NONE without an owner address, GRACE while it is unverified, LOCKED once it is verified."""
    if agent.owner_address is None:
        return "NONE"
    return "LOCKED" if agent.owner_verified else "GRACE"


def view(agent: Agent) -> AgentView:
    """Return the agent as the API shows it."""
    return AgentView(
        id=agent.id,
        name=agent.name,
        status=agent.status,
        chain=agent.chain,
        network=agent.network,
        public_key=agent.public_key,
        owner_address=agent.owner_address,
        owner_verified=agent.owner_verified,
        owner_state=owner_state(agent),
        metadata=msgspec.Raw(agent.metadata),
        created_at=agent.created_at,
        updated_at=agent.updated_at,
        suspended_at=agent.suspended_at,
        suspension_reason=agent.suspension_reason,
    )


def create(rows: Rows, now: int, *, agent: Agent) -> Outcome[AgentView]:
    """Register an agent.

    Raises:
        DaemonError: AGENT_EXISTS when another agent has the public key.
    """
    if rows.key_holder is not None:
        raise DaemonError(AGENT_EXISTS, details={"agentId": rows.key_holder.id})
    made = msgspec.structs.replace(agent, created_at=now, updated_at=now)
    fact = AgentCreated(agent_id=made.id, name=made.name)
    return Outcome(answer=view(made), new_agent=made, facts=(fact,))


def require(agent: Agent | None) -> Agent:
    """Return the agent if there is one that was not terminated.

    Raises:
        DaemonError: AGENT_NOT_FOUND, AGENT_TERMINATED.
    """
    if agent is None:
        raise DaemonError(AGENT_NOT_FOUND)
    if agent.status in {"TERMINATING", "TERMINATED"}:
        raise DaemonError(AGENT_TERMINATED)
    return agent


def patch(rows: Rows, now: int, *, body: PatchAgent) -> Outcome[AgentView]:
    """Change the attributes that the body names; a new owner address is unverified unless the body says otherwise.

    Raises:
        DaemonError: AGENT_NOT_FOUND, AGENT_TERMINATED.
    """
    agent = require(rows.agent)
    changes = body.changes()
    if changes.get("owner_address", agent.owner_address) != agent.owner_address:
        changes.setdefault("owner_verified", False)
    changed = {name: value for name, value in changes.items() if getattr(agent, name) != value}
    if not changed:
        return Outcome(answer=view(agent))
    updated = msgspec.structs.replace(agent, **changed, updated_at=now)
    fact = AgentUpdated(agent_id=agent.id, fields=tuple(sorted(changed)))
    return Outcome(answer=view(updated), agent=updated, facts=(fact,))


def suspend(rows: Rows, now: int, *, reason: str | None) -> Outcome[AgentView]:
    """Refuse the agent's tokens until it is activated; repeated, nothing changes.

    Raises:
        DaemonError: AGENT_NOT_FOUND, AGENT_TERMINATED.
    """
    agent = require(rows.agent)
    if agent.status == "SUSPENDED":
        return Outcome(answer=view(agent))
    updated, fact = suspended(agent, now, by="owner", reason=reason)
    return Outcome(answer=view(updated), agent=updated, facts=(fact,))


def suspended(agent: Agent, now: int, *, by: SuspendedBy, reason: str | None) -> tuple[Agent, AgentSuspended]:
    """Return an active agent as suspended, with the fact."""
    updated = msgspec.structs.replace(
        agent, status="SUSPENDED", suspended_at=now, suspension_reason=reason, suspended_by=by, updated_at=now
    )
    return updated, AgentSuspended(agent_id=agent.id, reason=reason)


def activate(rows: Rows, now: int, *, reason: str | None) -> Outcome[AgentView]:
    """Accept the agent's tokens again; repeated, nothing changes.

    Raises:
        DaemonError: AGENT_NOT_FOUND, AGENT_TERMINATED.
    """
    agent = require(rows.agent)
    if agent.status == "ACTIVE":
        return Outcome(answer=view(agent))
    updated, fact = activated(agent, now, reason=reason)
    return Outcome(answer=view(updated), agent=updated, facts=(fact,))


def activated(agent: Agent, now: int, *, reason: str | None) -> tuple[Agent, AgentActivated]:
    """Return a suspended agent as active, with the fact."""
    updated = msgspec.structs.replace(
        agent, status="ACTIVE", suspended_at=None, suspension_reason=None, suspended_by=None, updated_at=now
    )
    return updated, AgentActivated(agent_id=agent.id, reason=reason)


def terminate(rows: Rows, now: int) -> Outcome[TerminatedView]:
    """End the agent for good and revoke its sessions.

    Raises:
        DaemonError: AGENT_NOT_FOUND, AGENT_TERMINATED.
    """
    agent = require(rows.agent)
    ended = revoke_every(rows, now, reason="agent_terminated")
    updated = msgspec.structs.replace(agent, status="TERMINATED", updated_at=now)
    fact = AgentTerminated(agent_id=agent.id, sessions_revoked=ended.answer)
    return Outcome(
        answer=TerminatedView(id=agent.id, status="TERMINATED", sessions_revoked=ended.answer),
        agent=updated,
        sessions=ended.sessions,
        facts=(*ended.facts, fact),
    )
