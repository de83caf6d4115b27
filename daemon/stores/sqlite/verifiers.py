"""SQL of verifiers."""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from daemon.domain.pages import Page
from daemon.domain.rows import Verifier

_FIELDS = Verifier.__struct_fields__
_MAY_REVOKE = _FIELDS.index("may_revoke")
_COLUMNS = ", ".join(_FIELDS)

# Verifiers, newest first.
_ALL = f"SELECT {_COLUMNS} FROM verifiers ORDER BY created_at DESC, id DESC"  # noqa: S608
_FIRST = f"{_ALL} LIMIT ?"
_BEFORE = _FIRST.replace(" ORDER", " WHERE (created_at, id) < (?, ?) ORDER")

# A new verifier.
_INSERT = f"INSERT INTO verifiers ({_COLUMNS}) VALUES ({', '.join('?' * len(_FIELDS))})"  # noqa: S608

# A use, unless a later one is stored.
_TOUCH = "UPDATE verifiers SET last_used_at = max(coalesce(last_used_at, 0), ?) WHERE id = ?"


def to_verifier(row: Sequence[Any]) -> Verifier:
    """Map a row whose columns are a verifier's fields."""
    values = list(row)
    values[_MAY_REVOKE] = bool(values[_MAY_REVOKE])
    return Verifier(*values)


def find(raw: sqlite3.Connection, page: Page | None) -> list[Verifier]:
    """Return verifiers, newest first, revoked ones too; without a page all of them."""
    if page is None:
        rows = raw.execute(_ALL)
    elif page.before is None:
        rows = raw.execute(_FIRST, (page.limit,))
    else:
        rows = raw.execute(_BEFORE, (*page.before, page.limit))
    return [to_verifier(row) for row in rows]


def insert(raw: sqlite3.Connection, verifier: Verifier) -> None:
    """Add a verifier."""
    raw.execute(_INSERT, msgspec.structs.astuple(verifier))


def update(raw: sqlite3.Connection, verifiers: Iterable[Verifier]) -> None:
    """Store since when verifiers are revoked: all that a decision can change."""
    values = ((one.revoked_at, one.id) for one in verifiers)
    raw.executemany("UPDATE verifiers SET revoked_at = ? WHERE id = ?", values)


def touch(raw: sqlite3.Connection, uses: Mapping[str, int]) -> None:
    """Store last uses (Unix seconds) by verifier."""
    raw.executemany(_TOUCH, [(moment, verifier_id) for verifier_id, moment in uses.items()])
