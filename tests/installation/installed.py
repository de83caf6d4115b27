"""An owner whose systemd is a real one, and the daemon as its service."""

import json
import shutil
import sys
from typing import Any

import httpx

from tests.support.daemon_process import PASSWORD, Ended, wait_for
from tests.support.systemd import UserManager

UNIT = "agent-daemon.service"
QUICK = "[Service]\nRestartSec=50ms\n"


class Site:
    """An owner whose systemd is a real one, with a home that has its password.

    Args:
        manager: that systemd.
        dropin: changes the unit.
    """

    def __init__(self, manager: UserManager, dropin: str = "") -> None:
        self.manager = manager
        self.home = manager.home / "daemon home"
        shutil.copytree(manager.home / "initialised", self.home)
        self._dropin = manager.units / f"{UNIT}.d" / "test.conf"
        self._dropin.parent.mkdir(parents=True)
        self._dropin.write_text(QUICK + dropin.format(home=self.home))

    def daemon(self, *arguments: str) -> Ended:
        """Run a command."""
        return self.manager.run(sys.executable, "-m", "daemon", "--home", str(self.home), *arguments)

    def did(self, *arguments: str) -> str:
        """Run a command that succeeds, and return what it printed."""
        done = self.daemon(*arguments)
        assert done.code == 0, done.err
        return done.out

    @property
    def pid(self) -> int:
        """The service's main process; 0: none."""
        return int(self.manager.show(UNIT, "MainPID"))

    @property
    def word(self) -> str:
        """What systemd says of the service."""
        return self.manager.show(UNIT, "ActiveState")

    def is_ready_again(self, before: int) -> bool:
        """Return whether it serves, as another process than before."""
        return self.word == "active" and self.pid not in {0, before}

    def asks(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Ask the daemon as its owner, and return its answer."""
        url = json.loads((self.home / "daemon.json").read_text())["url"]
        answer = httpx.request(method, url + path, json=body, headers={"X-Master-Password": PASSWORD}, timeout=30)
        return answer.raise_for_status().json()

    def begin(self, *command: str) -> tuple[str, int]:
        """Start a command for a new session; return the session's id, and the pid once it runs."""
        agent = self.asks("POST", "/v1/agents", {"name": "agent"})["id"]
        process = {"command": command, "workingDir": str(self.home.parent)}
        session = str(self.asks("POST", "/v1/sessions", {"agentId": agent, "process": process})["id"])
        return session, int(wait_for(lambda: self.pid_of(session)))

    def pid_of(self, session: str) -> int | None:
        """Return the pid of a session's process; None where it was not just seen to run."""
        found: int | None = self.asks("GET", f"/v1/sessions/{session}")["process"]["pid"]
        return found

    def said(self, session: str) -> str:
        """Return what a session's process has written."""
        return (self.home / "processes" / session / "stdout").read_text()

    def told(self, session: str, text: str) -> None:
        """Send a message to a session's process, and return once it has written it."""
        self.asks("POST", f"/v1/sessions/{session}/messages", {"content": text, "queue": True})
        wait_for(lambda: text in self.said(session))

    def group(self, pid: int) -> str:
        """Return the control group of a process."""
        lines = self.manager.run("cat", f"/proc/{pid}/cgroup").out.splitlines()
        return next((line[3:] for line in lines if line.startswith("0::")), "")

    def inside(self) -> set[int]:
        """Return the processes in the service's own group, without those in groups below."""
        return set(map(int, self.manager.run("cat", f"/sys/fs/cgroup{self.group(self.pid)}/cgroup.procs").out.split()))

    def close(self) -> None:
        """Remove the service and its home, whatever became of them."""
        for path in (self.home / "processes").glob("*/child"):
            self.manager.run("kill", "-KILL", path.read_text().split()[1])
        self.manager.run("systemctl", "--user", "disable", "--now", UNIT)
        (self.manager.units / UNIT).unlink(missing_ok=True)
        shutil.rmtree(self._dropin.parent)
        self.manager.systemctl("daemon-reload")
        self.manager.run("systemctl", "--user", "reset-failed")
        shutil.rmtree(self.home)
