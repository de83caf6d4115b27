"""What a batch knows: rows as they were read under their locks, and on top of them what it decided since."""

from typing import Any

import msgspec

from daemon.domain.changes import Outcome, Rows, Scope
from daemon.domain.descent import living
from daemon.domain.errors import SYSTEM_LOCKED, DaemonError
from daemon.domain.events import Fact, Origin
from daemon.domain.facts.agents import AutoStopTriggered
from daemon.domain.rows import Agent, Answer, Channel, Conversation, ConversationKey, Session, Verifier
from daemon.domain.status import status
from daemon.stores.postgres.process_ledger import ProcessLedger
from daemon.stores.postgres.sessions import CountedBy, Update

_COUNTED: tuple[CountedBy, ...] = ("agent_id", "parent_id", "root_id")


class Decided(msgspec.Struct):
    """One decision of a batch."""

    outcome: Outcome[Any]
    rows: Rows
    origin: Origin


class Ledger:
    """Rows in memory, for a batch whose units see what those before them decided.

    Args:
        now: the transaction's time, Unix seconds.
    """

    def __init__(self, now: int) -> None:
        self.now = now
        self.locked = False
        """Whether the kill switch is on."""
        self.agents: dict[str, Agent] = {}
        self.sessions: dict[str, Session] = {}
        self.boxes: dict[str, bytes | None] = {}
        """Sealed answers, by session."""
        self.active: dict[CountedBy, dict[str, int]] = {}
        """Sessions of status ACTIVE: of agents, right below sessions, and anywhere below the tops of trees."""
        self.key_holders: dict[str, Agent] = {}
        self.made_under: dict[str, str] = {}
        """Sessions, by the hash of the idempotency key under which they were created."""
        self.values: dict[str, str] = {}
        self.incidents: dict[str, frozenset[int]] = {}
        self.answers: dict[str, Answer] = {}
        self.conversations: dict[ConversationKey, Conversation] = {}
        self.processes = ProcessLedger(self.sessions)
        self.channels: list[Channel] = []
        self.verifiers: list[Verifier] = []
        self.picked: list[str] = []
        """Sessions that a scope picked, and agents that it listed."""
        self.listed: list[str] = []
        self.decided: list[Decided] = []
        self._read_agents: dict[str, Agent] = {}
        self._read_sessions: dict[str, Session] = {}
        self._read_conversations: dict[ConversationKey, Conversation] = {}
        self._new_boxes: set[str] = set()

    def opened(self) -> None:
        """Note that everything was read: what differs from now on is written."""
        self._read_agents = dict(self.agents)
        self._read_sessions = dict(self.sessions)
        self._read_conversations = dict(self.conversations)

    def rows(self, scope: Scope) -> Rows:
        """Return what a change asked to see.

        Raises:
            DaemonError: SYSTEM_LOCKED, unless the change may be made while the kill switch is on.
        """
        if self.locked and not scope.while_locked:
            raise DaemonError(SYSTEM_LOCKED)
        rows = Rows()
        if scope.session is not None:
            rows.session = self.sessions.get(scope.session)
            if scope.sealed_for and rows.session and rows.session.previous_token_hash == scope.sealed_for:
                rows.retry_answer = self.boxes.get(scope.session)
            self._show_family(scope, rows)
        agent_id = scope.agent or (rows.session.agent_id if rows.session else None)
        if agent_id is not None:
            rows.agent = self.agents.get(agent_id)
        if scope.active_sessions_of is not None:
            rows.active_sessions = self.active["agent_id"][scope.active_sessions_of]
        if scope.public_key is not None:
            rows.key_holder = self.key_holders.get(scope.public_key)
        if scope.idempotency_key is not None:
            rows.idempotent_session = self.made_under.get(scope.idempotency_key)
        rows.sessions = [self.sessions[one] for one in self.picked]
        rows.agents = [self.agents[one] for one in self.listed]
        rows.values = {key: self.values[key] for key in scope.values if key in self.values}
        if scope.incidents_of is not None:
            rows.incident_minutes = self.incidents[scope.incidents_of]
        if scope.answer is not None:
            rows.answer = self.answers.get(scope.answer)
        rows.channels = self.channels if scope.channels else []
        rows.verifiers = self.verifiers if scope.verifiers else []
        if scope.conversation is not None:
            rows.conversation = self.conversations.get(scope.conversation)
        self.processes.show(scope, rows)
        if scope.ends:
            tops = [one.id for one in (rows.session, *rows.sessions) if one is not None]
            rows.descendants = living(tops, self.sessions.values())
        return rows

    def _show_family(self, scope: Scope, rows: Rows) -> None:
        """Show what is above the session, and how much is below it."""
        session = rows.session
        if session is None:
            return
        above = session.parent_id
        while above is not None and above in self.sessions:
            rows.ancestors.append(self.sessions[above])
            above = self.sessions[above].parent_id
        if scope.delegating:
            rows.children, rows.relatives = (
                self.active["parent_id"][session.id],
                self.active["root_id"][session.tree_id],
            )

    def take(self, decided: Decided) -> None:
        """Take over what was decided."""
        rows, outcome = decided.rows, decided.outcome
        for agent in (outcome.new_agent, outcome.agent, *outcome.agents):
            if agent is not None:
                self.agents[agent.id] = agent
        if outcome.new_agent is not None and outcome.new_agent.public_key is not None:
            self.key_holders[outcome.new_agent.public_key] = outcome.new_agent
        if outcome.new_session is not None:
            self._put(outcome.new_session)
            if outcome.idempotency_key is not None:
                self.made_under[outcome.idempotency_key] = outcome.new_session.id
        if outcome.session is not None and rows.session is not None:
            self._put(outcome.session)
            if outcome.retry_answer is not None:
                self.boxes[outcome.session.id] = outcome.retry_answer or None
                self._new_boxes.add(outcome.session.id)
        for session in outcome.sessions:
            self._put(session)
        self._take_answers(outcome)
        if outcome.conversation is not None:
            self.conversations[outcome.conversation.key] = outcome.conversation
        if outcome.gone_conversation is not None:
            self.conversations.pop(outcome.gone_conversation, None)
        self.processes.take(rows, outcome)
        for fact in outcome.facts:
            self._note_incident(fact)
        self.decided.append(decided)

    def _put(self, session: Session) -> None:
        if self.active:
            before = self.sessions.get(session.id)
            was_active = before is not None and status(before, self.now) == "ACTIVE"
            change = (status(session, self.now) == "ACTIVE") - was_active
            keys = (session.agent_id if session.parent_id is None else None, session.parent_id, session.root_id)
            for by, key in zip(_COUNTED, keys, strict=True):
                if key is not None and key in self.active.get(by, ()):
                    self.active[by][key] += change
        self.sessions[session.id] = session

    def _take_answers(self, outcome: Outcome[Any]) -> None:
        for answer in outcome.new_answers:
            self.answers[answer.token_hash] = answer
        if outcome.used_answer is not None:
            self.answers[outcome.used_answer.token_hash] = outcome.used_answer
        if outcome.spent_answers_of is not None:
            for token_hash, answer in self.answers.items():
                if answer.session_id == outcome.spent_answers_of and answer.used_at is None:
                    self.answers[token_hash] = msgspec.structs.replace(answer, used_at=self.now)

    def _note_incident(self, fact: Fact) -> None:
        minutes = self.incidents.get(fact.agent_id or "")
        if minutes is None or fact.agent_id is None:
            return
        if fact.type == AutoStopTriggered.type:
            self.incidents[fact.agent_id] = frozenset()
        elif fact.type == "TOKEN_REUSED" or getattr(fact, "constraint", None) == "allowedOperations":
            self.incidents[fact.agent_id] = minutes | {self.now // 60}

    def changed_agents(self) -> list[Agent]:
        """Return the agents that were read and differ now."""
        return [self.agents[key] for key, before in self._read_agents.items() if self.agents[key] is not before]

    def changed_sessions(self) -> list[Update]:
        """Return the sessions that were read and differ now: the last state of each."""
        return [
            Update(before, after, (self.boxes[key] or b"") if key in self._new_boxes else None)
            for key, before in self._read_sessions.items()
            if (after := self.sessions[key]) is not before
        ]

    def changed_conversations(self) -> tuple[list[Conversation], list[ConversationKey]]:
        """Return the conversations that began or differ now, and the keys of those that are gone."""
        read, now = self._read_conversations, self.conversations
        stored = [now[key] for key in sorted(now) if now[key] is not read.get(key)]
        return stored, sorted(key for key in read if key not in now)
