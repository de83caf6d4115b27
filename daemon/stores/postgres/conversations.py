"""SQL of conversations."""

from collections.abc import Collection, Iterable, Sequence
from sys import intern
from typing import Any

import msgspec

from daemon.domain.filters import ConversationFilter
from daemon.domain.pages import Page
from daemon.domain.rows import Conversation, ConversationKey, TouchedConversation
from daemon.domain.views import ProviderCount
from daemon.stores.postgres.connection import Connection

_FIELDS = Conversation.__struct_fields__
_COLUMNS = ", ".join(_FIELDS)
_CHANGING = tuple(name for name in _FIELDS if name not in {"agent_id", "conversation_id"})

# One conversation, an expired one too.
_GET = f"SELECT {_COLUMNS} FROM conversations WHERE agent_id = $1 AND conversation_id = $2"  # noqa: S608

# Several, locked in the order of their keys.
_LOCK = (
    f"SELECT {_COLUMNS} FROM conversations WHERE (agent_id, conversation_id) IN"  # noqa: S608
    " (SELECT * FROM unnest($1::text[], $2::text[])) ORDER BY agent_id, conversation_id FOR NO KEY UPDATE"
)

# A conversation that begins, or changes whole.
_PUT = (
    f"INSERT INTO conversations ({_COLUMNS}) VALUES ({', '.join(f'${n}' for n in range(1, len(_FIELDS) + 1))})"  # noqa: S608
    " ON CONFLICT (agent_id, conversation_id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _CHANGING)
)

# One that is over.
_DELETE = "DELETE FROM conversations WHERE agent_id = $1 AND conversation_id = $2"

# Uses that were counted in memory; one that is gone stays gone.
_ADD_USE = (
    "UPDATE conversations AS one SET request_count = one.request_count + used.requests,"  # noqa: S608
    " last_activity = greatest(one.last_activity, used.last_activity),"
    " expires_at = greatest(one.expires_at, used.expires_at)"
    " FROM unnest($1::text[], $2::text[], $3::bigint[], $4::timestamptz[], $5::timestamptz[])"
    " AS used (agent_id, conversation_id, requests, last_activity, expires_at)"
    " WHERE one.agent_id = used.agent_id AND one.conversation_id = used.conversation_id"
    " RETURNING " + ", ".join(f"one.{name}" for name in _FIELDS)
)

# Conversations that nobody used for long; what somebody uses at this moment is left alone.
_PURGE = (
    "WITH gone AS (DELETE FROM conversations WHERE (agent_id, conversation_id) IN"
    " (SELECT agent_id, conversation_id FROM conversations WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2"
    " FOR UPDATE SKIP LOCKED) RETURNING 1) SELECT count(*) FROM gone"
)


def to_conversation(row: Sequence[Any]) -> Conversation:
    """Map a row whose columns are the struct's fields; words that many share are kept once in memory."""
    agent_id, conversation_id, provider, model, *rest = row
    return Conversation(intern(agent_id), conversation_id, intern(provider), intern(model), *rest)


async def get(raw: Connection, key: ConversationKey) -> Conversation | None:
    """Return a conversation."""
    row = await raw.fetchrow(_GET, *key)
    return to_conversation(row) if row else None


async def lock(raw: Connection, keys: Collection[ConversationKey]) -> list[Conversation]:
    """Return conversations; nobody else changes them until the commit."""
    agent_ids, conversation_ids = zip(*keys, strict=True)
    return [to_conversation(row) for row in await raw.fetch(_LOCK, agent_ids, conversation_ids)]


async def put(raw: Connection, conversations: Iterable[Conversation]) -> None:
    """Add conversations, or store them in place of those there are."""
    await raw.executemany(_PUT, map(msgspec.structs.astuple, conversations))


async def delete(raw: Connection, keys: Iterable[ConversationKey]) -> None:
    """Delete conversations."""
    await raw.executemany(_DELETE, keys)


async def add_use(raw: Connection, rows: Collection[TouchedConversation]) -> list[Conversation]:
    """Add uses that were counted in memory, and return the rows; they are locked first, in the one order."""
    if not rows:
        return []
    await lock(raw, [(row.agent_id, row.conversation_id) for row in rows])
    used = await raw.fetch(_ADD_USE, *zip(*map(msgspec.structs.astuple, rows), strict=True))
    return [to_conversation(row) for row in used]


def _matching(which: ConversationFilter, now: int) -> tuple[list[str], list[Any]]:
    conditions, values = ["expires_at > $1"], list[Any]([now])
    for name, value in msgspec.structs.asdict(which).items():
        if value is not None:
            values.append(value)
            conditions.append(f"{name} = ${len(values)}")
    return conditions, values


async def find(raw: Connection, which: ConversationFilter, page: Page, now: int) -> list[Conversation]:
    """Return conversations that match every filter that is set, newest first."""
    conditions, values = _matching(which, now)
    if page.before is not None:
        created_at, row = page.before
        agent_id, _, conversation_id = row.partition(":")
        values += (created_at, agent_id, conversation_id)
        first = len(values) - 2
        conditions.append(f"(created_at, agent_id, conversation_id) < (${first}, ${first + 1}, ${first + 2})")
    values.append(page.limit)
    sql = (
        f"SELECT {_COLUMNS} FROM conversations WHERE {' AND '.join(conditions)}"  # noqa: S608
        f" ORDER BY created_at DESC, agent_id DESC, conversation_id DESC LIMIT ${len(values)}"
    )
    return [to_conversation(row) for row in await raw.fetch(sql, *values)]


async def counts(raw: Connection, which: ConversationFilter, now: int) -> list[ProviderCount]:
    """Return how many match every filter that is set, by provider and model."""
    conditions, values = _matching(which, now)
    sql = (
        "SELECT provider, model, count(*), sum(rebind_count)::bigint FROM conversations"  # noqa: S608
        f" WHERE {' AND '.join(conditions)} GROUP BY 1, 2 ORDER BY 1, 2"
    )
    return [
        ProviderCount(provider=row[0], model=row[1], conversations=row[2], rebinds=row[3])
        for row in await raw.fetch(sql, *values)
    ]


async def purge(raw: Connection, before: int, limit: int) -> int:
    """Delete at most `limit` conversations that expired before (Unix seconds); return how many."""
    return int(await raw.fetchval(_PURGE, before, limit))
