"""Sessions with real processes, as their owner sees them, and as the system does."""

import asyncio
import json
import os
import signal
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import httpx

from daemon.running import Daemon
from tests.support.daemon_process import wait_for
from tests.support.live import LiveDaemon
from tests.support.owner import drained
from tests.support.services.webhook import FakeWebhook
from tests.support.stories import steps, told

BEGIN = ["created", "CREATED>INITIALIZING", "INITIALIZING>READY"]
"""What is told of a session until its process runs."""
CAT = ("cat",)
"""Says what it is told, and ends with its input."""


def state_of(pid: int) -> str:
    """Return the letter of a process's state; nothing where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def is_alive(pid: int) -> bool:
    """Return whether a process is there, and no zombie."""
    return state_of(pid) not in {"", "Z", "X"}


def is_stopped(pid: int) -> bool:
    """Return whether a process is there and cannot run: stopped by a signal, or with its control group."""
    if state_of(pid) == "T":
        return True
    try:
        own = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return False
    paths = [line[3:] for line in own if line.startswith("0::/")]
    groups = [Path(mount[1]) / path.lstrip("/") for path in paths for mount in mounts if mount[2] == "cgroup2"]
    return any("frozen 1" in _read(group / "cgroup.events") for group in groups)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def environment_of(pid: int) -> dict[str, str]:
    """Return the environment with which a process was started; nothing where there is no such process."""
    entries = _environment(pid).split(b"\0")
    return dict(entry.decode(errors="replace").split("=", 1) for entry in entries if b"=" in entry)


def arguments_of(pid: int) -> bytes:
    """Return the arguments of a process, each ended by a zero byte."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def marked(session_id: str) -> list[int]:
    """Return the living processes whose environment names a session: its tree, its wrapper and the wrapper's keeper."""
    mark = f"DAEMON_PROCESS_MARK={session_id}\0".encode()
    pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    return [pid for pid in pids if mark in _environment(pid) and is_alive(pid)]


class Supervised:
    """One session with a process.

    Args:
        live: the daemon.
        made: the answer to its creation.
    """

    def __init__(self, live: LiveDaemon, made: dict[str, Any]) -> None:
        self.live = live
        self.id: str = made["id"]
        self.token: str = made["token"]
        self.agent_id: str = made["agentId"]
        self.path = f"/v1/sessions/{self.id}"
        self.directory: Path = live.home.processes / self.id

    # --- as the owner sees it

    def show(self) -> dict[str, Any]:
        """Return the session."""
        shown: dict[str, Any] = self.live.owner.get(self.path).raise_for_status().json()
        return shown

    @property
    def state(self) -> str:
        """Its state now."""
        return str(self.show()["state"])

    @property
    def process(self) -> dict[str, Any]:
        """Its process now."""
        found: dict[str, Any] = self.show()["process"]
        return found

    @property
    def pid(self) -> int:
        """The pid of its command, which runs."""
        return int(self.process["pid"])

    def wait(self, *states: str, seconds: float = 20) -> Self:
        """Return once it is in one of these states."""
        seen = ""

        def there() -> bool:
            nonlocal seen
            seen = self.state
            return seen in states

        try:
            wait_for(there, seconds)
        except AssertionError:
            raise AssertionError(f"it is {seen}, not {' or '.join(states)}: {self.story()}") from None
        return self

    def post(self, action: str, **body: Any) -> httpx.Response:
        """Ask something of it, e.g. `suspend`."""
        return self.live.owner.post(f"{self.path}/{action}", json=body)

    def do(self, action: str, **body: Any) -> dict[str, Any]:
        """Ask something of it that must be granted."""
        answer: dict[str, Any] = self.post(action, **body).raise_for_status().json()
        return answer

    def send(self, content: str, **body: Any) -> int:
        """Send a message that must be taken, and return the number of its turn."""
        answer = self.post("messages", content=content, **body)
        assert answer.status_code == 202, answer.text
        return int(answer.json()["turn"])

    def turn(self, content: str) -> Self:
        """Send a message, and return once its turn is over and no other has begun."""
        number = self.send(content)
        wait_for(lambda: any(one.startswith(f"ACTIVE>IDLE {number} ") for one in self.story()))
        return self

    def patch(self, **body: Any) -> httpx.Response:
        """Change it."""
        return self.live.owner.patch(self.path, json=body)

    def revoke(self) -> None:
        """End it in good order."""
        self.live.owner.delete(self.path).raise_for_status()

    def output(self, stream: str = "stdout") -> str:
        """Return what its process has written."""
        query = {"follow": "false", "stream": stream}
        return str(self.live.owner.get(f"{self.path}/output", params=query).raise_for_status().text)

    def says(self, text: str, seconds: float = 20) -> Self:
        """Return once its process has written a text."""
        wait_for(lambda: text in self.output(), seconds)
        return self

    def events(self) -> list[dict[str, Any]]:
        """Return everything that is recorded of it."""
        return self.live.events(sessionId=self.id)

    def story(self) -> list[str]:
        """Return everything that is recorded of it, in a few words each."""
        return [told(event) for event in self.events()]

    def tells(self, *story: str) -> Self:
        """Return once exactly this is recorded of it."""
        try:
            wait_for(lambda: self.story() == [*story])
        except AssertionError:
            assert self.story() == [*story]
        return self

    # --- as the system sees it

    @property
    def pids(self) -> list[int]:
        """Everything that runs for it, the wrapper too."""
        return marked(self.id)

    @property
    def tree(self) -> list[int]:
        """Everything that runs for it but the wrapper and its keeper."""
        try:
            own = {int((self.directory / name).read_text().split()[1]) for name in ("wrapper", "keeper")}
        except (FileNotFoundError, IndexError):  # a run that has only begun
            return []
        return [pid for pid in self.pids if pid not in own]

    def stopped(self) -> bool:
        """Return whether every process of its tree, of which there is one at least, is stopped."""
        return {is_stopped(pid) for pid in self.tree} == {True}

    def goes_on(self) -> bool:
        """Return whether no process of its tree is stopped."""
        return {is_stopped(pid) for pid in self.tree} == {False}

    @property
    def token_in_file(self) -> str:
        """What the process finds in its token file."""
        return (self.directory / "token").read_text().strip()

    def wait_closed(self) -> Self:
        """Return once it is CLOSED; nothing of it may be left then."""
        self.wait("CLOSED")
        assert self.pids == []
        return self


class ScriptedClaude(Supervised):
    """A session whose command is the `claude` of `scripted_claude.py`.

    Args:
        live: the daemon.
        made: the answer to its creation.
        files: the directory of its files.
    """

    def __init__(self, live: LiveDaemon, made: dict[str, Any], files: Path) -> None:
        super().__init__(live, made)
        self._files = files
        self.environment = {"SCRIPTED": str(files)}
        """What it cannot do without."""

    def script(self, **turn: Any) -> Self:
        """Say what it does with the messages that it gets from now on."""
        _replace(self._files / "turn", turn)
        return self

    def script_start(self, **start: Any) -> Self:
        """Say what it does when it is started the next time."""
        _replace(self._files / "start", start)
        return self

    def release(self, name: str) -> None:
        """Let it go on that waits for a file."""
        (self._files / name).touch()

    def forget(self, external_id: str) -> None:
        """Make it forget a conversation."""
        (self._files / f"kept-{external_id}").unlink()

    def notes(self, kind: str) -> list[Any]:
        """Return what it noted: `run`, `got` or `end`."""
        return [one[kind] for one in map(json.loads, _read(self._files / "notes").splitlines()) if kind in one]

    @property
    def external_ids(self) -> list[str]:
        """The id of the conversation of each run."""
        return [run[run.index("--resume" if "--resume" in run else "--session-id") + 1] for run in self.notes("run")]


def _replace(path: Path, what: dict[str, Any]) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(what))
    beside.replace(path)


class Desk:
    """Makes sessions with processes, and ends them after the test.

    Args:
        live: the daemon.
        workspace: where their processes work.
    """

    def __init__(self, live: LiveDaemon, workspace: Path) -> None:
        self.live = live
        self.workspace = workspace
        self.made: list[Supervised] = []

    def ask(self, *command: str, agent: str | None = None, **body: Any) -> httpx.Response:
        """Ask for a session.

        Args:
            command: of its process; what `process` says otherwise.
            agent: id; a new one when None.
            body: further fields.
        """
        body["process"] = {"command": list(command), "workingDir": str(self.workspace), **body.get("process", {})}
        return self.live.owner.post("/v1/sessions", json={**body, "agentId": agent or self.live.new_agent()})

    def make(self, *command: str, agent: str | None = None, **body: Any) -> Supervised:
        """Make a session, and return it before its process runs; arguments as of `ask`."""
        self.made.append(Supervised(self.live, self.ask(*command, agent=agent, **body).raise_for_status().json()))
        return self.made[-1]

    def run(self, *command: str, agent: str | None = None, **process: Any) -> Supervised:
        """Make a session, and return it once its process runs; further arguments are those of `process`."""
        return self.make(*command, agent=agent, process=process).wait("READY")

    def sh(self, script: str, **process: Any) -> Supervised:
        """As `run`, with a shell's script."""
        return self.run("sh", "-c", script, **process)

    def make_claude(
        self,
        *,
        agent: str | None = None,
        process: dict[str, Any] | None = None,
        start: dict[str, Any] | None = None,
        **body: Any,
    ) -> ScriptedClaude:
        """Make a session of a scripted `claude`, and return it before it runs."""
        files = self.workspace / uuid.uuid4().hex
        files.mkdir()
        if start is not None:
            _replace(files / "start", start)
        asked = {"command": "claude", **(process or {})}
        asked["environment"] = {"SCRIPTED": str(files), **asked.get("environment", {})}
        made = self.ask(agent=agent, process=asked, **body).raise_for_status().json()
        self.made.append(ScriptedClaude(self.live, made, files))
        return self.made[-1]  # type: ignore[return-value]

    def claude(
        self, *, agent: str | None = None, start: dict[str, Any] | None = None, **process: Any
    ) -> ScriptedClaude:
        """As `make_claude`, but return it once it runs."""
        made = self.make_claude(agent=agent, start=start, process=process).wait("READY")
        wait_for(lambda: made.notes("run"))
        return made

    def close(self) -> None:
        """End every session; each must have lived by the one table, and nothing of it may be left."""
        alive = [one for one in self.made if one.state != "CLOSED"]
        with ThreadPoolExecutor(8) as several:  # what is killed at about the same time is killed together
            answers = list(several.map(lambda one: one.post("kill"), alive))
        for one, answer in zip(alive, answers, strict=True):
            assert answer.json().get("state") == "CLOSED", (answer.text, one.story(), one.pids)
        for one in self.made:
            assert steps(one.events())[-1][1] == one.state == "CLOSED"
            assert one.pids == []


def ticked(live: LiveDaemon) -> None:
    """Return once every process was held against its limits by a look that began after this call."""

    async def looks(daemon: Daemon) -> None:
        (worker,) = (one for one in daemon.parts.workers._workers if one.name == "processes")
        for _ in range(2):  # the first may have begun before
            worker.last_run = None
            worker.woken.set()
            while worker.last_run is None:
                await asyncio.sleep(0.002)

    live.call(looks)


def pass_time(live: LiveDaemon, seconds: float) -> None:
    """Let time pass, and every limit be looked at."""
    live.time.advance(seconds)
    ticked(live)


def heard(live: LiveDaemon, hook: FakeWebhook, session: Supervised) -> list[dict[str, Any]]:
    """Return what the owner was told of a session, once all is told: the type of each event, and its fields."""
    drained(live)
    mine = [one.body for one in hook.messages if one.body["data"].get("sessionId") == session.id]
    return [{"type": one["type"], **one["data"]} for one in mine]


def kill9(pid: int) -> None:
    """Kill a process from outside."""
    os.kill(pid, signal.SIGKILL)


def code(answer: httpx.Response) -> tuple[int, str | None]:
    """Return the status of an answer and the code of its problem."""
    return answer.status_code, answer.json().get("code")
