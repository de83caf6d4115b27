"""Copies of the database, made while it is in use."""

import asyncio
from pathlib import Path

from daemon.domain.changes import Outcome, Rows, Scope
from daemon.domain.clock import stamp
from daemon.domain.errors import DaemonError
from daemon.domain.events import Origin
from daemon.domain.facts.daemon import BackupCreated
from daemon.domain.views import Backup
from daemon.stores.protocol import Store


class Backups:
    """Makes backups.

    Args:
        store: the engine.
        directory: receives them.
    """

    def __init__(self, store: Store, directory: Path) -> None:
        self._store = store
        self._directory = directory

    async def create(self, origin: Origin) -> Backup:
        """Make a checked copy of everything that is committed and record it.

        Raises:
            DaemonError: STORAGE_UNAVAILABLE, and there is no new file.
        """
        made = await self._store.backup(self._directory, f"daemon-{stamp(self._store.clock.now())}")
        fact = BackupCreated(path=made.path.name, size_bytes=made.size_bytes, sha256=made.sha256)

        def decide(_rows: Rows, _now: int) -> Outcome[None]:
            return Outcome(answer=None, facts=(fact,))

        try:
            await self._store.change(Scope(while_locked=True), decide, origin)
        except DaemonError:
            await asyncio.to_thread(made.path.unlink, missing_ok=True)
            raise
        return Backup(path=str(made.path), size_bytes=made.size_bytes, sha256=made.sha256)
