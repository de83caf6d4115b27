"""The process: run a daemon until a signal or the owner stops it; prepare a home without running one."""

import asyncio
import faulthandler
import os
import signal
import sys
from collections.abc import Mapping

import uvloop

from daemon import __version__, emergency
from daemon.config import SECRET_VARIABLES, Loaded
from daemon.domain.views import KillSwitchView
from daemon.home import Home
from daemon.running import Daemon
from daemon.service_manager import ServiceManager
from daemon.startup import EXIT_FAILED
from daemon.supervising import Surroundings


def run(
    home: Home,
    loaded: Loaded,
    *,
    password: str | None,
    foreground: bool,
    ready_fd: int | None,
    flags: Mapping[str, object] | None = None,
) -> int:
    """Serve until stopped and return the exit code.

    Args:
        home: where everything lives.
        loaded: the configuration.
        password: see `Daemon`.
        foreground: also write the log to standard output.
        ready_fd: gets `ready` and is closed when requests are answered.
        flags: of the command line, for a reload.

    Raises:
        StartError: the daemon could not start.
        AlreadyRunning: another daemon has the home.
    """
    manager = ServiceManager.of(os.environ)
    if manager.watchdog_seconds is not None:
        faulthandler.enable()  # SIGABRT, by which it ends who is hung, leaves behind where each thread was
    surroundings = Surroundings(umask=os.umask(0o077), manager=manager)
    for name in SECRET_VARIABLES:
        os.environ.pop(name, None)

    async def main() -> None:
        daemon = Daemon(home, loaded, password=password, foreground=foreground, flags=flags, surroundings=surroundings)
        _watch_signals(daemon)
        await daemon.start()
        if ready_fd is not None:
            _say_ready(ready_fd)
        if foreground and sys.stderr.isatty():
            print(f"daemon {__version__} answers at {daemon.url} (Ctrl-C stops it)", file=sys.stderr)
        await daemon.run_until_stopped()

    uvloop.run(main())
    return 0


def _say_ready(ready_fd: int) -> None:
    """Tell who started us, and let go of its standard error."""
    os.write(ready_fd, b"ready\n")
    os.close(ready_fd)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _watch_signals(daemon: Daemon) -> None:
    """The first SIGTERM or SIGINT stops in good order, the second is ignored, the third ends at once."""
    loop, seen = asyncio.get_running_loop(), 0

    def on_stop(name: str) -> None:
        nonlocal seen
        seen += 1
        daemon.stop_soon(name)
        if seen > 2:
            os._exit(EXIT_FAILED)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_stop, number.name)
    loop.add_signal_handler(signal.SIGHUP, daemon.reload_soon)
    # `daemon stop --kill-processes`: the owner needs no password to stop everything that he runs.
    loop.add_signal_handler(signal.SIGUSR1, lambda: daemon.stop_soon("SIGUSR1", kill_processes=True))


def prepare(home: Home, loaded: Loaded, password: str | None) -> bool:
    """Make the home, its configuration, database and master password; return whether the password was set.

    Raises:
        StartError: it cannot be done.
        AlreadyRunning: a daemon has the home.
    """
    os.umask(0o077)

    async def main() -> bool:
        return await Daemon(home, loaded, password=password).initialise()

    return asyncio.run(main())


def stop_everything(home: Home, loaded: Loaded, reason: str) -> KillSwitchView:
    """Activate the kill switch of a daemon that is down, so that it is on when it starts.

    Raises:
        StartError: it cannot be done.
        AlreadyRunning: a daemon has the home.
        DaemonError: KILL_SWITCH_ALREADY_ACTIVE.
    """
    os.umask(0o077)

    return asyncio.run(emergency.stop_everything(home, loaded, reason))
