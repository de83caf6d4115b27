"""The two sides of a change: reading what it named, writing what it decided."""

from typing import Any

from daemon.domain.changes import Outcome, Rows, Scope
from daemon.domain.events import Origin
from daemon.stores.sqlite import agents, sessions, values
from daemon.stores.sqlite.writer import Transaction

IDEMPOTENCY_SECONDS = 86_400


def load(tx: Transaction, scope: Scope) -> Rows:
    """Read what a change asked to see."""
    raw, rows = tx.raw, Rows()
    if scope.session is not None:
        rows.session = sessions.get(raw, scope.session)
        if scope.sealed_for and rows.session and rows.session.previous_token_hash == scope.sealed_for:
            sealed = sessions.sealed_answer(raw, scope.session)
            rows.retry_answer = sealed.box if sealed else None
    agent_id = scope.agent or (rows.session.agent_id if rows.session else None)
    if agent_id is not None:
        rows.agent = agents.get(raw, agent_id)
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
    return rows


def write(tx: Transaction, rows: Rows, outcome: Outcome[Any], origin: Origin) -> None:
    """Write what was decided: rows first, then its events."""
    raw = tx.raw
    if outcome.new_agent is not None:
        agents.insert(raw, outcome.new_agent)
    if outcome.agent is not None:
        agents.update(raw, outcome.agent)
    if outcome.new_session is not None:
        sessions.insert(raw, outcome.new_session)
        if outcome.idempotency_key is not None:
            values.remember_key(raw, outcome.idempotency_key, outcome.new_session.id, tx.now)
    if outcome.session is not None and rows.session is not None:
        sessions.update(raw, rows.session, outcome.session, outcome.retry_answer)
    if outcome.sessions:
        before = {session.id: session for session in rows.sessions}
        for session in outcome.sessions:
            sessions.update(raw, before[session.id], session)
    for key, value in (outcome.values or {}).items():
        values.put(raw, key, value, tx.now)
    tx.chain.append(outcome.facts, origin)
