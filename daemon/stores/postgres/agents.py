"""SQL of agents."""

from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from daemon.domain.pages import Page
from daemon.domain.rows import Agent, AgentStatus, SuspendedBy
from daemon.stores.postgres.connection import Connection

_FIELDS = Agent.__struct_fields__
COLUMNS = ", ".join(_FIELDS)

# One agent by id.
_GET = f"SELECT {COLUMNS} FROM agents WHERE id = $1"  # noqa: S608

# Agents by id, and those of sessions, locked in the order of their ids. A session never changes its agent, so that
# finding it needs no lock.
_LOCK = (
    f"SELECT {COLUMNS} FROM agents WHERE id IN"  # noqa: S608
    " (SELECT unnest($1::text[]) UNION SELECT agent_id FROM sessions WHERE id = ANY($2::text[]))"
    " ORDER BY id FOR NO KEY UPDATE"
)

# Every agent of a status, and every one that something suspended, locked in the order of their ids.
_LOCK_STATUS = f"SELECT {COLUMNS} FROM agents WHERE status = $1 ORDER BY id FOR NO KEY UPDATE"  # noqa: S608
_LOCK_SUSPENDED = (
    f"SELECT {COLUMNS} FROM agents WHERE status = 'SUSPENDED' AND suspended_by = $1"  # noqa: S608
    " ORDER BY id FOR NO KEY UPDATE"
)

# The agents that have public keys.
_BY_KEYS = f"SELECT {COLUMNS} FROM agents WHERE public_key = ANY($1::text[])"  # noqa: S608

# A new agent.
_INSERT = f"INSERT INTO agents ({COLUMNS}) VALUES ({', '.join(f'${n}' for n in range(1, len(_FIELDS) + 1))})"  # noqa: S608

# Everything about an agent that can change.
_UPDATE = (
    "UPDATE agents SET name = $1, status = $2, owner_address = $3, owner_verified = $4, metadata = $5,"
    " updated_at = $6, suspended_at = $7, suspension_reason = $8, suspended_by = $9 WHERE id = $10"
)


def to_agent(row: Sequence[Any]) -> Agent:
    """Map a row whose columns are `COLUMNS`."""
    return Agent(*row)


async def get(raw: Connection, agent_id: str) -> Agent | None:
    """Return an agent."""
    row = await raw.fetchrow(_GET, agent_id)
    return to_agent(row) if row else None


async def lock(raw: Connection, agent_ids: Collection[str], session_ids: Collection[str]) -> list[Agent]:
    """Return agents by id and those of sessions; nobody else changes them, or their sessions, until the commit."""
    return [to_agent(row) for row in await raw.fetch(_LOCK, list(agent_ids), list(session_ids))]


async def by_public_keys(raw: Connection, keys: Collection[str]) -> list[Agent]:
    """Return the agents that have these public keys."""
    return [to_agent(row) for row in await raw.fetch(_BY_KEYS, list(keys))]


async def insert(raw: Connection, agents: Collection[Agent]) -> None:
    """Add agents."""
    await raw.executemany(_INSERT, map(msgspec.structs.astuple, agents))


async def update(raw: Connection, agents: Collection[Agent]) -> None:
    """Store what changed of agents."""
    await raw.executemany(_UPDATE, map(_changing, agents))


def _changing(agent: Agent) -> tuple[Any, ...]:
    values = (agent.name, agent.status, agent.owner_address, agent.owner_verified, agent.metadata, agent.updated_at)
    return (*values, agent.suspended_at, agent.suspension_reason, agent.suspended_by, agent.id)


async def find(raw: Connection, status: AgentStatus | None, page: Page) -> list[Agent]:
    """Return agents, newest first."""
    conditions, values = ["true"], list[Any]([page.limit])
    if status is not None:
        values.append(status)
        conditions.append(f"status = ${len(values)}")
    if page.before is not None:
        values += page.before
        conditions.append(f"(created_at, id) < (${len(values) - 1}, ${len(values)})")
    where = " AND ".join(conditions)
    sql = f"SELECT {COLUMNS} FROM agents WHERE {where} ORDER BY created_at DESC, id DESC LIMIT $1"  # noqa: S608
    return [to_agent(row) for row in await raw.fetch(sql, *values)]


async def lock_status(raw: Connection, status: AgentStatus) -> list[Agent]:
    """Return every agent of a status, locked."""
    return [to_agent(row) for row in await raw.fetch(_LOCK_STATUS, status)]


async def lock_suspended_by(raw: Connection, cause: SuspendedBy) -> list[Agent]:
    """Return every agent that this suspended, locked."""
    return [to_agent(row) for row in await raw.fetch(_LOCK_SUSPENDED, cause)]


async def count(raw: Connection) -> int:
    """Return the number of agents that are not terminated."""
    return int(await raw.fetchval("SELECT count(*) FROM agents WHERE status <> 'TERMINATED'"))
