"""Hearing of what other daemons commit, and knowing how far one has heard."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import msgspec

from daemon.stores.postgres.kept import Connect, Kept

CHANGES = "daemon_changes"
"""The channel that every daemon on a database listens to."""
BEAT_SECONDS = 0.25
CURRENT_SECONDS = 1.0
"""How old the newest beat that came back may be: whatever was committed before it was sent is known."""

Report = Callable[..., None]


class Changed(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one commit changed, as it is told to every daemon.

    Args:
        by: the daemon that committed it; a new name after a commit whose outcome it does not know.
        sessions, agents: ids.
        conversations: agent id and conversation id of each.
        values: keys of the key-value store.
        messages: whether there is something new in the outbox.
        seq: the newest event; 0: there was none.
        everything: there is more than a notification holds.
    """

    by: str
    sessions: tuple[str, ...] = msgspec.field(default=(), name="s")
    agents: tuple[str, ...] = msgspec.field(default=(), name="a")
    conversations: tuple[tuple[str, str], ...] = msgspec.field(default=(), name="c")
    values: tuple[str, ...] = msgspec.field(default=(), name="v")
    messages: bool = msgspec.field(default=False, name="m")
    seq: int = 0
    everything: bool = msgspec.field(default=False, name="all")


_decode = msgspec.json.Decoder(Changed).decode


class Listener:
    """Listens on a connection of its own, and sends itself a beat on it every 250 ms.

    The server hands out notifications in the order of the commits. So a beat that came back proves that everything
    committed before it was sent has been heard.

    Args:
        connect: opens a connection.
        name: of this daemon, fit for a channel's name.
        heard: called for every commit of any daemon, this one's too.
        begin: is awaited after each time listening began: what was committed before may have been missed.
        report: is told `storage.lost` and `storage.recovered`.
    """

    def __init__(
        self,
        connect: Connect,
        name: str,
        *,
        heard: Callable[[Changed], None],
        begin: Callable[[], Awaitable[None]],
        report: Report,
    ) -> None:
        self._beats = f"daemon_beat_{name}"
        self._heard = heard
        self._caught_up = begin
        self._newest = float("-inf")
        self._kept = Kept(
            connect,
            begin=self._begin,
            beat=self._beat,
            seconds=BEAT_SECONDS,
            lost=lambda reason: report("storage.lost", reason=reason),
            back=lambda: report("storage.recovered"),
        )

    @property
    def is_current(self) -> bool:
        """Whether everything that was committed until a second ago has been heard."""
        return time.monotonic() - self._newest < CURRENT_SECONDS

    async def open(self) -> None:
        """Begin to listen.

        Raises:
            DaemonError, OSError, TimeoutError, asyncpg.PostgresError: the server cannot be reached.
        """
        await self._kept.open()

    async def close(self) -> None:
        """Stop listening."""
        self._newest = float("-inf")
        await self._kept.close()

    async def _begin(self, connection: "asyncpg.Connection[Any]") -> None:
        await connection.add_listener(CHANGES, self._on_change)
        await connection.add_listener(self._beats, self._on_beat)
        await self._caught_up()

    async def _beat(self, connection: "asyncpg.Connection[Any]") -> None:
        await connection.execute("SELECT pg_notify($1, $2)", self._beats, repr(time.monotonic()))

    def _on_beat(self, _connection: object, _pid: int, _channel: str, sent: object) -> None:
        self._newest = max(self._newest, float(str(sent)))

    def _on_change(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        try:
            changed = _decode(str(payload))
        except msgspec.MsgspecError:  # a newer daemon's words: whatever it was, nothing is trusted
            changed = Changed(by="", everything=True)
        self._heard(changed)
