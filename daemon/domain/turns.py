"""Turns: messages to a supervised session, one at a time, the others queued; none begins twice."""

from collections.abc import Sequence
from typing import Any

import msgspec

from daemon.domain import pool, usage
from daemon.domain.changes import Outcome, Rows
from daemon.domain.errors import INVALID_STATE_TRANSITION, SESSION_BUSY, DaemonError
from daemon.domain.events import Fact
from daemon.domain.facts.sessions import BudgetWarning, SessionUpdated
from daemon.domain.lifecycle import transition
from daemon.domain.process_config import read
from daemon.domain.process_rows import Place, Process, Turn, TurnState
from daemon.domain.process_views import SentMessage
from daemon.domain.rows import Session
from daemon.domain.usage import Usage

MAX_QUEUED = 16
"""Messages that wait for their turn."""

_TAKING = frozenset({"READY", "IDLE"})
_WAITING = frozenset({"CREATED", "INITIALIZING", "ACTIVE", "SUSPENDED"}) | _TAKING


class Begun(msgspec.Struct, frozen=True):
    """A session, the turns that changed with it, and the facts of that."""

    session: Session
    turns: tuple[Turn, ...] = ()
    facts: tuple[Fact, ...] = ()


class TurnEnd(msgspec.Struct, frozen=True):
    """How a turn ended, as the command's output tells.

    Args:
        outcome: of the turn; None: the command did something of its own accord.
        run_usage: of this run so far; None: it said nothing of it.
        output_offset: bytes of standard output that were read with it.
        resumable: whether the command has kept the conversation.
        turn: which one; None: the one that runs.
    """

    outcome: TurnState | None
    output_offset: int
    run_usage: Usage | None = None
    resumable: bool = False
    turn: int | None = None


def send(
    rows: Rows, session: Session, process: Process, now: int, *, content: str, queue: bool, limits: pool.Limits
) -> Outcome[SentMessage]:
    """Begin a turn with a message, or queue it; a process that rests is called back for it.

    No turn begins while the process is to begin again: what it says last would be taken for the turn's.

    Args:
        rows: the turns that are not over, and the pool.
        session, process: to which it is sent.
        now: Unix seconds.
        content: the message.
        queue: whether it may wait for its turn.
        limits: of the pool.

    Raises:
        DaemonError: SESSION_BUSY, INVALID_STATE_TRANSITION, PROCESS_LIMIT_EXCEEDED.
    """
    require_budget(session, process)
    number = process.last_turn + 1
    turn = Turn(session.id, number, "QUEUED", content, now)
    told = msgspec.structs.replace(process, last_turn=number)
    answer = SentMessage(turn=number)
    facts: tuple[Fact, ...] = ()
    if session.state == "SUSPENDED" and process.suspended_by == "idle":
        session, facts = transition(session, "READY", now, reason="message")
        told = msgspec.structs.replace(told, suspended_by=None)
    if session.state in _TAKING and told.rest != "restart":
        begun, room = next_turn(session, [*rows.turns, turn], now), _room_for(rows, session, process, limits)
        later = () if begun.turns[0].turn == number else (turn,)  # others may wait since the process began again
        return Outcome(
            answer=answer,
            session=begun.session,
            process=msgspec.structs.replace(told, rest=None),
            turns=(*begun.turns, *later),
            room=room,
            facts=(*pool.given_up(room), *facts, *begun.facts),
        )
    _require_queue(session, rows.turns, queue=queue or session.state in _TAKING)
    fact = SessionUpdated(agent_id=session.agent_id, session_id=session.id, fields=("turns",))
    return Outcome(answer=answer, session=session, process=told, turns=(turn,), facts=(*facts, fact))


def _room_for(rows: Rows, session: Session, process: Process, limits: pool.Limits) -> Place | None:
    """Return the place that is given up, where this process has none."""
    if process.pid is not None and process.rest is None:
        return None
    return pool.make_room(rows.pool, session.id, session.agent_id, limits)


def _require_queue(session: Session, turns: Sequence[Turn], *, queue: bool) -> None:
    if session.state not in _WAITING:
        raise DaemonError(
            INVALID_STATE_TRANSITION,
            f"A session in state {session.state} takes no message.",
            details={"from": session.state, "to": "ACTIVE", "allowed": []},
        )
    waiting = sum(turn.state == "QUEUED" for turn in turns)
    if not queue or waiting >= MAX_QUEUED:
        detail = f"{waiting} messages wait already." if queue else None
        raise DaemonError(SESSION_BUSY, detail, details={"state": session.state, "queued": waiting}, retry_after=1)


def next_turn(session: Session, turns: Sequence[Turn], now: int) -> Begun:
    """Begin the turn that has waited longest, if there is one."""
    waiting = [turn for turn in turns if turn.state == "QUEUED"]
    if not waiting:
        return Begun(session)
    first = min(waiting, key=lambda turn: turn.turn)
    session, facts = _activated(session, first.turn, now)
    return Begun(session, (msgspec.structs.replace(first, state="RUNNING", started_at=now),), facts)


def go_on(session: Session, turns: Sequence[Turn], now: int, *, restarts: bool) -> Begun:
    """Let a session that was resumed go on with the turn in which it was suspended, or begin the next one.

    Args:
        session: READY.
        turns: that are not over.
        now: Unix seconds.
        restarts: whether the process is to begin again first, and only then the next turn.
    """
    running = [turn.turn for turn in turns if turn.state == "RUNNING"]
    if not running:
        return Begun(session) if restarts else next_turn(session, turns, now)
    session, facts = _activated(session, running[0], now)
    return Begun(session, (), facts)


def _activated(session: Session, turn: int, now: int) -> tuple[Session, tuple[Fact, ...]]:
    first = session.state == "READY" and session.started_at is None
    told: dict[str, Any] = {} if first else {"turn": turn}  # SESSION_STARTED has no details
    return transition(session, "ACTIVE", now, **told)


def over(rows: Rows, session: Session, process: Process, now: int, *, end: TurnEnd) -> Outcome[None]:
    """Note that the running turn is over: usage, budget, and what comes next.

    Args:
        rows: the turns that are not over.
        session, process: whose turn it was.
        now: Unix seconds.
        end: how it ended.
    """
    running = next((turn for turn in rows.turns if turn.state == "RUNNING"), None) if end.outcome else None
    if running is not None and end.turn not in {None, running.turn}:
        running = None
    before = usage.read(process.run_usage)
    spent = Usage() if end.run_usage is None else end.run_usage.since(before)
    total = usage.read(session.usage_stats).plus(msgspec.structs.replace(spent, turns=int(running is not None)))
    process = msgspec.structs.replace(
        process,
        run_usage=process.run_usage if end.run_usage is None else msgspec.json.encode(end.run_usage).decode(),
        output_offset=max(process.output_offset, end.output_offset),
        resumable=process.resumable or end.resumable,
        turns=total.turns,
    )
    session = msgspec.structs.replace(session, usage_stats=msgspec.json.encode(total).decode())
    ended: tuple[Turn, ...] = ()
    facts: tuple[Fact, ...] = ()
    if running is not None and end.outcome is not None:
        ended = (_ended(running, end.outcome, now),)
        over: dict[str, Any] = {"turn": running.turn, "outcome": end.outcome.lower()}
        if session.state == "ACTIVE":
            session, facts = transition(session, "IDLE", now, **over)
        else:
            over |= {"agent_id": session.agent_id, "session_id": session.id}
            facts = (SessionUpdated(fields=("turns",), **over),)
    session, process, more = _held_against_budget(session, process, total, now)
    may_begin = session.state == "IDLE" and process.rest != "restart"
    begun = next_turn(session, rows.turns, now) if may_begin else Begun(session)
    return Outcome(
        answer=None,
        session=begun.session,
        process=process,
        turns=(*ended, *begun.turns),
        facts=(*facts, *more, *begun.facts),
    )


def _held_against_budget(
    session: Session, process: Process, total: Usage, now: int
) -> tuple[Session, Process, tuple[Fact, ...]]:
    """Warn once at most of a budget, and suspend at all of it."""
    share = usage.share(total, read(process.config).budget)
    if share is None or share.part < usage.WARN_AT:
        return session, process, ()
    facts: tuple[Fact, ...] = ()
    if process.warned_at is None:
        facts = (
            BudgetWarning(
                agent_id=session.agent_id,
                session_id=session.id,
                budget=share.budget,
                used=share.used,
                limit=share.limit,
            ),
        )
        process = msgspec.structs.replace(process, warned_at=now)
    if share.part >= 1 and session.state == "IDLE":
        session, suspended = transition(session, "SUSPENDED", now, reason="budget", by="budget")
        process = msgspec.structs.replace(process, suspended_by="budget")
        facts += suspended
    return session, process, facts


def is_spent(session: Session, process: Process) -> bool:
    """Return whether all of a session's budget is used."""
    share = usage.share(usage.read(session.usage_stats), read(process.config).budget)
    return share is not None and share.part >= 1


def require_budget(session: Session, process: Process) -> None:
    """Refuse to go on with a session that has used all of its budget.

    Raises:
        DaemonError: INVALID_STATE_TRANSITION.
    """
    if is_spent(session, process):
        raise DaemonError(
            INVALID_STATE_TRANSITION,
            "The session's budget is used up.",
            details={"from": session.state, "to": None, "allowed": []},
            hint='Raise it first: `PATCH /v1/sessions/{id}` with `{"process": {"budget": …}}`.',
        )


def _ended(turn: Turn, state: TurnState, now: int) -> Turn:
    return msgspec.structs.replace(turn, state=state, content=None, ended_at=now)


def lost(turns: Sequence[Turn], now: int, *, entered: bool) -> tuple[Turn, ...]:
    """Return what becomes of the running turn of a process that is gone: sent again only if it never got its line."""
    return tuple(
        _ended(turn, "UNKNOWN", now) if entered else msgspec.structs.replace(turn, state="QUEUED", started_at=None)
        for turn in turns
        if turn.state == "RUNNING"
    )


def told(turns: Sequence[Turn]) -> dict[str, Any]:
    """Return what an event tells of a turn that ended with its process; nothing where none ran."""
    over = [turn for turn in turns if turn.state in {"UNKNOWN", "INTERRUPTED"} and turn.started_at is not None]
    return {"turn": over[0].turn, "outcome": over[0].state.lower()} if over else {}


def interrupted(turns: Sequence[Turn], now: int) -> tuple[Turn, ...]:
    """Return the running turn as interrupted by the owner."""
    return tuple(_ended(turn, "INTERRUPTED", now) for turn in turns if turn.state == "RUNNING")


def abandoned(turns: Sequence[Turn], now: int, *, unknown: bool) -> tuple[Turn, ...]:
    """Return the turns of a session that is closed: none of them will be done."""
    return tuple(
        _ended(turn, "UNKNOWN" if turn.state == "RUNNING" and unknown else "INTERRUPTED", now) for turn in turns
    )
