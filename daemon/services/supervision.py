"""What sessions with a process have that others have not: a configuration, secrets, a place in the pool."""

import os
import uuid

from daemon.domain import pool, process_views
from daemon.domain.body import under
from daemon.domain.errors import NOT_SUPERVISED, SESSION_NOT_FOUND, STORAGE_UNAVAILABLE, DaemonError, invalid
from daemon.domain.process_config import PatchProcess, ProcessConfig, join, must_restart, split
from daemon.domain.process_rows import Process
from daemon.domain.process_views import ProcessView
from daemon.domain.reconfiguration import Reconfigure
from daemon.domain.rows import Session
from daemon.services.ports import Running
from daemon.services.process_seals import ProcessSeals
from daemon.services.staging import Staging
from daemon.settings import Processes
from daemon.stores.protocol import Store


class Supervision:
    """What the other services need to make, show and change sessions with a process.

    Args:
        store: the engine.
        running: runs processes.
        seals: seals their secrets.
        staging: puts their tokens where they find them.
        settings: the processes section.
        home: id of this daemon's home.
    """

    def __init__(
        self,
        store: Store,
        running: Running,
        seals: ProcessSeals,
        *,
        staging: Staging,
        settings: Processes,
        home: str,
    ) -> None:
        self._store = store
        self._running = running
        self._seals = seals
        self._settings = settings
        self.staging = staging
        self.home = home
        self.places = pool.Limits(settings.max_processes, settings.max_per_agent)

    def problems(self, config: ProcessConfig) -> list[tuple[str, str]]:
        """Return what keeps a configuration from being run here, as (dotted path, message)."""
        if not self._settings.enabled:
            return [("process", "processes are switched off; set processes.enabled = true and restart the daemon")]
        return under("process", self._running.problems(config))

    def new(self, session_id: str, config: ProcessConfig) -> Process:
        """Return the row of a process that was not started yet.

        Raises:
            DaemonError: STORAGE_UNAVAILABLE: its secrets cannot be sealed.
        """
        text, secrets = split(config)
        return Process(
            session_id=session_id,
            home=self.home,
            config=text,
            secrets=self._seals.seal(secrets, session_id),
            external_id=new_external_id(),
        )

    async def home_of(self, session_id: str) -> str | None:
        """Return the home whose daemon runs a session's process, which on a shared database need not be ours."""
        process = await self._store.process(session_id)
        return process.home if process is not None else None

    async def show(self, session: Session) -> ProcessView | None:
        """Return a session's process as the API shows it."""
        if not session.supervised:
            return None
        process = await self._store.process(session.id)
        if process is None:
            return None
        return process_views.view(session, process, seen=self._running.is_running(session.id))

    async def reconfigure(self, session_id: str, patch: PatchProcess, *, force: bool) -> Reconfigure:
        """Return the law that gives a session's process a new configuration.

        Args:
            session_id: whose.
            patch: what changes.
            force: whether a running turn is interrupted for it.

        Raises:
            DaemonError: SESSION_NOT_FOUND, INVALID_STATE_TRANSITION, VALIDATION_ERROR with every problem,
                STORAGE_UNAVAILABLE where the key of its secrets is missing.
        """
        process = await self._store.process(session_id)
        if process is None:
            found = await self._store.session(session_id)
            raise DaemonError(NOT_SUPERVISED if found else SESSION_NOT_FOUND)
        secrets = self._seals.read(process)
        if secrets is None:
            raise DaemonError(STORAGE_UNAVAILABLE, "The key that sealed this process's secrets is missing.")
        before = join(process.config, secrets)
        after = patch.applied_to(before)
        here = self.problems(after) if after.working_dir != before.working_dir else []
        if problems := [*under("process", after.problems()), *here]:
            raise invalid(*problems)
        text, fresh = split(after)
        same = fresh == split(before)[1]
        return Reconfigure(
            before=process,
            config=text,
            secrets=process.secrets if same else self._seals.seal(fresh, session_id),
            restarts=must_restart(before, after),
            force=force,
        )


def new_external_id() -> str:
    """Return an id under which a command can keep a conversation: a UUID v4, as the commands themselves make them."""
    return str(uuid.UUID(bytes=os.urandom(16), version=4))
