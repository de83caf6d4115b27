"""Supervised processes as the API shows them."""

from daemon.domain import usage
from daemon.domain.process_config import read
from daemon.domain.process_rows import Process
from daemon.domain.rows import Session
from daemon.domain.states import State
from daemon.domain.usage import Usage
from daemon.domain.view import View


class ProcessView(View):
    """What the daemon runs for a session; `pid` only where it was just seen to run.

    `reason` says how it ended last; `usage` is over all its runs.
    """

    command: str | list[str]
    pid: int | None
    started_at: int | None
    exit_code: int | None
    signal: int | None
    reason: str | None
    restarts: int
    turns: int
    usage: Usage


class SentMessage(View):
    """A message was taken; its turn has this number."""

    turn: int


class KilledSession(View):
    """A session that was ended without grace; `processes_left` of its processes could not be ended in time."""

    id: str
    state: State
    exit_code: int | None
    signal: int | None
    processes_left: int


class RunningProcess(View):
    """A process that runs, with all its descendants; `rss` is in bytes, `cpu` in cores over the last seconds."""

    session_id: str
    agent_id: str
    command: str | list[str]
    pid: int
    processes: int
    rss: int
    cpu: float
    state: State
    since: int
    turns: int
    cost_usd: float


def view(session: Session, process: Process, *, seen: bool) -> ProcessView:
    """Return a session's process.

    Args:
        session: whose it is.
        process: as it is stored.
        seen: whether it was just seen to run.
    """
    return ProcessView(
        command=read(process.config).command,
        pid=process.pid if seen else None,
        started_at=process.started_at,
        exit_code=process.exit_code,
        signal=process.signal,
        reason=process.reason,
        restarts=process.restarts,
        turns=process.turns,
        usage=usage.read(session.usage_stats),
    )
