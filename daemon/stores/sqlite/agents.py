"""SQL of agents."""

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from daemon.domain.pages import Page
from daemon.domain.rows import Agent, AgentStatus, SuspendedBy

FIELDS = Agent.__struct_fields__
_VERIFIED = FIELDS.index("owner_verified")
COLUMNS = ", ".join(FIELDS)

# One agent by id.
_GET = f"SELECT {COLUMNS} FROM agents WHERE id = ?"  # noqa: S608

# The agent that has a public key.
_BY_KEY = f"SELECT {COLUMNS} FROM agents WHERE public_key = ?"  # noqa: S608

# A new agent.
_INSERT = f"INSERT INTO agents ({COLUMNS}) VALUES ({', '.join('?' * len(FIELDS))})"  # noqa: S608

# Everything about an agent that can change.
_UPDATE = (
    "UPDATE agents SET name = ?, status = ?, owner_address = ?, owner_verified = ?, metadata = ?, updated_at = ?,"
    " suspended_at = ?, suspension_reason = ?, suspended_by = ? WHERE id = ?"
)


def to_agent(row: Sequence[Any]) -> Agent:
    """Map a row whose columns are `COLUMNS`."""
    values = list(row)
    values[_VERIFIED] = bool(values[_VERIFIED])
    return Agent(*values)


def get(raw: sqlite3.Connection, agent_id: str) -> Agent | None:
    """Return an agent."""
    row = raw.execute(_GET, (agent_id,)).fetchone()
    return to_agent(row) if row else None


def by_public_key(raw: sqlite3.Connection, public_key: str) -> Agent | None:
    """Return the agent that has this public key."""
    row = raw.execute(_BY_KEY, (public_key,)).fetchone()
    return to_agent(row) if row else None


def insert(raw: sqlite3.Connection, agent: Agent) -> None:
    """Add an agent."""
    raw.execute(_INSERT, msgspec.structs.astuple(agent))


def update(raw: sqlite3.Connection, agent: Agent) -> None:
    """Store what changed of an agent."""
    values = (agent.name, agent.status, agent.owner_address, agent.owner_verified, agent.metadata, agent.updated_at)
    raw.execute(_UPDATE, (*values, agent.suspended_at, agent.suspension_reason, agent.suspended_by, agent.id))


def find(raw: sqlite3.Connection, status: AgentStatus | None, page: Page) -> list[Agent]:
    """Return agents, newest first."""
    conditions, values = ["1"], list[Any]()
    if status is not None:
        conditions.append("status = ?")
        values.append(status)
    if page.before is not None:
        conditions.append("(created_at, id) < (?, ?)")
        values += page.before
    where = " AND ".join(conditions)
    sql = f"SELECT {COLUMNS} FROM agents WHERE {where} ORDER BY created_at DESC, id DESC LIMIT ?"  # noqa: S608
    return [to_agent(row) for row in raw.execute(sql, (*values, page.limit))]


def of_status(raw: sqlite3.Connection, status: AgentStatus) -> list[Agent]:
    """Return every agent of a status."""
    return [to_agent(row) for row in raw.execute(f"SELECT {COLUMNS} FROM agents WHERE status = ?", (status,))]  # noqa: S608


def suspended_by(raw: sqlite3.Connection, cause: SuspendedBy) -> list[Agent]:
    """Return every agent that this suspended."""
    sql = f"SELECT {COLUMNS} FROM agents WHERE status = 'SUSPENDED' AND suspended_by = ?"  # noqa: S608
    return [to_agent(row) for row in raw.execute(sql, (cause,))]


def count(raw: sqlite3.Connection) -> int:
    """Return the number of agents that are not terminated."""
    return int(raw.execute("SELECT count(*) FROM agents WHERE status <> 'TERMINATED'").fetchone()[0])
