"""The two sides of a batch of changes: reading what they named under locks, writing what they decided.

Transactions are READ COMMITTED: each statement sees what was committed before it began, and every row that a decision
depends on is locked, or guarded by a lock, before it is read. So nothing that was read changes before the commit.
"""

from collections.abc import Collection, Sequence
from typing import Any

from daemon.domain.changes import Outcome, Scope
from daemon.domain.kill_switch import KEY as KILL_SWITCH
from daemon.domain.kill_switch import is_on
from daemon.stores.postgres import (
    agents,
    answers,
    conversations,
    events,
    locks,
    notifications,
    processes,
    sessions,
    values,
    verifiers,
)
from daemon.stores.postgres.connection import Connection
from daemon.stores.postgres.ledger import Ledger
from daemon.stores.postgres.process_ledger import ProcessLedger

IDEMPOTENCY_SECONDS = 86_400


def is_broad(scope: Scope) -> bool:
    """Return whether a change sees more than single rows by their keys, so that it runs in a batch of its own."""
    broad = scope.pick or scope.active_agents or scope.suspended_by or scope.values
    return bool(broad or scope.channels or scope.verifiers)


async def begin(raw: Connection, scopes: Sequence[Scope], *, long: bool) -> None:
    """Begin the transaction with the locks of what may not exist as a row.

    An idempotency key or a public key that two daemons are asked for at once, and a conversation that begins twice,
    are decided one after the other; so is what is computed from a value, e.g. the next signing secret, and who of a
    home's processes gets a place.
    """
    keys = {key for scope in scopes for key in scope.values}
    await locks.begin(raw, keys, long=long)
    others = [
        *(locks.number("idempotency", scope.idempotency_key) for scope in scopes if scope.idempotency_key is not None),
        *(locks.number("public_key", scope.public_key) for scope in scopes if scope.public_key is not None),
        *(locks.number("conversation", "\n".join(scope.conversation)) for scope in scopes if scope.conversation),
        *(locks.number("home", home) for home in await _homes(raw, scopes)),
    ]
    await locks.take(raw, keys, others)


async def _homes(raw: Connection, scopes: Sequence[Scope]) -> set[str]:
    """Return the homes whose pool, or one of whose processes, is decided on."""
    homes = {scope.pool_of for scope in scopes if scope.pool_of is not None}
    if named := _with_process(scopes):
        # Who names a session was told of it after its commit: it is there, and its process with it.
        homes.update(await processes.homes(raw, named))
    return homes


def _with_process(scopes: Sequence[Scope]) -> set[str]:
    return {scope.session for scope in scopes if scope.process and scope.session is not None}


async def load(raw: Connection, scopes: Sequence[Scope], now: int) -> Ledger:
    """Read what changes asked to see, in the one order of locks."""
    ledger = Ledger(now)
    # Shared by every transaction, and alone for who turns it: what is read here holds until the commit.
    ledger.values = await values.several(raw, {KILL_SWITCH, *(key for scope in scopes for key in scope.values)})
    ledger.locked = is_on(ledger.values.get(KILL_SWITCH))
    seen = [scope for scope in scopes if scope.while_locked or not ledger.locked]
    await _load_agents(raw, seen, ledger)
    await _load_sessions(raw, seen, ledger)
    await _load_processes(raw, seen, ledger)
    await _load_more(raw, seen, ledger)
    ledger.opened()
    return ledger


async def _load_agents(raw: Connection, scopes: Sequence[Scope], ledger: Ledger) -> None:
    """Lock agents, and with each of them its sessions: whoever changes or adds one locks the agent first."""
    for scope in scopes:
        if scope.active_agents:
            _list(ledger, await agents.lock_status(raw, "ACTIVE"))
        if scope.suspended_by is not None:
            _list(ledger, await agents.lock_suspended_by(raw, scope.suspended_by))
    named = {
        one
        for scope in scopes
        for one in (scope.agent, scope.active_sessions_of, scope.incidents_of, scope.picked_agent)
        if one is not None
    }
    of_sessions = {scope.session for scope in scopes if scope.session is not None}
    if named or of_sessions:
        ledger.agents.update((agent.id, agent) for agent in await agents.lock(raw, named, of_sessions))


def _list(ledger: Ledger, found: Sequence[Any]) -> None:
    ledger.agents.update((agent.id, agent) for agent in found)
    ledger.listed += [agent.id for agent in found]


async def _load_sessions(raw: Connection, scopes: Sequence[Scope], ledger: Ledger) -> None:
    """Lock sessions: renewals, states and ends of one session are decided one after the other."""
    for scope in scopes:
        if scope.pick is not None:
            picked = await sessions.pick(raw, scope, ledger.now)
            ledger.sessions.update((session.id, session) for session in picked)
            ledger.picked += [session.id for session in picked]
    named = {scope.session for scope in scopes if scope.session is not None}
    # Whoever adds to what is below a session locks that session first.
    ending = {scope.session for scope in scopes if scope.ends and scope.session is not None}
    if named:
        for session in await sessions.lock(raw, named, ending):
            if session.agent_id in ledger.agents:  # else it was created after the look at agents
                ledger.sessions[session.id] = session
    if ledger.picked and any(scope.ends for scope in scopes):
        for session in await sessions.lock(raw, (), ledger.picked):
            ledger.sessions.setdefault(session.id, session)
    if sealed := {scope.session for scope in scopes if scope.session is not None and scope.sealed_for is not None}:
        ledger.boxes = await sessions.boxes(raw, sealed)


async def _load_processes(raw: Connection, scopes: Sequence[Scope], ledger: Ledger) -> None:
    """Read processes and the pools of homes; the locks of their homes keep them as they are."""
    named, pools = _with_process(scopes), {scope.pool_of for scope in scopes if scope.pool_of is not None}
    # What another unit of the batch does to a session may give its process a place, or take it.
    supervised = [one for one, row in ledger.sessions.items() if row.supervised and (pools or one in named)]
    if supervised or pools:
        ledger.processes.opened(
            await processes.several(raw, supervised) if supervised else (),
            await processes.turns(raw, named) if named else (),
            await processes.pool(raw, pools) if pools else (),
        )


async def _load_more(raw: Connection, scopes: Sequence[Scope], ledger: Ledger) -> None:
    """Read what only some changes ask for."""
    if keys := {scope.conversation for scope in scopes if scope.conversation is not None}:
        # A missing one cannot begin elsewhere meanwhile: its key is locked.
        ledger.conversations = {one.key: one for one in await conversations.lock(raw, keys)}
    if hashes := {scope.answer for scope in scopes if scope.answer is not None}:
        ledger.answers = {answer.token_hash: answer for answer in await answers.lock(raw, hashes)}
    if counted := {scope.active_sessions_of for scope in scopes if scope.active_sessions_of is not None}:
        # Their agents are locked, so that no other daemon adds a session to those that are counted.
        await _count(raw, ledger, "agent_id", counted)
    if delegating := {scope.session for scope in scopes if scope.delegating and scope.session in ledger.sessions}:
        await _count(raw, ledger, "parent_id", delegating)
        await _count(raw, ledger, "root_id", {ledger.sessions[one].tree_id for one in delegating})
    if public := {scope.public_key for scope in scopes if scope.public_key is not None}:
        # The keys are locked; the unique index is the last resort, and a batch that runs into it is run again.
        ledger.key_holders = {str(one.public_key): one for one in await agents.by_public_keys(raw, public)}
    if made := {scope.idempotency_key for scope in scopes if scope.idempotency_key is not None}:
        ledger.made_under = await values.sessions_of_keys(raw, made, ledger.now - IDEMPOTENCY_SECONDS)
    for agent_id in {scope.incidents_of for scope in scopes if scope.incidents_of is not None}:
        # What is recorded of an agent is recorded under its lock.
        ledger.incidents[agent_id] = await events.incident_minutes(raw, agent_id, ledger.now)
    if any(scope.channels for scope in scopes):
        ledger.channels = await notifications.lock_channels(raw)
    if any(scope.verifiers for scope in scopes):
        ledger.verifiers = await verifiers.lock(raw)


async def _count(raw: Connection, ledger: Ledger, by: sessions.CountedBy, ids: Collection[str]) -> None:
    found = await sessions.count_active_by(raw, by, ids, ledger.now)
    ledger.active[by] = dict.fromkeys(ids, 0) | found


async def write(raw: Connection, ledger: Ledger) -> None:
    """Write the rows that were decided; those of agents before those of their sessions."""
    outcomes = [decided.outcome for decided in ledger.decided]
    made = [outcome.new_agent.id for outcome in outcomes if outcome.new_agent is not None]
    if made:
        await agents.insert(raw, [ledger.agents[agent_id] for agent_id in made])
    if changed := ledger.changed_agents():
        await agents.update(raw, changed)
    begun = [outcome.new_session.id for outcome in outcomes if outcome.new_session is not None]
    if begun:
        await sessions.insert(raw, [ledger.sessions[session_id] for session_id in begun])
        keys = {outcome.idempotency_key for outcome in outcomes if outcome.new_session is not None} - {None}
        await values.remember_keys(raw, [(key, ledger.made_under[key]) for key in keys if key], ledger.now)
    if updates := ledger.changed_sessions():
        await sessions.update(raw, updates)
    await _write_processes(raw, ledger.processes)
    stored, gone = ledger.changed_conversations()
    if stored:
        await conversations.put(raw, stored)
    if gone:
        await conversations.delete(raw, gone)
    stored_values = {key: value for outcome in outcomes for key, value in (outcome.values or {}).items()}
    if stored_values:
        await values.put(raw, stored_values.items(), ledger.now)
    await _write_verifiers(raw, outcomes)
    await _write_messages(raw, outcomes, ledger.now)


async def _write_processes(raw: Connection, ledger: ProcessLedger) -> None:
    if made := ledger.made():
        await processes.insert(raw, made)
    if changed := ledger.changed():
        await processes.update(raw, changed)
    if ledger.resting:
        await processes.rest(raw, ledger.resting)
    if turns := ledger.changed_turns():
        await processes.put_turns(raw, turns)


async def _write_verifiers(raw: Connection, outcomes: Collection[Outcome[Any]]) -> None:
    if added := [outcome.new_verifier for outcome in outcomes if outcome.new_verifier is not None]:
        await verifiers.insert(raw, added)
    if changed := [one for outcome in outcomes for one in outcome.verifiers]:
        await verifiers.update(raw, changed)


async def _write_messages(raw: Connection, outcomes: Collection[Outcome[Any]], now: int) -> None:
    if channels := [outcome.new_channel for outcome in outcomes if outcome.new_channel is not None]:
        await notifications.insert_channels(raw, channels)
    if attempts := [attempt for outcome in outcomes for attempt in outcome.attempts]:
        await notifications.log(raw, attempts)
    for outcome in outcomes:
        if outcome.channel is not None:
            await notifications.update_channel(raw, outcome.channel)
        if outcome.settled is not None:
            await notifications.settle(raw, outcome.settled, now)
        if outcome.new_answers:
            await answers.insert(raw, outcome.new_answers)
        if outcome.used_answer is not None:
            await answers.use(raw, outcome.used_answer)
        if outcome.spent_answers_of is not None:
            await answers.end_of_session(raw, outcome.spent_answers_of, now)
