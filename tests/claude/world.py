"""A daemon that runs the real Claude Code CLI, and the API that it speaks with: all of it in one namespace."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil

from daemon.supervision import cgroup
from tests.support.claude_cli import QUIET
from tests.support.daemon_process import PASSWORD, DaemonProcess, wait_for
from tests.support.services.messages_api import FakeMessagesApi, last_words

MODEL = "claude-sonnet-4-5"
USD_PER_TOKEN = {"input": 3e-6, "output": 15e-6}
"""What the model costs, https://docs.claude.com/en/docs/about-claude/pricing."""
PATIENCE = 60.0
"""Seconds that a step may take on a busy machine."""


class World:
    """The fake API, a daemon whose processes find the CLI, and its owner.

    Args:
        api: that the CLI shall speak with.
        root: an empty directory.
        binaries: where `claude` is.
        settings: of the daemon, as `DAEMON_<SECTION>_<KEY>`.
    """

    def __init__(self, api: FakeMessagesApi, root: Path, binaries: str, **settings: str) -> None:
        self.home = root / "daemon"
        self.user_home = root / "user"
        self.workspace = root / "workspace"
        for directory in (self.user_home, self.workspace):
            directory.mkdir()
        self.api = api
        nothing = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"))
        self.daemon = DaemonProcess(
            self.home,
            **nothing,
            HOME=str(self.user_home),
            PATH=f"{binaries}:/usr/local/bin:/usr/bin:/bin",
            DAEMON_PROCESSES_WORKSPACE_ROOTS=json.dumps([str(self.workspace)]),
            **settings,
        )
        self.connect()
        self.agent: str = self.ask("POST", "/v1/agents", name="researcher")["id"]

    def connect(self) -> None:
        """Speak with the daemon as it runs now."""
        self.owner = httpx.Client(
            base_url=self.daemon.url, headers={"X-Master-Password": PASSWORD}, timeout=PATIENCE, trust_env=False
        )

    def ask(self, method: str, path: str, **body: Any) -> Any:
        """Ask as the owner, and return what is answered."""
        answer = self.owner.request(method, path, **({"json": body} if method != "GET" else {}))
        assert answer.is_success, answer.text
        return answer.json()

    def restart(self, *, after: Callable[[], object] = lambda: None) -> None:
        """Kill the daemon with SIGKILL, let something happen, and start it again."""
        self.daemon.kill9()
        after()
        self.daemon.start()
        self.connect()

    def variables(self, **more: str) -> dict[str, str]:
        """Return what the CLI needs in its environment."""
        return {**QUIET, "ANTHROPIC_BASE_URL": self.api.url, "ANTHROPIC_API_KEY": "test-api-key", **more}

    def session(self, **process: Any) -> "Session":
        """Make a session with a process, and return when it waits for a message."""
        configuration = {
            "command": "claude",
            "workingDir": str(self.workspace),
            "model": MODEL,
            "environment": self.variables(),
            **process,
        }
        made = self.ask("POST", "/v1/sessions", agentId=self.agent, process=configuration)
        session = Session(self, made["id"], made["token"])
        session.until("READY")
        return session

    def transcripts(self) -> str:
        """Return what the CLI keeps of its conversations."""
        return "".join(file.read_text() for file in (self.user_home / ".claude" / "projects").rglob("*.jsonl"))

    def price(self, requests: int) -> float:
        """Return what so many answers cost."""
        used = self.api.usage
        each = used.input_tokens * USD_PER_TOKEN["input"] + used.output_tokens * USD_PER_TOKEN["output"]
        return round(requests * each, 6)

    def close(self) -> None:
        """End the daemon, and whatever it has started."""
        if self.daemon.process.returncode is None:
            self.daemon.stop()
        for one in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if one.environ().get("HOME") == str(self.user_home):
                    one.kill()


class Session:
    """A session with a process.

    Args:
        world: where it is.
        session_id: its id.
        token: its first token.
    """

    def __init__(self, world: World, session_id: str, token: str) -> None:
        self.id = session_id
        self.token = token
        self._world = world

    def ask(self, method: str, path: str = "", **body: Any) -> Any:
        """Ask something of it as the owner."""
        return self._world.ask(method, f"/v1/sessions/{self.id}{path}", **body)

    def show(self) -> Any:
        """Return it as the owner sees it."""
        return self.ask("GET")

    @property
    def state(self) -> str:
        """Its state."""
        return str(self.show()["state"])

    @property
    def process(self) -> dict[str, Any]:
        """Its process as the API shows it."""
        shown: dict[str, Any] = self.show()["process"]
        return shown

    def until(self, *states: str) -> None:
        """Return when it is in one of these states."""
        try:
            wait_for(lambda: self.state in states, PATIENCE)
        except AssertionError as error:
            raise AssertionError(f"not {states}: {self.show()}, {self.errors()}") from error

    def errors(self) -> str:
        """Return what the CLI said on its standard error."""
        return self.output("stderr")

    def output(self, stream: str = "stdout") -> str:
        """Return what the CLI has said."""
        address = f"/v1/sessions/{self.id}/output"
        return self._world.owner.get(address, params={"stream": stream, "follow": "false"}).text

    def said(self, kind: str) -> list[dict[str, Any]]:
        """Return the lines of one type that the CLI has said."""
        lines = [json.loads(line) for line in self.output().splitlines()]
        return [line for line in lines if line["type"] == kind]

    def send(self, content: str, **more: Any) -> int:
        """Send a message, and return the number of its turn."""
        return int(self.ask("POST", "/messages", content=content, **more)["turn"])

    def turn(self, content: str) -> str:
        """Send a message, wait until its turn is over, and return the outcome."""
        return self.outcome(self.send(content))

    def outcome(self, turn: int) -> str:
        """Return how a turn ended, once it has; it ends once."""
        wait_for(lambda: self.outcomes(turn), PATIENCE)
        (found,) = self.outcomes(turn)
        return found

    def outcomes(self, turn: int) -> list[str]:
        """Return every outcome that was told of a turn."""
        details = [event["details"] for event in self.events("SESSION_STATE_CHANGED")]
        return [told["outcome"] for told in details if told.get("turn") == turn and told.get("outcome")]

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Return its events of a type, the oldest first."""
        query = {"sessionId": self.id, "type": kind, "limit": 200}
        found: list[dict[str, Any]] = self._world.owner.get("/v1/admin/audit", params=query).json()
        return found

    def words(self) -> list[str]:
        """Return the user's messages in the newest request that the API got of this conversation."""
        return [last_words({"messages": [one]}) for one in self.newest()["messages"] if is_question(one)]

    def newest(self) -> dict[str, Any]:
        """Return the newest request that the API got."""
        with self._world.api.changed:
            return self._world.api.messages[-1]

    def close(self) -> dict[str, Any]:
        """End it in good order, and return its process once it is over."""
        self.ask("DELETE")
        self.until("CLOSED")
        return self.process


def is_question(message: dict[str, Any]) -> bool:
    """Return whether the user said this, and no tool."""
    return message["role"] == "user" and bool(last_words({"messages": [message]}))


def tree(pid: int) -> list[psutil.Process]:
    """Return a process and all its descendants."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def states(pid: int) -> set[str]:
    """Return the states of a process and its descendants: the kernel's letter, or `frozen` with their control group."""
    return {"frozen" if _is_frozen(one.pid) else _letter(one.pid) for one in tree(pid)}


STOPPED = {"T", "frozen"}
"""In a frozen group the signal that stops a process waits, and the letter stays what it was (cgroups(7))."""


def _letter(pid: int) -> str:
    return _read(pid, "stat").rpartition(")")[2].strip()[:1]


def _is_frozen(pid: int) -> bool:
    name = _read(pid, "cgroup").rpartition("/")[2].strip().removeprefix("daemon-")
    group = cgroup.find(name) if name else None
    return group is not None and "frozen 1" in (group.path / "cgroup.events").read_text()


def _read(pid: int, name: str) -> str:
    """Return what the kernel says of a process; nothing of one that is gone."""
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except OSError:
        return ""


def arguments(pid: int) -> list[str]:
    """Return a process's argument vector."""
    return _read(pid, "cmdline").split("\0")[:-1]


def bytes_under(*roots: Path) -> dict[Path, bytes]:
    """Return the content of every file under directories."""
    found = {}
    for path in (path for root in roots for path in root.rglob("*") if path.is_file()):
        with contextlib.suppress(FileNotFoundError):  # it was temporary
            found[path] = path.read_bytes()
    return found
