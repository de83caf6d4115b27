"""The kill switch: stop everything, and bring back what it stopped."""

from functools import partial

from daemon.domain import kill_switch
from daemon.domain.changes import Scope
from daemon.domain.events import Origin
from daemon.domain.views import KillSwitchView, Recovery
from daemon.services.latch import Latch
from daemon.services.ports import KILL_SECONDS, Proof, Running
from daemon.settings import Security
from daemon.stores.protocol import Store

_ACTIVATION = Scope(values=(kill_switch.KEY,), pick="every", active_agents=True, while_locked=True)
"""What stopping everything needs to see."""


class KillSwitch:
    """The owner's last resort.

    Args:
        store: the engine.
        settings: the security section.
        latch: refuses agents meanwhile.
        running: runs processes, which are ended too.
    """

    def __init__(self, store: Store, settings: Security, latch: Latch, running: Running) -> None:
        self._running = running
        self._store = store
        self._settings = settings
        self._latch = latch

    async def show(self) -> KillSwitchView:
        """Return the state."""
        return kill_switch.read(await self._store.value(kill_switch.KEY))

    async def activate(self, reason: str, origin: Origin) -> KillSwitchView:
        """Revoke every session and suspend every active agent, in one transaction; then see every process end.

        Args:
            reason: the owner's words.
            origin: the owner.

        Raises:
            DaemonError: KILL_SWITCH_ALREADY_ACTIVE.
        """
        with self._latch.closing():
            state = await self._store.change(_ACTIVATION, partial(kill_switch.activate, reason=reason), origin)
        proof = await self._running.ended(None, KILL_SECONDS)
        if proof == Proof():
            return state
        scope = Scope(values=(kill_switch.KEY,), while_locked=True)
        decide = partial(kill_switch.count_processes, killed=proof.killed, left=proof.left)
        return await self._store.change(scope, decide, origin)

    async def recover(self, origin: Origin) -> Recovery:
        """Begin or end the recovery; only agents that the switch suspended come back, sessions stay revoked.

        Raises:
            DaemonError: KILL_SWITCH_NOT_ACTIVE, RECOVERY_WAIT_REQUIRED.
        """
        scope = Scope(values=(kill_switch.KEY,), suspended_by="kill_switch", while_locked=True)
        decide = partial(kill_switch.recover, wait=self._settings.kill_switch_recovery_wait)
        return await self._store.change(scope, decide, origin)
