"""SQL of supervised processes and of their turns, and which of them take a place of the pool."""

from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import Any

import msgspec

from daemon.domain.process_rows import Place, Process, Supervised, Turn
from daemon.domain.rows import Agent, Session
from daemon.stores.postgres import agents, sessions
from daemon.stores.postgres.connection import Connection

_FIELDS = Process.__struct_fields__
_COLUMNS = ", ".join(_FIELDS)
_TURN_FIELDS = Turn.__struct_fields__
_TURN_COLUMNS = ", ".join(_TURN_FIELDS)
_AGENT_AT = len(sessions.FIELDS)
_PROCESS_AT = _AGENT_AT + len(Agent.__struct_fields__)
_TURN_AT = _PROCESS_AT + len(_FIELDS)
_NOT_OVER = "state IN ('QUEUED', 'RUNNING')"
_OPEN = "s.created_by = 'process' AND s.state <> 'CLOSED'"  # as the index has it

# One process, and several.
_GET = f"SELECT {_COLUMNS} FROM processes WHERE session_id = $1"  # noqa: S608
_SEVERAL = f"SELECT {_COLUMNS} FROM processes WHERE session_id = ANY($1::text[])"  # noqa: S608

# The homes of sessions' processes. A process never changes its home, so that finding it needs no lock.
_HOMES = "SELECT DISTINCT home FROM processes WHERE session_id = ANY($1::text[])"

# The turns of sessions that are not over.
_TURNS = f"SELECT {_TURN_COLUMNS} FROM turns WHERE session_id = ANY($1::text[]) AND {_NOT_OVER}"  # noqa: S608

# A session with its agent, its process and its turns that are not over, the oldest first: one statement, one moment.
_SUPERVISED = (
    f"SELECT {', '.join(f's.{name}' for name in sessions.FIELDS)}, "  # noqa: S608
    + ", ".join(f"a.{name}" for name in Agent.__struct_fields__)
    + f", {', '.join(f'p.{name}' for name in _FIELDS)}, {', '.join(f't.{name}' for name in _TURN_FIELDS)}"
    + " FROM processes AS p JOIN sessions AS s ON s.id = p.session_id JOIN agents AS a ON a.id = s.agent_id"
    + f" LEFT JOIN turns AS t ON t.session_id = s.id AND t.{_NOT_OVER} WHERE p.session_id = $1 ORDER BY t.turn"
)

# Processes that take a place: those that run and are to go on, and those that are about to run; see `takes_place`.
_POOL = (
    "SELECT p.home, p.session_id, s.agent_id, s.state, coalesce(s.state_changed_at, s.created_at), p.config"  # noqa: S608
    f" FROM sessions AS s JOIN processes AS p ON p.session_id = s.id WHERE {_OPEN}"
    " AND p.home = ANY($1::text[]) AND p.rest IS NULL"
    " AND (p.pid IS NOT NULL OR p.restart_at IS NOT NULL OR s.state NOT IN ('SUSPENDED', 'CLOSING', 'ERROR'))"
)

# Every session with a process whose end is not known yet.
_UNDER_WAY = (
    f"SELECT {', '.join(f's.{name}' for name in sessions.FIELDS)}, {', '.join(f'p.{name}' for name in _FIELDS)}"  # noqa: S608
    f" FROM sessions AS s JOIN processes AS p ON p.session_id = s.id WHERE {_OPEN} AND p.home = $1 ORDER BY s.id"
)

# A new process.
_INSERT = f"INSERT INTO processes ({_COLUMNS}) VALUES ({', '.join(f'${n}' for n in range(1, len(_FIELDS) + 1))})"  # noqa: S608

# Let processes make room for others.
_REST = "UPDATE processes SET rest = 'pool' WHERE session_id = ANY($1::text[]) AND rest IS NULL"

# A turn, new or as it is now.
_PUT_TURN = (
    f"INSERT INTO turns ({_TURN_COLUMNS}) VALUES ({', '.join(f'${n}' for n in range(1, len(_TURN_FIELDS) + 1))})"  # noqa: S608
    " ON CONFLICT (session_id, turn) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _TURN_FIELDS if name not in {"session_id", "turn"})
)

Update = tuple[Process, Process]
"""A process as it was read in this transaction, and as it shall be."""


def takes_place(session: Session, process: Process) -> bool:
    """Return whether a process takes a place: the condition of `_POOL`, for rows that are not stored yet."""
    if session.state == "CLOSED" or process.rest is not None:
        return False
    about_to_run = session.state not in {"SUSPENDED", "CLOSING", "ERROR"}
    return about_to_run or process.pid is not None or process.restart_at is not None


async def get(raw: Connection, session_id: str) -> Process | None:
    """Return a session's process."""
    row = await raw.fetchrow(_GET, session_id)
    return Process(*row) if row else None


async def supervised(raw: Connection, session_id: str) -> Supervised | None:
    """Return a session with its agent, its process and its turns that are not over."""
    rows = [tuple(row) for row in await raw.fetch(_SUPERVISED, session_id)]
    if not rows:
        return None
    one = rows[0]
    return Supervised(
        sessions.to_session(one[:_AGENT_AT]),
        agents.to_agent(one[_AGENT_AT:_PROCESS_AT]),
        Process(*one[_PROCESS_AT:_TURN_AT]),
        [Turn(*row[_TURN_AT:]) for row in rows if row[_TURN_AT] is not None],
    )


async def under_way(raw: Connection, home: str) -> list[tuple[Session, Process]]:
    """Return every session with a process of this home whose end is not known yet."""
    count = len(sessions.FIELDS)
    rows = [tuple(row) for row in await raw.fetch(_UNDER_WAY, home)]
    return [(sessions.to_session(row[:count]), Process(*row[count:])) for row in rows]


async def homes(raw: Connection, session_ids: Collection[str]) -> list[str]:
    """Return the homes that run the processes of sessions."""
    return [row[0] for row in await raw.fetch(_HOMES, list(session_ids))]


async def several(raw: Connection, session_ids: Collection[str]) -> list[Process]:
    """Return the processes of sessions."""
    return [Process(*row) for row in await raw.fetch(_SEVERAL, list(session_ids))]


async def turns(raw: Connection, session_ids: Collection[str]) -> list[Turn]:
    """Return the turns of sessions that are not over."""
    return [Turn(*row) for row in await raw.fetch(_TURNS, list(session_ids))]


async def pool(raw: Connection, of: Collection[str]) -> list[tuple[str, Place]]:
    """Return the processes of homes that take a place, each with its home."""
    return [(home, Place(*place)) for home, *place in await raw.fetch(_POOL, list(of))]


async def insert(raw: Connection, processes: Iterable[Process]) -> None:
    """Add processes."""
    await raw.executemany(_INSERT, map(msgspec.structs.astuple, processes))


async def update(raw: Connection, updates: Iterable[Update]) -> None:
    """Store what changed of processes: together all in which the same columns changed."""
    alike: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
    for before, after in updates:
        changed = tuple(name for name in _FIELDS if getattr(before, name) != getattr(after, name))
        if changed:
            values = (after.session_id, *(getattr(after, name) for name in changed))
            alike.setdefault(changed, []).append(values)
    for columns, rows in alike.items():
        await raw.executemany(_update_sql(columns), rows)


@lru_cache(maxsize=256)
def _update_sql(columns: tuple[str, ...]) -> str:
    """Return the statement that sets these columns of one process."""
    setting = ", ".join(f"{name} = ${number}" for number, name in enumerate(columns, 2))
    return f"UPDATE processes SET {setting} WHERE session_id = $1"  # noqa: S608


async def rest(raw: Connection, session_ids: Collection[str]) -> None:
    """Let processes make room for others."""
    await raw.execute(_REST, list(session_ids))


async def put_turns(raw: Connection, rows: Iterable[Turn]) -> None:
    """Store turns, new or as they are now."""
    await raw.executemany(_PUT_TURN, map(msgspec.structs.astuple, rows))
