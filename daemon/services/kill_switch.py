"""The kill switch: stop everything, and bring back what it stopped."""

from functools import partial

from daemon.domain import kill_switch
from daemon.domain.changes import Scope
from daemon.domain.events import Origin
from daemon.domain.views import KillSwitchView, Recovery
from daemon.settings import Security
from daemon.stores.protocol import Store

ACTIVATION = Scope(values=(kill_switch.KEY,), pick="every", active_agents=True, while_locked=True)
"""What stopping everything needs to see."""


class KillSwitch:
    """The owner's last resort.

    Args:
        store: the engine.
        settings: the security section.
    """

    def __init__(self, store: Store, settings: Security) -> None:
        self._store = store
        self._settings = settings
        self._activating = 0

    @property
    def is_on(self) -> bool:
        """Whether everything but the owner's way back is refused; true from the moment the owner asks for it."""
        return self._store.locked or self._activating > 0

    async def show(self) -> KillSwitchView:
        """Return the state."""
        return kill_switch.read(await self._store.value(kill_switch.KEY))

    async def activate(self, reason: str, origin: Origin) -> KillSwitchView:
        """Revoke every session and suspend every active agent, in one transaction.

        Args:
            reason: the owner's words.
            origin: the owner.

        Raises:
            DaemonError: KILL_SWITCH_ALREADY_ACTIVE.
        """
        # With very many sessions the transaction takes seconds, in which no agent shall go on.
        self._activating += 1
        try:
            return await self._store.change(ACTIVATION, partial(kill_switch.activate, reason=reason), origin)
        finally:
            self._activating -= 1

    async def recover(self, origin: Origin) -> Recovery:
        """Begin or end the recovery; only agents that the switch suspended come back, sessions stay revoked.

        Raises:
            DaemonError: KILL_SWITCH_NOT_ACTIVE, RECOVERY_WAIT_REQUIRED.
        """
        scope = Scope(values=(kill_switch.KEY,), suspended_by="kill_switch", while_locked=True)
        decide = partial(kill_switch.recover, wait=self._settings.kill_switch_recovery_wait)
        return await self._store.change(scope, decide, origin)
