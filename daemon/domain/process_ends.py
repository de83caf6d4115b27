"""The end of a supervised process, and what follows from it."""

import msgspec

from daemon.domain import lifecycle, turns
from daemon.domain.changes import Outcome, Rows
from daemon.domain.lifecycle import transition
from daemon.domain.process_config import read
from daemon.domain.process_rows import Process
from daemon.domain.processes import ALIVE, require, updated
from daemon.domain.rows import Session

MAX_FAILURES = 5
"""Failures in a row after which a process is not started again: the breaker."""
FIRST_BACKOFF = 1
LONGEST_BACKOFF = 300
"""Seconds between a failure and the next start: they double from the first to the longest."""
STEADY = 600
"""Seconds that a run must last for the failures before it to be forgotten."""

_REASONS = {"process_exited": "exited", "kill_switch": "kill_switch", "killed": "killed", "duration": "duration"}


class End(msgspec.Struct, frozen=True):
    """How a process ended; nothing of its tree is left.

    Args:
        exit_code, signal: of the command; both None where nobody knows.
        reason: why it was ended, where the daemon did it for a limit.
        entered: whether the message of the running turn had reached it.
        on_purpose: whether the daemon ended it while its session lives on.
        unresumed: whether it ended because there was nothing to resume.
    """

    exit_code: int | None = None
    signal: int | None = None
    reason: str | None = None
    entered: bool = True
    on_purpose: bool = False
    unresumed: bool = False


def finished(rows: Rows, now: int, *, end: End) -> Outcome[None]:
    """Note that nothing of the process is left, and what follows from that.

    A session that was closing is CLOSED; one whose process was to rest lives on; after exit code 0 it is over;
    everything else is a failure, after which the process is started again if that was asked for.
    """
    session, process = require(rows)
    if session.state in {"CLOSED", "ERROR"}:
        return Outcome(answer=None)
    if session.state == "CLOSING":
        return _closed(rows, session, process, now, end)
    if process.rest is not None or end.on_purpose:
        return _rested(rows, session, process, now, end)
    if end.exit_code == 0 and end.reason is None and session.state in ALIVE | {"SUSPENDED"}:
        session, facts = lifecycle.end(session, now, reason="process_exited")
        closed = _closed(rows, session, process, now, end)
        return msgspec.structs.replace(closed, facts=(*facts, *closed.facts))
    return _failed(rows, session, process, now, end)


def _ran(process: Process, now: int) -> int:
    return now - process.started_at if process.started_at is not None else 0


def _over(process: Process, now: int, end: End, reason: str) -> Process:
    return msgspec.structs.replace(
        process,
        pid=None,
        wrapper_pid=None,
        wrapper_started=None,
        boot_id=None,
        ended_at=now,
        exit_code=end.exit_code,
        signal=end.signal,
        reason=reason,
    )


def _closed(rows: Rows, session: Session, process: Process, now: int, end: End) -> Outcome[None]:
    cause = session.revoked_reason or "expired"
    reason = end.reason or _REASONS.get(cause, "expired" if session.revoked_at is None else "revoked")
    over = turns.abandoned(rows.turns, now, unknown=end.entered)
    told = {"reason": reason, "exit_code": end.exit_code, "signal": end.signal, **turns.told(over)}
    closed, facts = transition(session, "CLOSED", now, **told)
    return Outcome(
        answer=None,
        session=closed,
        process=_over(process, now, end, reason),
        turns=over,
        facts=facts,
    )


def _rested(rows: Rows, session: Session, process: Process, now: int, end: End) -> Outcome[None]:
    """Let the session live on without its process; a turn that had not reached it is for its next run."""
    why = process.rest or "restart"
    over = _over(process, now, end, why)
    if why == "restart":
        over = msgspec.structs.replace(over, rest=None)
    lost = turns.lost(rows.turns, now, entered=True) if end.entered else ()
    facts = updated(session)
    if lost and session.state == "ACTIVE":
        session, facts = transition(session, "IDLE", now, turn=lost[0].turn, outcome="unknown")
    return Outcome(answer=None, session=session, process=over, turns=lost, facts=facts)


def _failed(rows: Rows, session: Session, process: Process, now: int, end: End) -> Outcome[None]:
    reason = end.reason or "crashed"
    failures = 1 if _ran(process, now) >= STEADY else process.failures + 1
    over = _over(process, now, end, reason)
    if end.unresumed:  # next time it begins a conversation of its own
        over = msgspec.structs.replace(over, resumable=False)
    # What was suspended, by its owner or for its budget, must not come back by itself.
    again = read(process.config).restart == "on-failure" and failures <= MAX_FAILURES and session.state != "SUSPENDED"
    backoff = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2 ** (failures - 1))
    over = msgspec.structs.replace(
        over, failures=failures, restart_at=now + backoff if again else None, suspended_by=None
    )
    lost = turns.lost(rows.turns, now, entered=end.entered)
    failed, facts = transition(
        session,
        "ERROR",
        now,
        reason=reason,
        exit_code=end.exit_code,
        signal=end.signal,
        restarts=process.restarts,
        restart_at=over.restart_at,
        **turns.told(lost),
    )
    return Outcome(answer=None, session=failed, process=over, turns=lost, facts=facts)
