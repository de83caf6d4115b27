"""Supervised processes and their turns as they are stored, and the places that processes take."""

from typing import Literal

import msgspec

from daemon.domain.rows import Agent, Session
from daemon.domain.states import State

Suspender = Literal["owner", "agent", "budget", "idle", "output"]
"""What stopped a supervised session: the owner, that its agent was suspended, one of its limits."""
Rest = Literal["pool", "idle", "restart"]
"""Why a process is ended while its session lives on: to make room, for idleness, to begin again."""
TurnState = Literal["QUEUED", "RUNNING", "DONE", "FAILED", "INTERRUPTED", "UNKNOWN"]


class Process(msgspec.Struct, frozen=True, gc=False):
    """What the daemon runs for a session; `secrets` is sealed.

    Args:
        session_id: the session.
        home: id of the home whose daemon runs it.
        config: JSON of the configuration, but for its secrets.
        secrets: environment and OAuth token.
        external_id: under which the command keeps its conversation; recorded before it is started.
        resumable: whether there is anything under that id.
        rest: why the process is ended, or stays ended, while the session lives on.
        suspended_by: what stopped it, while it is suspended.
        run: how often it was started.
        pid: of the command; None: none is known to run.
        wrapper_pid, wrapper_started, boot_id: which process of the system watches the command.
        started_at, ended_at: Unix seconds, of the last run.
        exit_code, signal, reason: how the last run ended.
        failures: in a row, of which the owner was not told yet.
        restarts: begun after failures.
        restart_at: Unix seconds; when it is started again.
        last_turn: number of the newest turn.
        turns: that are over.
        output_offset: bytes of its standard output whose consequences are stored.
        run_usage: JSON of what this run has reported of its usage.
        warned_at: Unix seconds; when the owner was warned of the budget.
    """

    session_id: str
    home: str
    config: str
    secrets: str | None
    external_id: str
    resumable: bool = False
    rest: Rest | None = None
    suspended_by: Suspender | None = None
    run: int = 0
    pid: int | None = None
    wrapper_pid: int | None = None
    wrapper_started: str | None = None
    boot_id: str | None = None
    started_at: int | None = None
    ended_at: int | None = None
    exit_code: int | None = None
    signal: int | None = None
    reason: str | None = None
    failures: int = 0
    restarts: int = 0
    restart_at: int | None = None
    last_turn: int = 0
    turns: int = 0
    output_offset: int = 0
    run_usage: str | None = None
    warned_at: int | None = None

    def __repr__(self) -> str:
        return f"Process({self.session_id})"


class Turn(msgspec.Struct, frozen=True, gc=False):
    """One message to a session's process and what became of it; over, its content is forgotten."""

    session_id: str
    turn: int
    state: TurnState
    content: str | None
    created_at: int
    started_at: int | None = None
    ended_at: int | None = None

    def __repr__(self) -> str:
        return f"Turn({self.session_id}, {self.turn})"


class Place(msgspec.Struct, frozen=True, gc=False):
    """A process that takes one of the places of the pool.

    Args:
        session_id, agent_id, state: of its session.
        since: Unix seconds; when the session came into that state.
        config: of the process.
    """

    session_id: str
    agent_id: str
    state: State
    since: int
    config: str


class Supervised(msgspec.Struct, frozen=True):
    """A session with everything that decides what its process is to do.

    Args:
        session, agent, process: as stored.
        turns: that are not over, the oldest first.
    """

    session: Session
    agent: Agent
    process: Process
    turns: list[Turn]
