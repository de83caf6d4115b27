"""The daemon as an agent of macOS's launchd: launchd.plist(5), launchctl(1)."""

import os
import plistlib
import re
import time
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from daemon.installation.manager import Said, State, checked, reason, run
from daemon.installation.seal import PLACE, seal
from daemon.installation.service import NAME, Service, ServiceError

_OPEN_FILES = 4096
"""launchd's own limit of 256 is less than what the daemon serves at the same time."""
_GONE_SECONDS = 60.0
_POLL = 0.1


class Launchd:
    """The launchd of one user."""

    kind = "launchd"
    service = NAME
    restart_hint = f"launchctl kickstart -k gui/{os.getuid()}/{NAME}"

    def __init__(self, home: Path) -> None:
        self.file = home / "Library" / "LaunchAgents" / f"{NAME}.plist"
        self._errors = home / "Library" / "Logs" / f"{NAME}.log"
        self._domain = f"gui/{os.getuid()}"
        self._target = f"{self._domain}/{NAME}"

    def render(self, service: Service) -> str:
        """Return the property list."""
        said: dict[str, Any] = {
            "Label": NAME,
            "ProgramArguments": [checked(word, "A path of the service") for word in service.command],
            "EnvironmentVariables": {"PATH": checked(service.path, "PATH")},
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "ThrottleInterval": 10,
            "ExitTimeOut": service.stop_seconds,
            # The processes of sessions outlive the daemon, and the next one finds them again.
            "AbandonProcessGroup": True,
            "SoftResourceLimits": {"NumberOfFiles": _OPEN_FILES},
            "StandardOutPath": os.devnull,
            "StandardErrorPath": str(self._errors),
        }
        text = plistlib.dumps(said, sort_keys=False).decode()
        # A comment is where Apple's own files have theirs.
        return seal(text.replace("<plist ", f"<!-- {PLACE} -->\n<plist ", 1))

    def read(self, text: str) -> Said:
        """Return what a property list of ours says."""
        said = plistlib.loads(text.encode())
        return Said(said["ProgramArguments"], said["EnvironmentVariables"]["PATH"])

    def check(self) -> None:
        """Make sure that there is a launchd with a session of this user."""
        _asked("print", self._domain)

    def enable(self) -> None:
        """Let launchd load the property list at each login."""
        _asked("enable", self._target)

    def start(self, *, anew: bool) -> None:
        """Load the property list, which starts the service."""
        if anew and self._is_loaded():
            self.disable()
        if self._is_loaded():
            _asked("kickstart", self._target)
        else:
            _asked("bootstrap", self._domain, str(self.file))

    def disable(self) -> None:
        """Stop the service, and wait until it is gone: before that it cannot be loaded again."""
        if not self._is_loaded():
            return
        _asked("bootout", self._target)
        deadline = time.monotonic() + _GONE_SECONDS
        while self._is_loaded():
            if time.monotonic() >= deadline:
                raise ServiceError("launchd does not end the service", f"see: launchctl print {self._target}")
            time.sleep(_POLL)

    def forget(self) -> None:
        """Do nothing: launchd knows of no file that it has not loaded."""

    def state(self) -> State:
        """Return how the service does."""
        done = _called("print", self._target)
        if done.returncode != 0:
            return State(self.file.exists(), False, "not loaded", None)
        word = re.search(r"^\s*state = (.+)$", done.stdout, re.MULTILINE)
        pid = re.search(r"^\s*pid = (\d+)$", done.stdout, re.MULTILINE)
        return State(True, pid is not None, word[1] if word else "loaded", int(pid[1]) if pid else None)

    def runs(self, pid: int) -> bool:
        """Return whether a process is the service."""
        try:
            return self.state().pid == pid
        except ServiceError:
            return False

    def lingers(self) -> None:
        """Return None: an agent of launchd ends with its user's session, whatever is set."""

    def _is_loaded(self) -> bool:
        return _called("print", self._target).returncode == 0


def _called(*words: str) -> CompletedProcess[str]:
    try:
        return run("launchctl", *words)
    except FileNotFoundError:
        raise ServiceError(
            "There is no launchd on this machine", "start the daemon by hand: daemon start --detach"
        ) from None


def _asked(*words: str) -> None:
    """Ask launchd for something that must succeed."""
    done = _called(*words)
    if done.returncode != 0:
        raise ServiceError(f"launchctl {words[0]}: {reason(done)}", "log in at the screen, and try again")
