"""The life of a supervised session: every step that its process, the owner or a limit makes it take."""

import msgspec

from daemon.domain import lifecycle, pool, turns
from daemon.domain.changes import Outcome, Rows
from daemon.domain.errors import (
    AGENT_NOT_ACTIVE,
    INVALID_STATE_TRANSITION,
    NOT_SUPERVISED,
    SESSION_NOT_FOUND,
    DaemonError,
)
from daemon.domain.events import Fact
from daemon.domain.facts.sessions import SessionUpdated
from daemon.domain.lifecycle import transition
from daemon.domain.process_rows import Process, Rest, Supervised, Suspender
from daemon.domain.rows import Session
from daemon.domain.states import TRANSITIONS

ALIVE = frozenset({"READY", "ACTIVE", "IDLE"})
"""States in which a session's process runs, unless it rests."""

_KILLING = frozenset({"kill_switch", "killed", "shutdown"})


class Started(msgspec.Struct, frozen=True):
    """A process that was just started.

    Args:
        pid: of the command.
        wrapper_pid, wrapper_started, boot_id: which process of the system watches it.
        config, secrets: as they were stored when it was started.
    """

    pid: int
    wrapper_pid: int
    wrapper_started: str
    boot_id: str
    config: str
    secrets: str | None


def require(rows: Rows) -> tuple[Session, Process]:
    """Return a session and its process.

    Raises:
        DaemonError: SESSION_NOT_FOUND; INVALID_STATE_TRANSITION where it has no process.
    """
    if rows.session is None:
        raise DaemonError(SESSION_NOT_FOUND)
    if rows.process is None:
        raise DaemonError(NOT_SUPERVISED, details={"from": rows.session.state, "to": None, "allowed": []})
    return rows.session, rows.process


def skips_grace(session: Session) -> bool:
    """Return whether a session that is closing is killed at once."""
    return session.revoked_reason in _KILLING


def is_wanted(session: Session, process: Process, now: int) -> bool:
    """Return whether a session's process is to run now."""
    if session.state == "ERROR":
        return process.restart_at is not None and now >= process.restart_at
    if session.state in ALIVE:
        return process.rest is None
    return session.state in {"CREATED", "INITIALIZING"}


def begin(rows: Rows, now: int, *, external_id: str) -> Outcome[Supervised | None]:
    """Note that the process is about to be started; the answer is what it is started for, None: it is not.

    Args:
        rows: the session, its agent, its process and its turns.
        now: Unix seconds.
        external_id: under which the command shall keep its conversation if there is none to resume.
    """
    session, process = require(rows)
    facts: tuple[Fact, ...] = ()
    if rows.agent is None or process.pid is not None or not is_wanted(session, process, now):
        return Outcome(answer=None)
    if session.state in {"CREATED", "ERROR"}:
        session, facts = transition(session, "INITIALIZING", now)
    begun = msgspec.structs.replace(
        process,
        run=process.run + 1,
        external_id=process.external_id if process.resumable else external_id,
        started_at=None,
        ended_at=None,
        restart_at=None,
        exit_code=None,
        signal=None,
        reason=None,
        run_usage=None,
        restarts=process.restarts + (process.restart_at is not None),
    )
    answer = Supervised(session, rows.agent, begun, rows.turns)
    return Outcome(answer=answer, session=session, process=begun, facts=facts or updated(session))


def started(rows: Rows, now: int, *, running: Started) -> Outcome[None]:
    """Note that the process runs; a session that waited for it is READY, and its next turn begins."""
    session, process = require(rows)
    changed = (process.config, process.secrets) != (running.config, running.secrets)
    process = msgspec.structs.replace(
        process,
        rest="restart" if changed else process.rest,
        pid=running.pid,
        wrapper_pid=running.wrapper_pid,
        wrapper_started=running.wrapper_started,
        boot_id=running.boot_id,
        started_at=now,
        ended_at=None,
    )
    facts: tuple[Fact, ...] = updated(session)
    if session.state == "INITIALIZING":
        session, facts = transition(session, "READY", now)
    may_begin = session.state in {"READY", "IDLE"} and process.rest is None
    begun = turns.next_turn(session, rows.turns, now) if may_begin else turns.Begun(session)
    return Outcome(answer=None, session=begun.session, process=process, turns=begun.turns, facts=(*facts, *begun.facts))


def updated(session: Session) -> tuple[Fact, ...]:
    """Return the fact of a change that is no step of the session's life."""
    return (SessionUpdated(agent_id=session.agent_id, session_id=session.id, fields=("process",)),)


def read_to(rows: Rows, _now: int, *, offset: int) -> Outcome[None]:
    """Note how far the output was read: no change of the session, and no event."""
    _, process = require(rows)
    return Outcome(answer=None, process=msgspec.structs.replace(process, output_offset=offset))


def rest(rows: Rows, now: int, *, why: Rest) -> Outcome[bool]:
    """Let a process that has nothing to do be ended; its session lives on. The answer is whether it may be."""
    session, process = require(rows)
    if session.state not in {"READY", "IDLE", "SUSPENDED"} or process.rest is not None:
        return Outcome(answer=False)
    facts: tuple[Fact, ...] = ()
    if why == "idle":
        if session.state == "SUSPENDED":
            return Outcome(answer=False)
        session, facts = transition(session, "SUSPENDED", now, reason="idle", by="idle")
        process = msgspec.structs.replace(process, suspended_by="idle")
    resting = msgspec.structs.replace(process, rest=why)
    return Outcome(answer=True, session=session, process=resting, facts=facts or updated(session))


def suspend(rows: Rows, now: int, *, by: Suspender) -> Outcome[bool]:
    """Suspend a session whose process must not go on; the answer is whether it was changed."""
    session, process = require(rows)
    if session.state not in ALIVE:
        return Outcome(answer=False)
    session, facts = transition(session, "SUSPENDED", now, reason=by, by=by)
    stopped = msgspec.structs.replace(process, suspended_by=by)
    return Outcome(answer=True, session=session, process=stopped, facts=facts)


def resume(rows: Rows, now: int, *, reason: str | None) -> Outcome[Session]:
    """Let a session go on that was suspended because its agent was."""
    session, process = require(rows)
    if session.state != "SUSPENDED" or process.suspended_by != "agent":
        return Outcome(answer=session)
    if turns.is_spent(session, process):
        stays = msgspec.structs.replace(process, suspended_by="budget")
        return Outcome(answer=session, process=stays, facts=updated(session))
    return resumed(rows, session, process, now, reason)


def resumed(rows: Rows, session: Session, process: Process, now: int, reason: str | None) -> Outcome[Session]:
    """Return a suspended session as READY, or with the turn in which it was suspended as ACTIVE."""
    session, facts = transition(session, "READY", now, reason=reason)
    going_on = turns.go_on(session, rows.turns, now, restarts=process.rest == "restart")
    # What made room for another stays ended until there is something to do.
    called = process.rest == "idle" or (process.rest == "pool" and going_on.session.state == "ACTIVE")
    process = msgspec.structs.replace(process, suspended_by=None, rest=None if called else process.rest)
    return Outcome(
        answer=going_on.session,
        session=going_on.session,
        process=process,
        turns=going_on.turns,
        facts=(*facts, *going_on.facts),
    )


def resumed_by_owner(
    rows: Rows, session: Session, process: Process, now: int, *, reason: str | None, places: pool.Limits
) -> Outcome[Session]:
    """Let a session go on as its owner wishes; one whose process failed begins again, as if it never had.

    Raises:
        DaemonError: INVALID_STATE_TRANSITION, PROCESS_LIMIT_EXCEEDED.
    """
    if rows.agent is not None and rows.agent.status != "ACTIVE":
        raise DaemonError(AGENT_NOT_ACTIVE)
    if session.state == "ERROR":
        turns.require_budget(session, process)
        room = pool.make_room(rows.pool, session.id, session.agent_id, places)
        again = msgspec.structs.replace(process, restart_at=now, failures=0, rest=None)
        return Outcome(answer=session, process=again, room=room, facts=(*pool.given_up(room), *updated(session)))
    require_suspended(session)
    turns.require_budget(session, process)
    made = resumed(rows, session, process, now, reason)
    still_resting = made.process is not None and made.process.rest == "pool"
    if not still_resting and (process.pid is None or process.rest is not None):
        made.room = pool.make_room(rows.pool, session.id, session.agent_id, places)
        made.facts = (*pool.given_up(made.room), *made.facts)
    return made


def require_suspended(session: Session) -> None:
    """Refuse to resume what is not suspended.

    Raises:
        DaemonError: INVALID_STATE_TRANSITION.
    """
    if session.state != "SUSPENDED":
        raise DaemonError(
            INVALID_STATE_TRANSITION,
            f"A session in state {session.state} cannot be resumed.",
            details={"from": session.state, "to": "READY", "allowed": list(TRANSITIONS[session.state])},
        )


def close(rows: Rows, now: int, *, reason: str) -> Outcome[bool]:
    """End a session for a limit of its process; the answer is whether it was changed."""
    session, _ = require(rows)
    if session.revoked_at is not None or session.expired_at is not None:
        return Outcome(answer=False)
    ended, facts = lifecycle.end(session, now, reason=reason)
    return Outcome(answer=True, session=ended, facts=facts)
