"""A person at a real shell who presses Tab."""

import fcntl
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

SHELLS = {"bash": ["bash", "-i"], "zsh": ["zsh", "-i"], "fish": ["fish", "-i"]}

_ZSHRC = "autoload -Uz compinit && compinit -u -D\nunsetopt prompt_cr prompt_sp\n"
"""What the README wants of a zsh; and no marks on the screen."""

_KILL_LINE = b"\x15"


class TypedShell:
    """An interactive shell in a pseudo-terminal, with completion set up.

    Args:
        shell: bash, zsh or fish; the test is skipped where it is not installed.
        setup: what its user runs once, to set completion up.
        env: its environment.
        home: its user's home directory, where it starts; nobody's settings are there.
    """

    def __init__(self, shell: str, setup: str, env: Mapping[str, str], home: Path) -> None:
        if shutil.which(shell) is None:
            pytest.skip(f"{shell} is not installed")
        (home / ".config" / "fish" / "completions").mkdir(parents=True)
        (home / ".zshrc").write_text(_ZSHRC)
        env = {**env, "HOME": str(home), "TERM": "dumb", "COLUMNS": "160", "LANG": "C.UTF-8"}
        env = {name: value for name, value in env.items() if not name.startswith(("XDG_", "ZDOTDIR"))}
        subprocess.run(["sh", "-c", setup], env=env, check=True)
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            os.chdir(home)
            os.execvpe(shell, SHELLS[shell], env)
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 160, 0, 0))
        self.shell = shell
        self.screen = ""
        # Written so that the echo of the line is not what is waited for.
        self.type("printf '%s-%s\\n' READY NOW\n", "READY-NOW")

    def type(self, keys: str, expected: str, seconds: float = 30) -> str:
        """Press keys and return what is on the screen from then on, once it has what is expected."""
        begun = len(self.screen)
        os.write(self._terminal, keys.encode())
        deadline = time.monotonic() + seconds
        while expected not in self.screen[begun:]:
            assert time.monotonic() < deadline, f"{keys!r}: {expected!r} did not come: {self.screen[begun:]!r}"
            if select.select([self._terminal], [], [], 0.1)[0]:
                self.screen += os.read(self._terminal, 65_536).decode(errors="replace").replace("\x07", "")
        return self.screen[begun:]

    def complete(self, line: str, expected: str) -> str:
        """Type a line, press Tab, and return what came of it once the line is as expected; then forget the line."""
        shown = self.type(f"{line}\t", expected)
        os.write(self._terminal, _KILL_LINE)
        return shown

    def close(self) -> None:
        """Hang up."""
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._terminal)
