"""SQL of verifiers."""

from collections.abc import Iterable, Mapping

import msgspec

from daemon.domain.pages import Page
from daemon.domain.rows import Verifier
from daemon.stores.postgres.connection import Connection

_FIELDS = Verifier.__struct_fields__
_COLUMNS = ", ".join(_FIELDS)

# Verifiers, newest first; locked, in the order of their ids, where they are about to be changed.
_ALL = f"SELECT {_COLUMNS} FROM verifiers ORDER BY created_at DESC, id DESC"  # noqa: S608
_FIRST = f"{_ALL} LIMIT $1"
_BEFORE = _FIRST.replace(" ORDER", " WHERE (created_at, id) < ($2, $3) ORDER")
_LOCK = f"SELECT {_COLUMNS} FROM verifiers ORDER BY id FOR NO KEY UPDATE"  # noqa: S608

# A new verifier.
_INSERT = f"INSERT INTO verifiers ({_COLUMNS}) VALUES ({', '.join(f'${n}' for n in range(1, len(_FIELDS) + 1))})"  # noqa: S608

# A use, unless a later one is stored.
_TOUCH = "UPDATE verifiers SET last_used_at = greatest(last_used_at, $1) WHERE id = $2"


async def find(raw: Connection, page: Page | None) -> list[Verifier]:
    """Return verifiers, newest first, revoked ones too; without a page all of them."""
    if page is None:
        rows = await raw.fetch(_ALL)
    elif page.before is None:
        rows = await raw.fetch(_FIRST, page.limit)
    else:
        rows = await raw.fetch(_BEFORE, page.limit, *page.before)
    return [Verifier(*row) for row in rows]


async def lock(raw: Connection) -> list[Verifier]:
    """Return every verifier; nobody else changes one until the commit."""
    return [Verifier(*row) for row in await raw.fetch(_LOCK)]


async def insert(raw: Connection, verifiers: Iterable[Verifier]) -> None:
    """Add verifiers."""
    await raw.executemany(_INSERT, map(msgspec.structs.astuple, verifiers))


async def update(raw: Connection, verifiers: Iterable[Verifier]) -> None:
    """Store since when verifiers are revoked: all that a decision can change."""
    values = [(one.revoked_at, one.id) for one in verifiers]
    await raw.executemany("UPDATE verifiers SET revoked_at = $1 WHERE id = $2", values)


async def touch(raw: Connection, uses: Mapping[str, int]) -> None:
    """Store last uses (Unix seconds) by verifier, in the order of their ids, as they are locked."""
    await raw.executemany(_TOUCH, [(moment, verifier_id) for verifier_id, moment in sorted(uses.items())])
