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
APART_SECONDS = 3
"""How long the other daemons wait for one that cannot reach Redis, unless it says so again."""


class Attachment(msgspec.Struct, frozen=True):
    """How far Redis follows the engine, as stored.

    Args:
        run_id: of the server that had everything; another one may hold what is old.
        since: Unix seconds since when it misses what was changed; None if it misses nothing.
        apart: daemons that cannot reach it, and until when (Unix seconds) the others wait for each of them.
    """

    run_id: str = ""
    since: int | None = None
    apart: dict[str, int] = msgspec.field(default_factory=dict)


def read(stored: str | None) -> Attachment | None:
    """Return the attachment as stored; None if there was none yet. What cannot be read trusts no server."""
    try:
        return msgspec.json.decode(stored, type=Attachment) if stored else None
    except msgspec.DecodeError:
        return Attachment()


def attach(rows: Rows, now: int, *, run_id: str) -> Outcome[bool]:
    """Note that a server has everything; return whether it may serve: not while a daemon cannot reach it."""
    stored = read(rows.values.get(KEY)) or Attachment()
    if any(until > now for until in stored.apart.values()):
        return Outcome(answer=False)
    return Outcome(answer=True, values=_written(Attachment(run_id)))


def detach(rows: Rows, now: int, *, name: str) -> Outcome[int]:
    """Note that a daemon cannot reach Redis, and since when; an outage that is noted already began earlier."""
    old = read(rows.values.get(KEY)) or Attachment()
    since = now - SLACK if old.since is None else min(old.since, now - SLACK)
    apart = {**old.apart, name: now + APART_SECONDS}
    return Outcome(answer=since, values=_written(Attachment(old.run_id, since, apart)))


def meet(rows: Rows, now: int, *, name: str) -> Outcome[Attachment]:
    """Note that a daemon reaches Redis, and return how far that follows and whom to wait for."""
    stored = read(rows.values.get(KEY)) or Attachment()
    apart = {other: until for other, until in stored.apart.items() if other != name and until > now}
    left = msgspec.structs.replace(stored, apart=apart)
    return Outcome(answer=left, values=_written(left) if left != stored else None)


def _written(attachment: Attachment) -> dict[str, str]:
    return {KEY: msgspec.json.encode(attachment).decode()}


async def leave(store: Store) -> None:
    """Note that Redis is used no more: whoever uses it again copies everything.

    Raises:
        DaemonError: STORAGE_UNAVAILABLE.
    """
    if await store.value(KEY):
        await store.change(SCOPE, lambda _rows, _now: Outcome(answer=None, values={KEY: ""}), SYSTEM)
