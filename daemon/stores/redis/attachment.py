"""How far Redis follows the engine: noted in the engine, where a crash cannot lose it. Needs no Redis."""

import msgspec

from daemon.domain.changes import Outcome, Rows, Scope
from daemon.domain.events import SYSTEM
from daemon.stores.protocol import Store

KEY = "conversations_redis"
"""Of the row in the key-value store."""
SCOPE = Scope(values=(KEY,), while_locked=True)
SLACK = 5
"""Seconds before an outage was noticed that count as part of it."""


class Attachment(msgspec.Struct, frozen=True):
    """How far Redis follows the engine, as stored.

    Args:
        run_id: of the server that had everything; another one may hold what is old.
        since: Unix seconds since when it misses what was changed; None if it misses nothing.
    """

    run_id: str = ""
    since: int | None = None


def read(stored: str | None) -> Attachment | None:
    """Return the attachment as stored; None if there was none yet. What cannot be read trusts no server."""
    try:
        return msgspec.json.decode(stored, type=Attachment) if stored else None
    except msgspec.DecodeError:
        return Attachment()


def attach(_rows: Rows, _now: int, *, run_id: str) -> Outcome[None]:
    """Note that a server has everything."""
    return Outcome(answer=None, values={KEY: msgspec.json.encode(Attachment(run_id)).decode()})


def detach(rows: Rows, now: int) -> Outcome[None]:
    """Note when the outage began; one that is noted already began earlier."""
    old = read(rows.values.get(KEY)) or Attachment()
    since = now - SLACK if old.since is None else min(old.since, now - SLACK)
    return Outcome(answer=None, values={KEY: msgspec.json.encode(Attachment(old.run_id, since)).decode()})


async def leave(store: Store) -> None:
    """Note that Redis is used no more: whoever uses it again copies everything.

    Raises:
        DaemonError: STORAGE_UNAVAILABLE.
    """
    if await store.value(KEY):
        await store.change(SCOPE, lambda _rows, _now: Outcome(answer=None, values={KEY: ""}), SYSTEM)
