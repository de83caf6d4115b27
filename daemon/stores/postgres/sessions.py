"""SQL of sessions."""

import asyncio
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from sys import intern
from typing import Any, Literal

import msgspec

from daemon.domain.changes import Pick, Scope
from daemon.domain.filters import SessionFilter
from daemon.domain.kill_switch import KEY as KILL_SWITCH
from daemon.domain.kill_switch import is_on
from daemon.domain.pages import Page
from daemon.domain.rows import Agent, Session
from daemon.stores.live import SealedAnswer
from daemon.stores.postgres import agents
from daemon.stores.postgres.connection import Connection

AT_ONCE = 2_000
"""Rows in one statement or one breath: the loop answers others in between."""

FIELDS = Session.__struct_fields__
COLUMNS = ", ".join(FIELDS)
_AGENT_ID, _STATE, _CREATED_BY, _METADATA = map(FIELDS.index, ("agent_id", "state", "created_by", "metadata"))
_ACTIVITY = {"request_count", "last_activity", "used_generation"}
_FIXED = {"id", "agent_id", "created_at", "created_by", "ttl_seconds", "absolute_expires_at"}
_FIXED |= {"parent_id", "root_id", "depth"}
_CHANGING = tuple(name for name in FIELDS if name not in _ACTIVITY | _FIXED)
_COUNTS = {"renewal_count", "max_renewals", "generation", "owner_rotated_generation", "idle_timeout"}
_TYPES = dict.fromkeys(_COUNTS, "bigint") | {
    name: "timestamptz" for name in _CHANGING if name.endswith("_at") or name == "last_activity"
}

# One session by id.
_GET = f"SELECT {COLUMNS} FROM sessions WHERE id = $1"  # noqa: S608

# Sessions by id with those above them, locked in the order of their ids.
_LOCK = (
    "WITH RECURSIVE above (id, parent_id) AS (SELECT id, parent_id FROM sessions WHERE id = ANY($1::text[])"  # noqa: S608
    " UNION SELECT s.id, s.parent_id FROM above JOIN sessions AS s ON s.id = above.parent_id)"
    f" SELECT {COLUMNS} FROM sessions WHERE id IN (SELECT id FROM above) ORDER BY id FOR NO KEY UPDATE"
)

# The same, and with them what lives below some of them: below what is over nothing lives.
_LOCK_FAMILY = (
    "WITH RECURSIVE above (id, parent_id) AS (SELECT id, parent_id FROM sessions WHERE id = ANY($1::text[])"  # noqa: S608
    " UNION SELECT s.id, s.parent_id FROM above JOIN sessions AS s ON s.id = above.parent_id),"
    " below (id) AS (SELECT id FROM sessions WHERE parent_id = ANY($2::text[])"
    " AND revoked_at IS NULL AND expired_at IS NULL"
    " UNION SELECT s.id FROM below JOIN sessions AS s ON s.parent_id = below.id"
    " AND s.revoked_at IS NULL AND s.expired_at IS NULL)"
    f" SELECT {COLUMNS} FROM sessions WHERE id IN (SELECT id FROM above UNION SELECT id FROM below)"
    " ORDER BY id FOR NO KEY UPDATE"
)

# One session with its agent and the kill switch: by id, and by its current token or the one before.
_WITH_AGENT = (
    f"SELECT {', '.join(f's.{name}' for name in FIELDS)}, {', '.join(f'a.{name}' for name in Agent.__struct_fields__)}"  # noqa: S608
    f", (SELECT value FROM key_value_store WHERE key = '{KILL_SWITCH}')"
    " FROM sessions AS s JOIN agents AS a ON a.id = s.agent_id"
)
_LIVE_BY_ID = f"{_WITH_AGENT} WHERE s.id = $1"
_LIVE_BY_TOKEN = (
    f"{_WITH_AGENT} WHERE s.token_hash = $1 OR s.previous_token_hash = $1 ORDER BY s.token_hash = $1 DESC LIMIT 1"
)

# What lives in the trees of sessions that owners made.
_LIVING_BELOW = (
    f"SELECT {COLUMNS} FROM sessions WHERE root_id = ANY($1::text[])"  # noqa: S608
    " AND revoked_at IS NULL AND expired_at IS NULL"
)

# A new session.
_INSERT = f"INSERT INTO sessions ({COLUMNS}) VALUES ({', '.join(f'${n}' for n in range(1, len(FIELDS) + 1))})"  # noqa: S608

# The sealed answer of the last renewal, of one session and of several.
_SEALED = "SELECT previous_token_hash, retry_answer FROM sessions WHERE id = $1"
_BOXES = "SELECT id, retry_answer FROM sessions WHERE id = ANY($1::text[])"

# Activity that was counted in memory, and what it is with what other daemons counted.
_ADD_ACTIVITY = (
    "UPDATE sessions AS s SET request_count = s.request_count + new.requests,"
    " last_activity = greatest(s.last_activity, new.last_activity),"
    " used_generation = greatest(s.used_generation, new.used_generation)"
    " FROM unnest($1::bigint[], $2::timestamptz[], $3::bigint[], $4::text[])"
    " AS new (requests, last_activity, used_generation, id) WHERE s.id = new.id"
    " RETURNING s.id, s.request_count, s.last_activity, s.used_generation"
)

# The rows of sessions, locked in the order of their ids by whoever is about to change many of them at once.
_LOCK_IDS = "SELECT id FROM sessions WHERE id = ANY($1::text[]) ORDER BY id FOR NO KEY UPDATE"

_ALIVE = "revoked_at IS NULL AND expired_at IS NULL AND expires_at > {now}"
_IDLE_OVER = (
    "idle_timeout IS NOT NULL AND greatest(last_activity, created_at) + idle_timeout * interval '1 second' <= {now}"
)
ACTIVE = f"{_ALIVE} AND NOT ({_IDLE_OVER})"
_UNMARKED = "revoked_at IS NULL AND expired_at IS NULL"

# Sessions of status ACTIVE by agent, but for those that it made itself; and by what they are below: their parent, and
# the top of their tree.
_COUNT_BY = {
    column: f"SELECT {column}, count(*) FROM sessions WHERE {column} = ANY($1::text[])"  # noqa: S608
    f" {condition} AND {ACTIVE.format(now='$2')} GROUP BY {column}"
    for column, condition in {"agent_id": "AND parent_id IS NULL", "parent_id": "", "root_id": ""}.items()
}

# Sessions of status ACTIVE.
_COUNT = f"SELECT count(*) FROM sessions WHERE {ACTIVE.format(now='$1')}"  # noqa: S608

# Other daemons store at least every second what was used, and their clocks differ by less than a minute: what seems
# idle, or to come from the future, must do so by more than that.
_GRACE = "interval '2 seconds'"
_APART = "interval '1 minute'"

_PICKS: dict[Pick, str] = {
    "of_agent": "agent_id = $2 AND revoked_at IS NULL",
    "every": "revoked_at IS NULL",
    "expired": f"{_UNMARKED} AND expires_at <= $2",
    "idle_over": f"{_UNMARKED} AND expires_at > $2 AND {_IDLE_OVER.format(now=f'($2::timestamptz - {_GRACE})')}",
    "quiet": (
        "state = 'ACTIVE' AND created_by <> 'process' AND revoked_at IS NULL"
        f" AND coalesce(last_activity, created_at) <= $2::timestamptz - {_GRACE}"
    ),
    "created_after_now": f"created_at > $2::timestamptz + {_APART} AND revoked_at IS NULL",
}

# Sessions that ended long ago, but for those of whose processes something may be left: locked in the order of their
# ids and then deleted.
_LOCK_ENDED = (
    "SELECT id FROM sessions WHERE id IN (SELECT id FROM sessions WHERE revoked_at <= $1 AND state = 'CLOSED'"
    " UNION SELECT id FROM sessions WHERE expired_at <= $1 AND state = 'CLOSED' LIMIT $2) ORDER BY id FOR UPDATE"
)
_DELETE = "DELETE FROM sessions WHERE id = ANY($1::text[])"

_STATUS = {
    None: "revoked_at IS NULL AND $1::timestamptz IS NOT NULL",
    "all": "$1::timestamptz IS NOT NULL",
    "REVOKED": "revoked_at IS NOT NULL AND $1::timestamptz IS NOT NULL",
    "ACTIVE": ACTIVE.format(now="$1"),
    "EXPIRED": f"revoked_at IS NULL AND NOT ({ACTIVE.format(now='$1')})",
}


CountedBy = Literal["agent_id", "parent_id", "root_id"]

Live = tuple[Session, Agent, bool]
"""A session, its agent, and whether the kill switch is on."""


class Update(msgspec.Struct, frozen=True):
    """What changed of a session.

    Args:
        before: as it was read in this transaction.
        after: as it shall be; its activity is not stored here.
        box: replaces the sealed answer; None leaves it, b"" clears it.
    """

    before: Session
    after: Session
    box: bytes | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Those that differ: the fewer, the fewer indexes are touched."""
        changed = tuple(name for name in _CHANGING if getattr(self.before, name) != getattr(self.after, name))
        return changed if self.box is None else (*changed, "retry_answer")

    def value(self, column: str) -> Any:
        """Return what is stored in a column."""
        return (self.box or None) if column == "retry_answer" else getattr(self.after, column)


def to_session(row: Sequence[Any]) -> Session:
    """Map a row whose columns are `COLUMNS`; words that many sessions share are kept once in memory."""
    values = list(row)
    for shared in (_AGENT_ID, _STATE, _CREATED_BY):
        values[shared] = intern(values[shared])
    if values[_METADATA] == "{}":
        values[_METADATA] = "{}"
    return Session(*values)


async def get(raw: Connection, session_id: str) -> Session | None:
    """Return a session."""
    row = await raw.fetchrow(_GET, session_id)
    return to_session(row) if row else None


async def live_by_id(raw: Connection, session_id: str) -> Live | None:
    """Return a session with its agent and the kill switch."""
    return _with_agent(await raw.fetchrow(_LIVE_BY_ID, session_id))


async def live_by_token(raw: Connection, token_hash: str) -> Live | None:
    """Return the session whose current or previous token has this hash, with its agent and the kill switch."""
    return _with_agent(await raw.fetchrow(_LIVE_BY_TOKEN, token_hash))


def _with_agent(row: Sequence[Any] | None) -> Live | None:
    if row is None:
        return None
    values = tuple(row)
    return to_session(values[: len(FIELDS)]), agents.to_agent(values[len(FIELDS) : -1]), is_on(values[-1])


async def lock(raw: Connection, session_ids: Collection[str], ending: Collection[str] = ()) -> list[Session]:
    """Return sessions and those above them; nobody else changes them until the commit.

    Args:
        raw: the connection.
        session_ids: of the sessions.
        ending: of those whose living descendants are wanted too.
    """
    if not ending:
        return [to_session(row) for row in await raw.fetch(_LOCK, list(session_ids))]
    return [to_session(row) for row in await raw.fetch(_LOCK_FAMILY, list(session_ids), list(ending))]


async def sealed_answer(raw: Connection, session_id: str) -> SealedAnswer | None:
    """Return the sealed answer of the last renewal with the hash of the token that opens it."""
    row = await raw.fetchrow(_SEALED, session_id)
    return SealedAnswer(*row) if row else None


async def boxes(raw: Connection, session_ids: Collection[str]) -> dict[str, bytes | None]:
    """Return the sealed answers of sessions."""
    return dict(await raw.fetch(_BOXES, list(session_ids)))


async def insert(raw: Connection, sessions: Iterable[Session]) -> None:
    """Add sessions."""
    await raw.executemany(_INSERT, map(msgspec.structs.astuple, sessions))


async def update(raw: Connection, updates: Collection[Update]) -> None:
    """Store what changed of sessions that are locked: one statement for all in which the same columns changed."""
    plan = _plan(updates) if len(updates) < AT_ONCE else await asyncio.to_thread(_plan, updates)
    for columns, alike in plan:
        for start in range(0, len(alike), AT_ONCE):
            some = alike[start : start + AT_ONCE]
            values = [[update.value(column) for update in some] for column in columns]
            await raw.execute(_update_sql(columns), [update.after.id for update in some], *values)


def _plan(updates: Collection[Update]) -> list[tuple[tuple[str, ...], list[Update]]]:
    """Return what changed by the columns in which it did, the ids of each in their order."""
    plan: dict[tuple[str, ...], list[Update]] = {}
    for update in sorted(updates, key=lambda one: one.after.id):
        if columns := update.columns:
            plan.setdefault(columns, []).append(update)
    return list(plan.items())


@lru_cache(maxsize=256)
def _update_sql(columns: tuple[str, ...]) -> str:
    """Return the statement that sets these columns of sessions by id."""
    arrays = ", ".join(f"${number}::{_type(name)}[]" for number, name in enumerate(columns, 2))
    return (
        f"UPDATE sessions AS s SET {', '.join(f'{name} = new.{name}' for name in columns)}"  # noqa: S608
        f" FROM unnest($1::text[], {arrays}) AS new (id, {', '.join(columns)}) WHERE s.id = new.id"
    )


def _type(column: str) -> str:
    return "bytea" if column == "retry_answer" else _TYPES.get(column, "text")


async def add_activity(raw: Connection, rows: Collection[tuple[int, int, int, str]]) -> dict[str, tuple[int, int, int]]:
    """Add (requests, last activity, used generation, session id); return all three as they are now, by id."""
    columns = list(zip(*rows, strict=True))
    await raw.execute(_LOCK_IDS, columns[3])
    return {row[0]: (row[1], row[2], row[3]) for row in await raw.fetch(_ADD_ACTIVITY, *columns)}


async def count_active_by(raw: Connection, column: CountedBy, ids: Collection[str], now: int) -> dict[str, int]:
    """Return the numbers of sessions of status ACTIVE by their agent, their parent or the top of their tree."""
    return dict(await raw.fetch(_COUNT_BY[column], list(ids), now))


async def count_active(raw: Connection, now: int) -> int:
    """Return the number of sessions of status ACTIVE."""
    return int(await raw.fetchval(_COUNT, now))


async def pick(raw: Connection, scope: Scope, now: int) -> list[Session]:
    """Return the sessions that a change asked to see, locked; what changed while one waited is looked at again."""
    assert scope.pick is not None  # noqa: S101 - the caller looked
    own: dict[Pick, Any] = {"of_agent": scope.picked_agent, "quiet": now - scope.quiet_for}
    values = () if scope.pick == "every" else (own.get(scope.pick, now),)
    chosen = _PICKS[scope.pick]
    sql = (
        f"SELECT {COLUMNS} FROM sessions WHERE id IN (SELECT id FROM sessions WHERE {chosen} LIMIT $1)"  # noqa: S608
        f" AND {chosen} ORDER BY id FOR NO KEY UPDATE"
    )
    limit = scope.limit if scope.limit >= 0 else None
    rows = await raw.fetch(sql, limit, *values)
    if len(rows) < AT_ONCE:
        return [to_session(row) for row in rows]
    return await asyncio.to_thread(lambda: [to_session(row) for row in rows])


async def find(raw: Connection, which: SessionFilter, page: Page, now: int) -> list[Session]:
    """Return sessions that match every filter that is set, newest first."""
    values: list[Any] = [now, page.limit]
    conditions = [_STATUS[which.status]]
    if which.top:
        conditions.append("parent_id IS NULL")
    for column in ("agent_id", "state", "user_id", "workspace_id", "parent_id"):
        if (value := getattr(which, column)) is not None:
            values.append(value)
            conditions.append(f"{column} = ${len(values)}")
    if page.before is not None:
        values += page.before
        conditions.append(f"(created_at, id) < (${len(values) - 1}, ${len(values)})")
    where = " AND ".join(conditions)
    sql = f"SELECT {COLUMNS} FROM sessions WHERE {where} ORDER BY created_at DESC, id DESC LIMIT $2"  # noqa: S608
    return [to_session(row) for row in await raw.fetch(sql, *values)]


async def living_below(raw: Connection, top_ids: Collection[str]) -> list[Session]:
    """Return what lives in the trees of these sessions."""
    return [to_session(row) for row in await raw.fetch(_LIVING_BELOW, list(top_ids))]


async def purge(raw: Connection, ended_before: int, limit: int) -> list[str]:
    """Delete sessions that ended before (Unix seconds); return their ids."""
    ids = [row[0] for row in await raw.fetch(_LOCK_ENDED, ended_before, limit)]
    await raw.execute(_DELETE, ids)
    return ids
