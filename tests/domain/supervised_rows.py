"""Rows of a supervised session, as the laws get them."""

import json
from typing import Any

import msgspec

from daemon.domain import session_creation
from daemon.domain.changes import Outcome, Rows
from daemon.domain.errors import DaemonError
from daemon.domain.pool import Limits
from daemon.domain.process_rows import Place, Process, Turn, TurnState
from daemon.domain.rows import Agent, Session
from daemon.domain.states import State
from daemon.domain.usage import Usage

NOW = 1_800_000_000
PLENTY = Limits(10, 5)
COLUMNS: dict[str, Any] = {
    "token_hash": "h",
    "expires_at": NOW + 3_600,
    "absolute_expires_at": NOW + 86_400,
    "created_at": NOW - 1_000,
    "ttl_seconds": 3_600,
}


def session(state: State = "IDLE", **more: Any) -> Session:
    """Return a session with a process; one that was ACTIVE before has a start."""
    started = None if state in {"CREATED", "INITIALIZING"} else NOW - 900
    columns = {**COLUMNS, "state": state, "started_at": started, "state_changed_at": NOW - 100, **more}
    return session_creation.blank("s", "a", **{"created_by": "process", "max_renewals": 30} | columns)


def config(command: str | list[str] = "claude", **more: Any) -> str:
    """Return a stored configuration."""
    return json.dumps({"command": command, "workingDir": "/w", **more})


def process(*, alive: bool = True, **more: Any) -> Process:
    """Return a process, which runs as pid 42 unless it is not alive."""
    running: dict[str, Any] = {"pid": 42, "wrapper_pid": 41, "wrapper_started": "7", "boot_id": "b"} if alive else {}
    usual = {"home": "home", "config": config(), "secrets": None, "external_id": "x", "run": 1, "started_at": NOW - 60}
    return Process(**{"session_id": "s", **usual, **running, **more})


def turn(number: int, state: TurnState = "QUEUED", **more: Any) -> Turn:
    """Return a turn that is not over."""
    began = NOW - 10 if state == "RUNNING" else None
    return Turn(**{"session_id": "s", "turn": number, "state": state, "content": f"message {number}",
                   "created_at": NOW - 20, "started_at": began, **more})  # fmt: skip


def place(name: str, agent: str = "a", state: State = "IDLE", since: int = NOW, command: Any = "claude") -> Place:
    """Return a place that is taken."""
    return Place(name, agent, state, since, config(command))


def rows(of: Session, its: Process | None, *turns: Turn, **more: Any) -> Rows:
    """Return what a law decides on."""
    return Rows(**{"session": of, "process": its, "turns": [*turns], "agent": Agent("a", "n", "ACTIVE"), **more})


def used(**counts: Any) -> str:
    """Return a stored usage."""
    return msgspec.json.encode(Usage(**counts)).decode()


def told(outcome: Outcome[Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the facts of an outcome in order: type, and what they tell."""
    found = []
    for fact in outcome.facts:
        fields = {
            name: getattr(fact, name) for name in fact.__struct_fields__ if name not in {"agent_id", "session_id"}
        }
        found.append((fact.type, {name: value for name, value in fields.items() if value not in (None, ())}))
    return found


def kinds(outcome: Outcome[Any]) -> list[str]:
    """Return the types of an outcome's facts."""
    return [fact.type for fact in outcome.facts]


def shown(outcome: Outcome[Any]) -> list[tuple[int, str, str | None]]:
    """Return the turns of an outcome: number, state, content."""
    return [(one.turn, one.state, one.content) for one in outcome.turns]


def details(error: DaemonError) -> dict[str, Any]:
    """Return the details of an error."""
    return dict(error.details or {})
