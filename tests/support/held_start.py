"""A start that is held between INITIALIZING and READY."""

import fcntl
import os
import signal
from typing import Self

from tests.support.daemon_process import wait_for
from tests.support.supervised import Supervised


class HeldStart:
    """Holds the next start of a session between INITIALIZING and READY, as a slow disk would, until it is let go.

    What becomes the command opens `stdout` for writing first, and waits there for as long as we have a lease on the
    file (fcntl(2), "Leases").

    Args:
        session: that was started before, and does not run now.
    """

    def __init__(self, session: Supervised) -> None:
        self._session = session
        self._fd = -1

    def __enter__(self) -> Self:
        self._fd = os.open(self._session.directory / "stdout", os.O_RDONLY | os.O_CLOEXEC)
        fcntl.fcntl(self._fd, fcntl.F_SETSIG, signal.SIGURG)  # which is ignored, unlike the usual SIGIO
        fcntl.fcntl(self._fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        return self

    def wait(self) -> Self:
        """Return once the start is held."""
        self._session.wait("INITIALIZING")
        wait_for(lambda: len(self._session.tree) == 1)
        return self

    def let_go(self) -> None:
        """Let it go on."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __exit__(self, *_: object) -> None:
        self.let_go()
