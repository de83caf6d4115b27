"""SQL of sessions."""

import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from sys import intern
from typing import Any

import msgspec

from daemon.domain.changes import Pick, Scope
from daemon.domain.filters import SessionFilter
from daemon.domain.pages import Page
from daemon.domain.rows import Agent, Session
from daemon.stores.live import SealedAnswer
from daemon.stores.sqlite import agents

FIELDS = Session.__struct_fields__
COLUMNS = ", ".join(FIELDS)
_AGENT_ID, _STATE, _CREATED_BY, _METADATA = map(FIELDS.index, ("agent_id", "state", "created_by", "metadata"))
_ACTIVITY = {"request_count", "last_activity", "used_generation"}
_FIXED = {"id", "agent_id", "created_at", "created_by", "ttl_seconds", "absolute_expires_at"}
_FIXED |= {"parent_id", "root_id", "depth"}
_CHANGING = tuple(name for name in FIELDS if name not in _ACTIVITY | _FIXED)

# One session by id.
_GET = f"SELECT {COLUMNS} FROM sessions WHERE id = ?"  # noqa: S608

# One session and its agent, by id, by the current token, or by the one before: each statement gives up the
# interpreter's lock and waits for it again, so that one that reads both is worth two.
_BOTH = (
    f"SELECT {', '.join(f's.{name}' for name in FIELDS)}, {', '.join(f'a.{name}' for name in agents.FIELDS)}"  # noqa: S608
    " FROM sessions s JOIN agents a ON a.id = s.agent_id WHERE s."
)
_BOTH_BY_ID = f"{_BOTH}id = ?"
_BOTH_BY_TOKEN = f"{_BOTH}token_hash = ?"
_BOTH_BY_PREVIOUS = f"{_BOTH}previous_token_hash = ?"

# The sessions above one, its parent first.
_ANCESTORS = (
    "WITH RECURSIVE above (id, parent_id) AS (SELECT id, parent_id FROM sessions WHERE id = ?"  # noqa: S608
    " UNION ALL SELECT s.id, s.parent_id FROM above JOIN sessions AS s ON s.id = above.parent_id)"
    f" SELECT {COLUMNS} FROM sessions WHERE id IN (SELECT parent_id FROM above) ORDER BY depth DESC"
)

# What lives below sessions, nearer ones first; below what is over nothing lives.
_DESCENDANTS = (
    "WITH RECURSIVE below (id) AS ("  # noqa: S608
    "SELECT s.id FROM json_each(?) AS top JOIN sessions AS s ON s.parent_id = top.value"
    " AND s.revoked_at IS NULL AND s.expired_at IS NULL"
    " UNION SELECT s.id FROM below JOIN sessions AS s ON s.parent_id = below.id"
    " AND s.revoked_at IS NULL AND s.expired_at IS NULL)"
    f" SELECT {COLUMNS} FROM sessions WHERE id IN (SELECT id FROM below) ORDER BY depth"
)

# What lives in the trees of sessions that owners made.
_LIVING_BELOW = (
    f"SELECT {COLUMNS} FROM sessions WHERE root_id IN (SELECT value FROM json_each(?))"  # noqa: S608
    " AND revoked_at IS NULL AND expired_at IS NULL"
)

# A new session.
_INSERT = f"INSERT INTO sessions ({COLUMNS}) VALUES ({', '.join('?' * len(FIELDS))})"  # noqa: S608

# The sealed answer of the last renewal.
_SEALED = "SELECT previous_token_hash, retry_answer FROM sessions WHERE id = ?"

# Activity that was counted in memory, of many sessions at once.
_ADD_ACTIVITY = (
    "UPDATE sessions SET request_count = request_count + seen.requests,"
    " last_activity = max(coalesce(sessions.last_activity, 0), seen.last_activity),"
    " used_generation = max(sessions.used_generation, seen.used_generation)"
    " FROM (SELECT json_extract(value, '$[0]') AS requests, json_extract(value, '$[1]') AS last_activity,"
    " json_extract(value, '$[2]') AS used_generation, json_extract(value, '$[3]') AS id FROM json_each(?)) AS seen"
    " WHERE sessions.id = seen.id"
)

_ALIVE = "revoked_at IS NULL AND expired_at IS NULL AND expires_at > :now"
_IDLE_OVER = "idle_timeout IS NOT NULL AND max(coalesce(last_activity, 0), created_at) + idle_timeout <= :now"
ACTIVE = f"{_ALIVE} AND NOT ({_IDLE_OVER})"
_UNMARKED = "revoked_at IS NULL AND expired_at IS NULL"

# Sessions of status ACTIVE of one agent, but for those that it made itself.
_COUNT_OF_AGENT = f"SELECT count(*) FROM sessions WHERE agent_id = :agent AND parent_id IS NULL AND {ACTIVE}"  # noqa: S608

# Sessions of status ACTIVE right below one, and anywhere below the top of a tree.
_COUNT_CHILDREN = f"SELECT count(*) FROM sessions WHERE parent_id = :above AND {ACTIVE}"  # noqa: S608
_COUNT_RELATIVES = f"SELECT count(*) FROM sessions WHERE root_id = :above AND {ACTIVE}"  # noqa: S608

# Sessions of status ACTIVE: two counts that an index answers alone, instead of one that visits every row.
_COUNT_ALIVE = f"SELECT count(*) FROM sessions WHERE {_ALIVE}"  # noqa: S608
_COUNT_IDLE_OVER = f"SELECT count(*) FROM sessions WHERE {_ALIVE} AND {_IDLE_OVER}"  # noqa: S608

_PICKS: dict[Pick, str] = {
    "of_agent": "agent_id = :agent AND revoked_at IS NULL",
    "every": "revoked_at IS NULL",
    "expired": f"{_UNMARKED} AND expires_at <= :now",
    "idle_over": f"{_UNMARKED} AND expires_at > :now AND {_IDLE_OVER}",
    "quiet": (
        "state = 'ACTIVE' AND created_by <> 'process' AND revoked_at IS NULL"
        " AND coalesce(last_activity, created_at) <= :now - :quiet_for"
    ),
    "created_after_now": "created_at > :now AND revoked_at IS NULL",
}

# Sessions that ended long ago, but for those of whose processes something may be left; a stock SQLite has no
# DELETE … LIMIT.
_PURGE = (
    "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE revoked_at <= :before AND state = 'CLOSED'"
    " UNION SELECT id FROM sessions WHERE expired_at <= :before AND state = 'CLOSED' LIMIT :limit) RETURNING id"
)

_STATUS = {
    None: "revoked_at IS NULL",
    "all": "1",
    "REVOKED": "revoked_at IS NOT NULL",
    "ACTIVE": ACTIVE,
    "EXPIRED": f"revoked_at IS NULL AND NOT ({ACTIVE})",
}


def to_session(row: Sequence[Any]) -> Session:
    """Map a row whose columns are `COLUMNS`; words that many sessions share are kept once in memory."""
    values = list(row)
    for shared in (_AGENT_ID, _STATE, _CREATED_BY):
        values[shared] = intern(values[shared])
    if values[_METADATA] == "{}":
        values[_METADATA] = "{}"
    return Session(*values)


def get(raw: sqlite3.Connection, session_id: str) -> Session | None:
    """Return a session."""
    row = raw.execute(_GET, (session_id,)).fetchone()
    return to_session(row) if row else None


def _both(raw: sqlite3.Connection, sql: str, value: str) -> tuple[Session, Agent] | None:
    row = raw.execute(sql, (value,)).fetchone()
    return (to_session(row[: len(FIELDS)]), agents.to_agent(row[len(FIELDS) :])) if row else None


def with_agent(raw: sqlite3.Connection, session_id: str) -> tuple[Session, Agent] | None:
    """Return a session and its agent."""
    return _both(raw, _BOTH_BY_ID, session_id)


def by_token(raw: sqlite3.Connection, token_hash: str) -> tuple[Session, Agent] | None:
    """Return the session whose current or previous token has this hash, and its agent."""
    return _both(raw, _BOTH_BY_TOKEN, token_hash) or _both(raw, _BOTH_BY_PREVIOUS, token_hash)


def sealed_answer(raw: sqlite3.Connection, session_id: str) -> SealedAnswer | None:
    """Return the sealed answer of the last renewal with the hash of the token that opens it."""
    row = raw.execute(_SEALED, (session_id,)).fetchone()
    return SealedAnswer(*row) if row else None


def ancestors(raw: sqlite3.Connection, session_id: str) -> list[Session]:
    """Return the sessions above one, its parent first."""
    return [to_session(row) for row in raw.execute(_ANCESTORS, (session_id,))]


def descendants(raw: sqlite3.Connection, session_ids: Sequence[str]) -> list[Session]:
    """Return what lives below sessions, nearer ones first."""
    return [to_session(row) for row in raw.execute(_DESCENDANTS, (msgspec.json.encode(session_ids).decode(),))]


def insert(raw: sqlite3.Connection, session: Session) -> None:
    """Add a session."""
    raw.execute(_INSERT, msgspec.structs.astuple(session))


def update(raw: sqlite3.Connection, before: Session, after: Session, retry_answer: bytes | None = None) -> None:
    """Store what changed of a session: the fewer columns, the fewer indexes are touched.

    Args:
        raw: the connection.
        before: as it was read in this transaction.
        after: as it shall be; its activity is not stored here.
        retry_answer: replaces the sealed answer; None leaves it, b"" clears it.
    """
    changed = tuple(name for name in _CHANGING if getattr(before, name) != getattr(after, name))
    values: list[Any] = [getattr(after, name) for name in changed]
    if retry_answer is not None:
        changed += ("retry_answer",)
        values.append(retry_answer or None)
    if changed:
        raw.execute(_update_sql(changed), (*values, after.id))


@lru_cache(maxsize=256)
def _update_sql(columns: tuple[str, ...]) -> str:
    """Return the statement that sets these columns of one session."""
    return f"UPDATE sessions SET {', '.join(f'{name} = ?' for name in columns)} WHERE id = ?"  # noqa: S608


def add_activity(raw: sqlite3.Connection, rows: Sequence[tuple[int, int, int, str]]) -> None:
    """Add (requests, last activity, used generation, session id)."""
    raw.execute(_ADD_ACTIVITY, (msgspec.json.encode(rows).decode(),))


def count_active_of(raw: sqlite3.Connection, agent_id: str, now: int) -> int:
    """Return the number of an agent's sessions of status ACTIVE."""
    return int(raw.execute(_COUNT_OF_AGENT, {"agent": agent_id, "now": now}).fetchone()[0])


def count_below(raw: sqlite3.Connection, session: Session, now: int) -> tuple[int, int]:
    """Return the number of a session's children of status ACTIVE, and of all descendants of the top of its tree."""
    children, relatives = (
        int(raw.execute(sql, {"above": above, "now": now}).fetchone()[0])
        for sql, above in ((_COUNT_CHILDREN, session.id), (_COUNT_RELATIVES, session.tree_id))
    )
    return children, relatives


def count_active(raw: sqlite3.Connection, now: int) -> int:
    """Return the number of sessions of status ACTIVE."""
    alive, over = (raw.execute(sql, {"now": now}).fetchone()[0] for sql in (_COUNT_ALIVE, _COUNT_IDLE_OVER))
    return int(alive - over)


def pick(raw: sqlite3.Connection, scope: Scope, now: int) -> list[Session]:
    """Return the sessions that a change asked to see."""
    assert scope.pick is not None  # noqa: S101 - the caller looked
    sql = f"SELECT {COLUMNS} FROM sessions WHERE {_PICKS[scope.pick]} LIMIT :limit"  # noqa: S608
    values = {"now": now, "agent": scope.picked_agent, "quiet_for": scope.quiet_for, "limit": scope.limit}
    return [to_session(row) for row in raw.execute(sql, values)]


def find(raw: sqlite3.Connection, which: SessionFilter, page: Page, now: int) -> list[Session]:
    """Return sessions that match every filter that is set, newest first."""
    values: dict[str, Any] = {"now": now, "limit": page.limit}
    conditions = [_STATUS[which.status]]
    if which.top:
        conditions.append("parent_id IS NULL")
    for column in ("agent_id", "state", "user_id", "workspace_id", "parent_id"):
        if (value := getattr(which, column)) is not None:
            conditions.append(f"{column} = :{column}")
            values[column] = value
    if page.before is not None:
        conditions.append("(created_at, id) < (:created_at, :id)")
        values["created_at"], values["id"] = page.before
    where = " AND ".join(conditions)
    sql = f"SELECT {COLUMNS} FROM sessions WHERE {where} ORDER BY created_at DESC, id DESC LIMIT :limit"  # noqa: S608
    return [to_session(row) for row in raw.execute(sql, values)]


def living_below(raw: sqlite3.Connection, top_ids: Sequence[str]) -> list[Session]:
    """Return what lives in the trees of these sessions."""
    return [to_session(row) for row in raw.execute(_LIVING_BELOW, (msgspec.json.encode(top_ids).decode(),))]


def purge(raw: sqlite3.Connection, ended_before: int, limit: int) -> list[str]:
    """Delete sessions that ended before (Unix seconds); return their ids."""
    return [row[0] for row in raw.execute(_PURGE, {"before": ended_before, "limit": limit}).fetchall()]
