"""The kill switch of a daemon that is down: it is on when the daemon starts, and what ran has ended before."""

import contextlib
import time

from daemon.config import Loaded
from daemon.crypto.tokens import TokenSigner
from daemon.domain.clock import DomainClock
from daemon.domain.events import Event, Origin
from daemon.domain.facts.daemon import KillSwitchActivated
from daemon.domain.views import KillSwitchView
from daemon.home import Home
from daemon.opening import Opening
from daemon.service_manager import ServiceManager
from daemon.services.kill_switch import KillSwitch
from daemon.services.latch import Latch
from daemon.services.signing import Signing, load_secrets
from daemon.supervising import Surroundings, supervise


async def stop_everything(home: Home, loaded: Loaded, reason: str) -> KillSwitchView:
    """Activate the kill switch without serving, and end the processes that are recorded.

    Args:
        home: of the daemon.
        loaded: its configuration.
        reason: the owner's words.

    Raises:
        StartError: with the step's reason.
        AlreadyRunning: a daemon has the home.
        DaemonError: KILL_SWITCH_ALREADY_ACTIVE.
    """
    async with contextlib.AsyncExitStack() as stack:
        clock = DomainClock(time.time, time.monotonic)
        opening = Opening(
            home, loaded, clock=clock, stack=stack, password=None, foreground=False, manager=ServiceManager()
        )
        await opening.open()
        store, config = opening.store, loaded.config
        signing = Signing(store, TokenSigner(await load_secrets(store)))
        supervisor = supervise(
            home, config, store, opening.log, signing=signing, surroundings=Surroundings()
        ).supervisor
        await supervisor.attach()
        stack.push_async_callback(supervisor.stop)

        def notice(event: Event) -> None:
            # From the commit on nothing is to run any more: who minds processes ends them.
            if event.type == KillSwitchActivated.type:
                supervisor.begin("")
            supervisor.notice(event)

        opening.bus.listen(notice)
        return await KillSwitch(store, config.security, Latch(store), supervisor).activate(reason, Origin("cli"))
