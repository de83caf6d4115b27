"""SQL of answers: single-use tokens by their hashes."""

from collections.abc import Collection, Iterable

import msgspec

from daemon.domain.rows import Answer
from daemon.stores.postgres.connection import Connection

_FIELDS = Answer.__struct_fields__
_COLUMNS = ", ".join(_FIELDS)

# One answer by its token; several, locked so that each is used once.
_GET = f"SELECT {_COLUMNS} FROM answers WHERE token_hash = $1"  # noqa: S608
_LOCK = f"SELECT {_COLUMNS} FROM answers WHERE token_hash = ANY($1::text[]) ORDER BY token_hash FOR NO KEY UPDATE"  # noqa: S608

# A new answer.
_INSERT = f"INSERT INTO answers ({_COLUMNS}) VALUES ({', '.join(f'${n}' for n in range(1, len(_FIELDS) + 1))})"  # noqa: S608

# An answer was used, and for what.
_USE = "UPDATE answers SET used_at = $1, used_action = $2 WHERE token_hash = $3"

# Every unused answer of a session is over.
_END = "UPDATE answers SET used_at = $1 WHERE session_id = $2 AND used_at IS NULL"


async def get(raw: Connection, token_hash: str) -> Answer | None:
    """Return an answer."""
    row = await raw.fetchrow(_GET, token_hash)
    return Answer(*row) if row else None


async def lock(raw: Connection, hashes: Collection[str]) -> list[Answer]:
    """Return answers; nobody else uses them until the commit."""
    return [Answer(*row) for row in await raw.fetch(_LOCK, list(hashes))]


async def insert(raw: Connection, answers: Iterable[Answer]) -> None:
    """Add answers."""
    await raw.executemany(_INSERT, map(msgspec.structs.astuple, answers))


async def use(raw: Connection, answer: Answer) -> None:
    """Note that an answer was used, and for what."""
    await raw.execute(_USE, answer.used_at, answer.used_action, answer.token_hash)


async def end_of_session(raw: Connection, session_id: str, now: int) -> None:
    """End every unused answer of a session."""
    await raw.execute(_END, now, session_id)


async def purge(raw: Connection, before: int) -> None:
    """Delete answers that ended before (Unix seconds)."""
    await raw.execute("DELETE FROM answers WHERE expires_at < $1", before)
