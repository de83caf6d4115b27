"""Hearing of what other daemons commit, and knowing how far one has heard."""

import time
from collections.abc import Awaitable, Callable

import msgspec

from daemon.stores.postgres.connection import Connection
from daemon.stores.postgres.kept import Connect, Kept
from daemon.stores.postgres.word import CHANNEL, Word, read

BEAT_SECONDS = 0.25
CURRENT_SECONDS = 1.0
"""How old the newest beat that came back may be: whatever was committed before it was sent is known."""

Report = Callable[..., None]


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
        heard: Callable[[Word], None],
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

    async def _begin(self, connection: Connection) -> None:
        await connection.add_listener(CHANNEL, self._on_change)
        await connection.add_listener(self._beats, self._on_beat)
        await self._caught_up()

    async def _beat(self, connection: Connection) -> None:
        await connection.execute("SELECT pg_notify($1, $2)", self._beats, repr(time.monotonic()))

    def _on_beat(self, _connection: object, _pid: int, _channel: str, sent: object) -> None:
        self._newest = max(self._newest, float(str(sent)))

    def _on_change(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        try:
            word = read(str(payload))
        except msgspec.MsgspecError:  # of a newer daemon: whatever it says, nothing is trusted
            word = Word(by="", everything=True)
        self._heard(word)
