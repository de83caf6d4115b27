"""A start that is held between INITIALIZING and READY."""

import contextlib
import os
import stat
import threading
from typing import Self

from tests.support.daemon_process import wait_for
from tests.support.supervised import Supervised


class HeldStart:
    """Holds the next start of a session between INITIALIZING and READY, as a slow disk would, until it is let go.

    The shell that becomes the command writes its pid into a file first: where a FIFO has that name, it waits.

    Args:
        session: that was started before, and does not run now.
    """

    def __init__(self, session: Supervised) -> None:
        self._session = session
        self._path = session.directory / "child"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._hold)

    def _hold(self) -> None:
        while not self._over.is_set():  # the daemon removes what has the name before it starts anything
            with contextlib.suppress(FileExistsError):
                os.mkfifo(self._path, 0o600)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def wait(self) -> Self:
        """Return once the start is held."""
        self._session.wait("INITIALIZING")
        wait_for(lambda: stat.S_ISFIFO(self._path.stat().st_mode) and self._session.tree)
        return self

    def let_go(self) -> None:
        """Let it go on."""
        self._path.read_text()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
