"""The daemon itself: health, status, the sweeper, the signing secret."""

import os
from collections.abc import Callable
from functools import partial

import msgspec

from daemon.crypto.tokens import (
    PREVIOUS_SECRET_SECONDS,
    SECRET_BYTES,
    Secrets,
    decode_secrets,
    encode_secrets,
)
from daemon.domain import kill_switch, lifecycle
from daemon.domain.changes import Outcome, Pick, Rows, Scope
from daemon.domain.errors import ROTATION_TOO_RECENT, DaemonError
from daemon.domain.events import SYSTEM, Fact, Origin
from daemon.domain.facts.daemon import SecretRotated
from daemon.domain.facts.sessions import SessionsPurged
from daemon.domain.views import AdminStatus, Check, Health, LockState, RotatedSecret, Swept, WorkerStatus
from daemon.services.signing import SECRETS_KEY, Signing
from daemon.settings import Security
from daemon.stores.conversation_store import ConversationStore
from daemon.stores.protocol import Store

BATCH = 500
"""Sessions that the sweeper takes in one transaction."""
IDEMPOTENCY_SECONDS = 86_400
CONVERSATION_GRACE_SECONDS = 60
"""How long an expired conversation is kept: a use of it may still be on its way from memory to its row."""


class About(msgspec.Struct, frozen=True):
    """Who this process is.

    Args:
        version: of the program.
        pid: of the process.
        started_monotonic: for the uptime.
        workers: returns how the background tasks do.
    """

    version: str
    pid: int
    started_monotonic: float
    workers: Callable[[], list[WorkerStatus]]


class Admin:
    """What keeps the daemon in order.

    Args:
        store: the engine.
        bindings: holds the conversations.
        signing: gets the new secret.
        settings: the security section.
        about: who this process is.
    """

    def __init__(
        self, store: Store, bindings: ConversationStore, signing: Signing, settings: Security, about: About
    ) -> None:
        self._store = store
        self._bindings = bindings
        self._signing = signing
        self._settings = settings
        self._about = about

    def uptime(self) -> int:
        """Return for how many seconds the daemon has been running."""
        return int(self._store.clock.monotonic() - self._about.started_monotonic)

    def workers(self) -> list[WorkerStatus]:
        """Return how the background tasks do."""
        return self._about.workers()

    async def health(self) -> Health:
        """Return whether the daemon can do its work, and the part that fails if it cannot; never raises."""
        checks = {"database": await self._check_database(), "workers": self._check_workers()}
        if (bindings := self._bindings.check()) is not None:
            checks["conversations"] = bindings
        engine = await self._store.status()
        failed = any(check.status == "failed" for check in checks.values())
        return Health(
            status="degraded" if failed else "ok",
            version=self._about.version,
            uptime=self.uptime(),
            pid=self._about.pid,
            schema_version=engine.schema_version,
            kill_switch=await self._kill_switch(),
            active_session_count=await self._active_or_unknown(),
            checks=checks,
        )

    async def _check_database(self) -> Check:
        try:
            await self._store.probe()
        except DaemonError as error:
            return Check(status="failed", detail=error.detail)
        return Check(status="ok")

    def _check_workers(self) -> Check:
        failed = [worker.name for worker in self.workers() if worker.last_error is not None]
        if failed:
            return Check(status="failed", detail=f"failing: {', '.join(failed)}")
        return Check(status="ok")

    async def _active_or_unknown(self) -> int | None:
        try:
            return await self._store.active_session_count()
        except DaemonError:
            return None

    async def _kill_switch(self) -> LockState:
        """Return the state; what is in memory suffices for all but which of the two kinds of "on" it is."""
        if not self._store.locked:
            return "NORMAL"
        try:
            return kill_switch.read(await self._store.value(kill_switch.KEY)).state
        except DaemonError:
            return "ACTIVATED"

    async def status(self) -> AdminStatus:
        """Return the daemon at a glance.

        Raises:
            DaemonError: STORAGE_UNAVAILABLE.
        """
        workers = self.workers()
        return AdminStatus(
            status="degraded" if any(worker.last_error is not None for worker in workers) else "ok",
            version=self._about.version,
            uptime=self.uptime(),
            pid=self._about.pid,
            agent_count=await self._store.agent_count(),
            active_session_count=await self._store.active_session_count(),
            kill_switch=await self._kill_switch(),
            engine=await self._store.status(),
            workers=workers,
            notifications=await self._store.backlog(),
        )

    async def sweep(self, origin: Origin = SYSTEM) -> Swept:
        """Do what `sweep_sessions` does, and delete conversations that have expired, which nobody waits for."""
        swept = await self.sweep_sessions(origin)
        await self._bindings.flush()
        before = self._store.clock.now() - CONVERSATION_GRACE_SECONDS
        while await self._store.purge_conversations(before, BATCH):
            pass
        return swept

    async def sweep_sessions(self, origin: Origin = SYSTEM) -> Swept:
        """Mark what has expired, and delete what ended longer ago than the retention time, both in batches."""
        await self._store.flush()
        expired = await self._in_batches("expired", origin) + await self._in_batches("idle_over", origin)
        now = self._store.clock.now()
        deleted = 0
        while count := await self._store.purge_sessions(now - self._settings.session_retention, BATCH):
            deleted += count
        if deleted:
            await self._record(SessionsPurged(count=deleted), origin)
        await self._store.purge_idempotency_keys(now - IDEMPOTENCY_SECONDS)
        return Swept(expired=expired, deleted=deleted)

    async def _in_batches(self, pick: Pick, origin: Origin) -> int:
        total = 0
        while count := await self._store.change(
            Scope(pick=pick, limit=BATCH, ends=True, while_locked=True), lifecycle.expire, origin
        ):
            total += count
        return total

    async def mark_idle(self) -> int:
        """Make IDLE what sent no request for `idle_after` seconds; return how many."""
        await self._store.flush()
        quiet_for, total = self._settings.idle_after, 0
        decide = partial(lifecycle.idle, quiet_for=quiet_for)
        while count := await self._store.change(
            Scope(pick="quiet", quiet_for=quiet_for, limit=BATCH, while_locked=True), decide, SYSTEM
        ):
            total += count
        return total

    async def follow_clock_reset(self) -> int:
        """Revoke what was created later than now, after the clock followed a step back; return how many."""
        decide = partial(lifecycle.revoke_every, reason="clock_reset")
        return await self._store.change(Scope(pick="created_after_now", ends=True, while_locked=True), decide, SYSTEM)

    async def rotate_secret(self, origin: Origin, *, revoke_sessions: bool) -> RotatedSecret:
        """Replace the signing secret; the previous one classifies for 300 s more, and no session is stranded.

        Args:
            origin: the owner.
            revoke_sessions: also end every session, in the same transaction.

        Raises:
            DaemonError: ROTATION_TOO_RECENT.
        """
        fresh = os.urandom(SECRET_BYTES)
        scope = Scope(values=(SECRETS_KEY,), pick="every" if revoke_sessions else None)
        secrets = await self._store.change(scope, partial(_rotate, fresh=fresh), origin)
        self._signing.replace(secrets)
        rotated_at = secrets.rotated_at or 0
        return RotatedSecret(rotated_at=rotated_at, previous_expires_at=rotated_at + PREVIOUS_SECRET_SECONDS)

    async def record(self, fact: Fact, origin: Origin = SYSTEM) -> None:
        """Put a fact about the daemon itself into the audit log."""
        await self._record(fact, origin)

    async def _record(self, fact: Fact, origin: Origin) -> None:
        scope = Scope(while_locked=True)
        await self._store.change(scope, lambda _rows, _now: Outcome(answer=None, facts=(fact,)), origin)


def _rotate(rows: Rows, now: int, *, fresh: bytes) -> Outcome[Secrets]:
    old = decode_secrets(rows.values[SECRETS_KEY])
    if old.rotated_at is not None and now < old.rotated_at + PREVIOUS_SECRET_SECONDS:
        raise DaemonError(ROTATION_TOO_RECENT, retry_after=old.rotated_at + PREVIOUS_SECRET_SECONDS - now)
    secrets = Secrets(fresh, old.current, now)
    revoked = lifecycle.revoke_every(rows, now, reason="secret_rotated")
    fact = SecretRotated(previous_expires_at=now + PREVIOUS_SECRET_SECONDS, sessions_revoked=revoked.answer)
    return Outcome(
        answer=secrets,
        sessions=revoked.sessions,
        values={SECRETS_KEY: encode_secrets(secrets)},
        facts=(*revoked.facts, fact),
    )
