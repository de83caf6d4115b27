"""A real daemon in a process of its own, whose time a test moves: `python -m tests.support.timed_daemon HOME TIME`."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import uvloop

from daemon import config
from daemon.home import Home
from daemon.running import Daemon
from tests.support.daemon_process import REPOSITORY, environment, untraced
from tests.support.homes import prepare
from tests.support.live import CHEAP, PASSWORD, MovedClock
from tests.support.shared_time import SharedTime


class TimedDaemon:
    """Starts it, and kills it when it is told to.

    Args:
        root: its home.
        time: file of the time.
        env: further settings.
    """

    def __init__(self, root: Path, time: Path, **env: str) -> None:
        self.socket = root / "daemon.sock"
        self._command = [sys.executable, "-m", "tests.support.timed_daemon", str(root), str(time)]
        self._env = {**untraced(), **environment(root, **env)}
        prepare(root)
        self.start()

    def start(self) -> None:
        """Start, and return when requests are answered."""
        self._process = subprocess.Popen(self._command, env=self._env, cwd=REPOSITORY, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def kill9(self) -> None:
        """Kill it with SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop it in good order."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        self._process.send_signal(number)
        self._process.communicate(timeout=60)


async def serve(root: Path, time: SharedTime) -> None:
    """Serve until SIGTERM."""
    clock = MovedClock(lambda: time.wall(), lambda: time.mono())  # noqa: PLW0108 (a function is copied, a map is not)
    daemon = Daemon(Home.resolve(root, {}), config.load(root, {**CHEAP}, {}), password=PASSWORD, clock=clock)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, daemon.stop_soon, "test")
    await daemon.start()
    os.write(1, b"ready\n")
    await daemon.run_until_stopped()


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1]), SharedTime(Path(sys.argv[2]))))
