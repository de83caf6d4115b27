"""The two sides of a change: reading what it named, writing what it decided."""

from collections.abc import Sequence
from typing import Any

from daemon.domain.changes import Outcome, Rows, Scope
from daemon.domain.errors import SYSTEM_LOCKED, DaemonError
from daemon.domain.events import Fact, Origin
from daemon.domain.kill_switch import KEY as KILL_SWITCH
from daemon.domain.kill_switch import is_on
from daemon.domain.notifications import deliveries, level_of
from daemon.stores.sqlite import (
    agents,
    answers,
    conversations,
    events,
    notifications,
    processes,
    sessions,
    values,
    verifiers,
)
from daemon.stores.sqlite.writer import Transaction
from daemon.stores.terms import Telling

IDEMPOTENCY_SECONDS = 86_400


def load(tx: Transaction, scope: Scope) -> Rows:
    """Read what a change asked to see.

    Raises:
        DaemonError: SYSTEM_LOCKED, unless the change may be made while the kill switch is on.
    """
    raw, rows = tx.raw, Rows()
    if not scope.while_locked and _is_locked(tx):
        raise DaemonError(SYSTEM_LOCKED)
    if scope.session is not None:
        rows.session, rows.agent = sessions.with_agent(raw, scope.session) or (None, None)
        if scope.sealed_for and rows.session and rows.session.previous_token_hash == scope.sealed_for:
            sealed = sessions.sealed_answer(raw, scope.session)
            rows.retry_answer = sealed.box if sealed else None
        if rows.session is not None and rows.session.parent_id is not None:
            rows.ancestors = sessions.ancestors(raw, scope.session)
    if scope.agent is not None:
        rows.agent = agents.get(raw, scope.agent)
    if scope.active_sessions_of is not None:
        rows.active_sessions = sessions.count_active_of(raw, scope.active_sessions_of, tx.now)
    if scope.public_key is not None:
        rows.key_holder = agents.by_public_key(raw, scope.public_key)
    if scope.idempotency_key is not None:
        rows.idempotent_session = values.session_of_key(raw, scope.idempotency_key, tx.now - IDEMPOTENCY_SECONDS)
    if scope.pick is not None:
        rows.sessions = sessions.pick(raw, scope, tx.now)
    for key in scope.values:
        if (value := values.get(raw, key)) is not None:
            rows.values[key] = value
    _load_more(tx, scope, rows)
    return rows


def _load_more(tx: Transaction, scope: Scope, rows: Rows) -> None:
    """Read what only a few changes ask for."""
    raw = tx.raw
    if scope.ends:
        tops = [one.id for one in (rows.session, *rows.sessions) if one is not None]
        rows.descendants = sessions.descendants(raw, tops) if tops else []
    if scope.delegating and rows.session is not None:
        rows.children, rows.relatives = sessions.count_below(raw, rows.session, tx.now)
    if scope.active_agents:
        rows.agents += agents.of_status(raw, "ACTIVE")
    if scope.suspended_by is not None:
        rows.agents += agents.suspended_by(raw, scope.suspended_by)
    if scope.incidents_of is not None:
        rows.incident_minutes = events.incident_minutes(raw, scope.incidents_of, tx.now)
    if scope.answer is not None:
        rows.answer = answers.get(raw, scope.answer)
    if scope.channels:
        rows.channels = notifications.channels(raw)
    if scope.verifiers:
        rows.verifiers = verifiers.find(raw, None)
    if scope.conversation is not None:
        rows.conversation = conversations.get(raw, scope.conversation)
    if scope.process and rows.session is not None and rows.session.supervised:
        rows.process, rows.turns = processes.get(raw, rows.session.id), processes.turns(raw, rows.session.id)
    if scope.pool_of is not None:
        rows.pool = processes.pool(raw, scope.pool_of)


def _is_locked(tx: Transaction) -> bool:
    """Return whether the kill switch is on, as of this very transaction; read once a batch."""
    if tx.locked is None:
        tx.locked = is_on(values.get(tx.raw, KILL_SWITCH))
    return tx.locked


def write(tx: Transaction, rows: Rows, outcome: Outcome[Any], origin: Origin, telling: Telling) -> bool:
    """Write what was decided: rows first, then its events, then messages about them; return whether there are any."""
    raw = tx.raw
    if outcome.new_agent is not None:
        agents.insert(raw, outcome.new_agent)
    if outcome.agent is not None:
        agents.update(raw, outcome.agent)
    for agent in outcome.agents:
        agents.update(raw, agent)
    if outcome.new_session is not None:
        sessions.insert(raw, outcome.new_session)
        if outcome.idempotency_key is not None:
            values.remember_key(raw, outcome.idempotency_key, outcome.new_session.id, tx.now)
    if outcome.session is not None and rows.session is not None:
        sessions.update(raw, rows.session, outcome.session, outcome.retry_answer)
    if outcome.sessions:
        before = {session.id: session for session in (*rows.sessions, *rows.descendants)}
        for session in outcome.sessions:
            sessions.update(raw, before[session.id], session)
    for key, value in (outcome.values or {}).items():
        values.put(raw, key, value, tx.now)
        if key == KILL_SWITCH:
            tx.locked = None
    if outcome.conversation is not None:
        conversations.put(raw, outcome.conversation)
    if outcome.gone_conversation is not None:
        conversations.delete(raw, outcome.gone_conversation)
    _write_processes(tx, rows, outcome)
    _write_verifiers(tx, outcome)
    _write_messages(tx, outcome)
    seq = tx.chain.head.seq
    tx.chain.append(outcome.facts, origin)
    return telling.enabled and _tell(tx, outcome.facts, seq, telling.dedup_ttl)


def _write_processes(tx: Transaction, rows: Rows, outcome: Outcome[Any]) -> None:
    if outcome.new_process is not None:
        processes.insert(tx.raw, outcome.new_process)
    if outcome.process is not None and rows.process is not None:
        processes.update(tx.raw, rows.process, outcome.process)
    if outcome.room is not None:
        processes.rest(tx.raw, outcome.room.session_id)
    if outcome.turns:
        processes.put_turns(tx.raw, outcome.turns)


def _write_verifiers(tx: Transaction, outcome: Outcome[Any]) -> None:
    if outcome.new_verifier is not None:
        verifiers.insert(tx.raw, outcome.new_verifier)
    if outcome.verifiers:
        verifiers.update(tx.raw, outcome.verifiers)


def _write_messages(tx: Transaction, outcome: Outcome[Any]) -> None:
    if outcome.new_channel is not None:
        notifications.insert_channel(tx.raw, outcome.new_channel)
        tx.channels = None
    if outcome.channel is not None:
        notifications.update_channel(tx.raw, outcome.channel)
        tx.channels = None
    if outcome.attempts:
        notifications.log(tx.raw, outcome.attempts)
    if outcome.settled is not None:
        notifications.settle(tx.raw, outcome.settled, tx.now)
    if outcome.new_answers:
        answers.insert(tx.raw, outcome.new_answers)
    if outcome.used_answer is not None:
        answers.use(tx.raw, outcome.used_answer)
    if outcome.spent_answers_of is not None:
        answers.end_of_session(tx.raw, outcome.spent_answers_of, tx.now)


def _tell(tx: Transaction, facts: Sequence[Fact], seq: int, dedup_ttl: int) -> bool:
    """Put messages about facts into the outbox; `seq` is that of the event before the first fact."""
    told = False
    for number, fact in enumerate(facts, seq + 1):
        if level_of(fact) is None:
            continue
        if tx.channels is None:
            tx.channels = notifications.channels(tx.raw)
        if tx.channels:
            notifications.enqueue(tx.raw, deliveries(fact, number, tx.now, tx.channels), dedup_ttl)
            told = True
    return told
