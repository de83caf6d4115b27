"""`daemon` as somebody has it who has nothing of this project but that one program."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.daemon_process import Ended

VARIABLES = {"file": "DAEMON_TEST_BINARY", "wheel": "DAEMON_TEST_WHEEL"}
"""Where the program is: the single file, and the script of an environment in which the wheel is installed."""
_TOKEN = re.compile(r"wai_sess_[\w.-]+")


def path_of(kind: str) -> Path:
    """Return where the program is; skip the test where there is none, or fail it where DAEMON_TEST_REQUIRE names it."""
    path = os.environ.get(VARIABLES[kind])
    if path:
        return Path(path).resolve()
    reason = f"{VARIABLES[kind]} names no daemon to try: .ci/binary and .ci/run do"
    if kind in os.environ.get("DAEMON_TEST_REQUIRE", "").split():
        pytest.fail(reason)
    pytest.skip(reason)


class Installed:
    """A program in a directory tree that is empty otherwise; what it is told and says goes into the test's output.

    Args:
        path: of the program.
        tree: the empty directory tree.
        unpacked: where a single file unpacks itself; None leaves that to it.
    """

    def __init__(self, path: Path, tree: Path, unpacked: Path | None) -> None:
        self.path = path
        self.user = tree / "some user"
        self.home = self.user / "home"
        self._tools = tree / "tools"
        self._environment = {"HOME": str(self.user), "PATH": str(self._tools)}
        if unpacked is not None:
            self._environment["DAEMON_UNPACK_DIR"] = str(unpacked)
        self.user.mkdir(0o700)
        self._tools.mkdir()
        for name in ("cat", "env", "sh"):
            (self._tools / name).symlink_to(f"/bin/{name}" if name != "env" else "/usr/bin/env")

    def environment(self, **more: str) -> dict[str, str]:
        """Return all that it finds in its environment: no Python is on the PATH."""
        return {**self._environment, **more}

    def __call__(self, *arguments: str, quiet: bool = False, **more: str) -> Ended:
        """Run one command to its end; `quiet` keeps a long answer out of the test's output."""
        done = subprocess.run(
            [self.path, "--home", self.home, *arguments],
            env=self.environment(**more),
            cwd=self.user,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            start_new_session=True,
            check=False,
        )
        shown = f"({len(done.stdout)} characters)\n" if quiet else done.stdout
        ended = f"(exit code {done.returncode})\n" if done.returncode else ""
        said = f"{shown}{done.stderr}{ended}"
        print(f"$ daemon {' '.join(arguments)}\n{_TOKEN.sub('wai_sess_…', said)}", end="")
        return Ended(done.returncode, done.stdout, done.stderr)

    def start(self, **more: str) -> int:
        """Start it detached on a free port and return its pid."""
        started = self("start", "--detach", "--port", "0", **more)
        assert started.code == 0, started.err
        pid = int((self.home / "daemon.pid").read_text())
        assert f"(pid {pid})" in started.out
        return pid

    def sign_in(self) -> None:
        """Take the password that a first start made, for all that follows."""
        password = self.user / "password"
        password.write_text((self.home / "initial-password").read_text())
        password.chmod(0o600)
        self._environment["DAEMON_MASTER_PASSWORD_FILE"] = str(password)

    def add_agent(self) -> dict[str, Any]:
        """Register an agent and return the session that was made for it."""
        made: dict[str, Any] = self("agent", "add", "first", "--session", "--json").json()["session"]
        return made

    def ask(self, method: str, path: str, token: str, body: Any = None) -> httpx.Response:
        """Send an agent's request."""
        url = json.loads((self.home / "daemon.json").read_text())["url"]
        headers = {"Authorization": f"Bearer {token}"}
        answer = httpx.request(method, url + path, headers=headers, json=body, timeout=10, trust_env=False)
        print(f"> {method} {path}\n< {answer.status_code} {answer.text[:200]}")
        return answer

    def close(self) -> None:
        """Stop the daemon, if one runs, with all that it runs."""
        if (self.home / "daemon.pid").exists():
            self("stop", "--kill-processes", "--force", "--timeout", "10")
