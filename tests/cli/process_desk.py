"""A desk at which processes run: a daemon of its own, a stand-in for Claude Code in its PATH, commands that go on."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx

from tests.support import fake_claude
from tests.support.daemon_process import PASSWORD, DaemonProcess, environment, wait_for


class ProcessDesk(DaemonProcess):
    """A daemon that may start processes in `work`.

    Args:
        root: an empty directory.
        env: further settings.
    """

    def __init__(self, root: Path, **env: str) -> None:
        self.work = root / "work"
        self.work.mkdir(parents=True)
        settings = {
            "PATH": f"{fake_claude.install(root / 'bin')}:{os.environ['PATH']}",
            "DAEMON_PROCESSES_WORKSPACE_ROOTS": json.dumps([str(self.work)]),
            "DAEMON_PROCESSES_MAX_PROCESSES": "100",
            "DAEMON_PROCESSES_MAX_PER_AGENT": "100",
            "DAEMON_SECURITY_MAX_SESSIONS_PER_AGENT": "100",
        }
        super().__init__(root / "home", **{**settings, **env})
        self.agent: str = self.ask("POST", "/v1/agents", {"name": "worker"})["id"]

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Return what the API answers."""
        headers = {"X-Master-Password": PASSWORD}
        answer = httpx.request(method, self.url + path, json=body, headers=headers, trust_env=False, verify=False)
        return answer.raise_for_status().json()

    def begin(self, *command: str, **process: Any) -> str:
        """Start a process for a new session, Claude Code unless a command is named; return its id once it is READY."""
        wanted = {"command": list(command) or "claude", "workingDir": str(self.work), **process}
        made: str = self.ask("POST", "/v1/sessions", {"agentId": self.agent, "process": wanted})["id"]
        self.wait(made, "READY")
        return made

    def show(self, session: str) -> dict[str, Any]:
        """Return a session."""
        found: dict[str, Any] = self.ask("GET", f"/v1/sessions/{session}")
        return found

    def wait(self, session: str, *states: str) -> dict[str, Any]:
        """Wait until a session is in one of these states."""
        wait_for(lambda: self.show(session)["state"] in states)
        return self.show(session)

    def tell(self, session: str, content: str) -> None:
        """Send a message and wait until it is answered."""
        before = self.show(session)["process"]["turns"]
        self.ask("POST", f"/v1/sessions/{session}/messages", {"content": content, "queue": True})
        wait_for(lambda: self.show(session)["process"]["turns"] > before)


class Going:
    """A command in a process of its own, and what it has printed so far.

    Args:
        desk: whose daemon it is for.
        arguments: of `daemon`.
        env: further variables.
    """

    def __init__(self, desk: DaemonProcess, *arguments: str, **env: str | None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "daemon", *arguments],
            env=environment(desk.home, **{"DAEMON_MASTER_PASSWORD": PASSWORD, **env}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.out = b""
        self.said = b""
        self._threads = [threading.Thread(target=self._read, args=(name,)) for name in ("out", "said")]
        for thread in self._threads:
            thread.start()

    def _read(self, name: str) -> None:
        pipe = self.process.stdout if name == "out" else self.process.stderr
        assert pipe is not None
        while chunk := os.read(pipe.fileno(), 65_536):
            setattr(self, name, getattr(self, name) + chunk)
        pipe.close()

    @property
    def err(self) -> str:
        """What is on standard error by now."""
        return self.said.decode()

    def type(self, text: str) -> None:
        """Write to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def close(self) -> int:
        """End its input and return how it ended."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.end()

    def interrupt(self) -> int:
        """Press Ctrl-C and return how it ended."""
        self.process.send_signal(signal.SIGINT)
        return self.end()

    def end(self) -> int:
        """Return how it ended."""
        try:
            code = self.process.wait(30)
        finally:
            self.process.kill()
            for thread in self._threads:
                thread.join()
        return code
