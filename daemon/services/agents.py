"""Agents: what the owner does with registered identities."""

import os

from daemon.domain import agents
from daemon.domain.agents import view
from daemon.domain.body import json_text
from daemon.domain.changes import Scope
from daemon.domain.errors import AGENT_NOT_FOUND, DaemonError
from daemon.domain.events import Origin
from daemon.domain.ids import new_id
from daemon.domain.pages import Listing, Page, next_cursor
from daemon.domain.requests import CreateAgent, PatchAgent
from daemon.domain.rows import Agent, AgentStatus
from daemon.domain.views import AgentView, TerminatedView
from daemon.stores.protocol import Store


class Agents:
    """The owner's operations on agents.

    Args:
        store: the engine.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def create(self, body: CreateAgent, origin: Origin) -> AgentView:
        """Register an agent.

        Raises:
            DaemonError: AGENT_EXISTS.
        """
        clock = self._store.clock
        agent = Agent(
            id=new_id(clock, os.urandom(10)),
            name=body.name,
            status="ACTIVE",
            chain=body.chain,
            network=body.network,
            public_key=body.public_key,
            owner_address=body.owner_address,
            metadata=json_text(body.metadata or {}),
        )
        return await self._store.change(
            Scope(public_key=body.public_key), lambda rows, now: agents.create(rows, now, agent=agent), origin
        )

    async def get(self, agent_id: str) -> AgentView:
        """Return an agent.

        Raises:
            DaemonError: AGENT_NOT_FOUND.
        """
        agent = await self._store.agent(agent_id)
        if agent is None:
            raise DaemonError(AGENT_NOT_FOUND)
        return view(agent)

    async def find(self, status: AgentStatus | None, page: Page) -> Listing[AgentView]:
        """Return agents, newest first."""
        found = await self._store.agents(status, page)
        return Listing([view(agent) for agent in found], next_cursor(found, page))

    async def patch(self, agent_id: str, body: PatchAgent, origin: Origin) -> AgentView:
        """Change attributes of an agent.

        Raises:
            DaemonError: AGENT_NOT_FOUND, AGENT_TERMINATED.
        """
        return await self._store.change(
            Scope(agent=agent_id), lambda rows, now: agents.patch(rows, now, body=body), origin
        )

    async def suspend(self, agent_id: str, reason: str | None, origin: Origin) -> AgentView:
        """Refuse the agent's tokens until it is activated.

        Raises:
            DaemonError: AGENT_NOT_FOUND, AGENT_TERMINATED.
        """
        return await self._store.change(
            Scope(agent=agent_id), lambda rows, now: agents.suspend(rows, now, reason=reason), origin
        )

    async def activate(self, agent_id: str, reason: str | None, origin: Origin) -> AgentView:
        """Accept the agent's tokens again.

        Raises:
            DaemonError: AGENT_NOT_FOUND, AGENT_TERMINATED.
        """
        return await self._store.change(
            Scope(agent=agent_id), lambda rows, now: agents.activate(rows, now, reason=reason), origin
        )

    async def terminate(self, agent_id: str, origin: Origin) -> TerminatedView:
        """End the agent for good and revoke its sessions in the same transaction.

        Raises:
            DaemonError: AGENT_NOT_FOUND, AGENT_TERMINATED.
        """
        return await self._store.change(
            Scope(agent=agent_id, pick="of_agent", picked_agent=agent_id), agents.terminate, origin
        )
