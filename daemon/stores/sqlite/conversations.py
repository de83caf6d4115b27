"""SQL of conversations."""

import sqlite3
from collections.abc import Iterable, Sequence
from sys import intern
from typing import Any

import msgspec

from daemon.domain.filters import ConversationFilter
from daemon.domain.pages import Page
from daemon.domain.rows import Conversation, ConversationKey, TouchedConversation
from daemon.domain.views import ProviderCount

_FIELDS = Conversation.__struct_fields__
_COLUMNS = ", ".join(_FIELDS)
_CHANGING = tuple(name for name in _FIELDS if name not in {"agent_id", "conversation_id"})

# One conversation, an expired one too.
_GET = f"SELECT {_COLUMNS} FROM conversations WHERE agent_id = ? AND conversation_id = ?"  # noqa: S608

# A conversation that begins, or changes whole.
_PUT = (
    f"INSERT INTO conversations ({_COLUMNS}) VALUES ({', '.join('?' * len(_FIELDS))})"  # noqa: S608
    " ON CONFLICT (agent_id, conversation_id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _CHANGING)
)

# One that is over.
_DELETE = "DELETE FROM conversations WHERE agent_id = ? AND conversation_id = ?"

# Uses that were counted in memory; one that is gone stays gone.
_ADD_USE = (
    "UPDATE conversations SET request_count = request_count + :requests,"
    " last_activity = max(last_activity, :last_activity), expires_at = max(expires_at, :expires_at)"
    " WHERE agent_id = :agent_id AND conversation_id = :conversation_id"
)

# Conversations by provider and model.
_COUNT = "SELECT provider, model, count(*), sum(rebind_count) FROM conversations WHERE {} GROUP BY 1, 2 ORDER BY 1, 2"

# Conversations that nobody used for long; a stock SQLite has no DELETE … LIMIT.
_PURGE = (
    "DELETE FROM conversations WHERE rowid IN"
    " (SELECT rowid FROM conversations WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)"
)


def to_conversation(row: Sequence[Any]) -> Conversation:
    """Map a row whose columns are the struct's fields; words that many share are kept once in memory."""
    agent_id, conversation_id, provider, model, *rest = row
    return Conversation(intern(agent_id), conversation_id, intern(provider), intern(model), *rest)


def get(raw: sqlite3.Connection, key: ConversationKey) -> Conversation | None:
    """Return a conversation."""
    row = raw.execute(_GET, key).fetchone()
    return to_conversation(row) if row else None


def put(raw: sqlite3.Connection, conversation: Conversation) -> None:
    """Add a conversation, or store it in place of the one there is."""
    raw.execute(_PUT, msgspec.structs.astuple(conversation))


def delete(raw: sqlite3.Connection, key: ConversationKey) -> None:
    """Delete a conversation."""
    raw.execute(_DELETE, key)


def add_use(raw: sqlite3.Connection, rows: Iterable[TouchedConversation]) -> None:
    """Add uses that were counted in memory."""
    raw.executemany(_ADD_USE, map(msgspec.structs.asdict, rows))


def _matching(which: ConversationFilter, now: int) -> tuple[list[str], dict[str, Any]]:
    chosen = {name: value for name, value in msgspec.structs.asdict(which).items() if value is not None}
    return ["expires_at > :now", *(f"{name} = :{name}" for name in chosen)], {"now": now, **chosen}


def find(raw: sqlite3.Connection, which: ConversationFilter, page: Page, now: int) -> list[Conversation]:
    """Return conversations that match every filter that is set, newest first."""
    conditions, values = _matching(which, now)
    if page.before is not None:
        conditions.append("(created_at, agent_id, conversation_id) < (:before, :before_agent, :before_id)")
        values["before"], row = page.before
        values["before_agent"], _, values["before_id"] = row.partition(":")
    sql = (
        f"SELECT {_COLUMNS} FROM conversations WHERE {' AND '.join(conditions)}"  # noqa: S608
        " ORDER BY created_at DESC, agent_id DESC, conversation_id DESC LIMIT :limit"
    )
    return [to_conversation(row) for row in raw.execute(sql, values | {"limit": page.limit})]


def counts(raw: sqlite3.Connection, which: ConversationFilter, now: int) -> list[ProviderCount]:
    """Return how many match every filter that is set, by provider and model."""
    conditions, values = _matching(which, now)
    rows = raw.execute(_COUNT.format(" AND ".join(conditions)), values)
    return [
        ProviderCount(provider=row[0], model=row[1], conversations=row[2], rebinds=row[3]) for row in rows.fetchall()
    ]


def purge(raw: sqlite3.Connection, before: int, limit: int) -> int:
    """Delete at most `limit` conversations that expired before (Unix seconds); return how many."""
    return raw.execute(_PURGE, (before, limit)).rowcount
