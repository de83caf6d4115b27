"""What a change asks to see, and what it decides: the two sides of every transaction.

A `Decide` is pure, synchronous and rerunnable: an engine may roll a batch back and run it again.
"""

from collections.abc import Callable
from typing import Generic, Literal, TypeVar

import msgspec

from daemon.domain.events import Fact
from daemon.domain.process_rows import Place, Process, Turn
from daemon.domain.rows import (
    Agent,
    Answer,
    Attempt,
    Channel,
    Conversation,
    ConversationKey,
    Session,
    Settled,
    SuspendedBy,
    Verifier,
)

T = TypeVar("T")

Pick = Literal["of_agent", "every", "expired", "idle_over", "quiet", "created_after_now"]
"""Which sessions, all of them not revoked: an agent's; every one; those whose time is up, or that were idle for
too long, and not marked as expired yet; those ACTIVE without a request for `quiet_for`; those created after now."""


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """What a change needs to see, read inside its transaction.

    Args:
        agent: id of an agent.
        session: id of a session; its agent is read with it.
        sealed_for: hash of a token; read the sealed answer too if this token is the session's previous one.
        active_sessions_of: id of the agent whose sessions of status ACTIVE are counted.
        public_key: find the agent that has it.
        idempotency_key: hash of a key; find the session that was created under it.
        pick: select sessions into `Rows.sessions`, at most `limit`.
        picked_agent: for `of_agent`.
        quiet_for: seconds, for `quiet`.
        values: keys of the key-value store.
        active_agents: read every agent of status ACTIVE into `Rows.agents`.
        suspended_by: read every agent that this suspended into `Rows.agents`.
        incidents_of: id of the agent whose minutes with a security incident are counted.
        answer: hash of an answer's token.
        channels: read every notification channel.
        verifiers: read every verifier, revoked ones too.
        conversation: agent id and conversation id; an expired one is read too.
        process: read the process of `session` too, and its turns that are not over.
        pool_of: id of the home whose processes that take a place are read.
        ends: the change may end `session`, or those that it picked: their living descendants are read too.
        delegating: count the living children of `session`, and the descendants of the top of its tree.
        while_locked: the change may be made while the kill switch is on; every other one is refused then.
    """

    agent: str | None = None
    session: str | None = None
    sealed_for: str | None = None
    active_sessions_of: str | None = None
    public_key: str | None = None
    idempotency_key: str | None = None
    pick: Pick | None = None
    picked_agent: str | None = None
    quiet_for: int = 0
    limit: int = -1
    values: tuple[str, ...] = ()
    active_agents: bool = False
    suspended_by: SuspendedBy | None = None
    incidents_of: str | None = None
    answer: str | None = None
    channels: bool = False
    verifiers: bool = False
    conversation: ConversationKey | None = None
    process: bool = False
    pool_of: str | None = None
    ends: bool = False
    delegating: bool = False
    while_locked: bool = False

    @property
    def sees_descendants(self) -> bool:
        """Whether whatever it ends is read with all that descends from it: these picks are whole trees."""
        return self.ends or self.pick in {"of_agent", "every"}


class Rows(msgspec.Struct, kw_only=True):
    """What the scope named, as it stands inside the transaction.

    `ancestors` are those of `session`, its parent first. `descendants` are the living ones of all that the change may
    end, nearer ones first. `children` and `relatives` count what lives below `session`, and below the top of its tree.
    `incident_minutes` are the minutes (Unix time // 60) of the last hour in which the agent had an incident that no
    auto-stop has answered yet.
    """

    agent: Agent | None = None
    session: Session | None = None
    retry_answer: bytes | None = None
    active_sessions: int = 0
    key_holder: Agent | None = None
    idempotent_session: str | None = None
    sessions: list[Session] = msgspec.field(default_factory=list)
    values: dict[str, str] = msgspec.field(default_factory=dict)
    agents: list[Agent] = msgspec.field(default_factory=list)
    incident_minutes: frozenset[int] = frozenset()
    answer: Answer | None = None
    channels: list[Channel] = msgspec.field(default_factory=list)
    verifiers: list[Verifier] = msgspec.field(default_factory=list)
    conversation: Conversation | None = None
    process: Process | None = None
    turns: list[Turn] = msgspec.field(default_factory=list)
    pool: list[Place] = msgspec.field(default_factory=list)
    ancestors: list[Session] = msgspec.field(default_factory=list)
    descendants: list[Session] = msgspec.field(default_factory=list)
    children: int = 0
    relatives: int = 0

    @property
    def parent(self) -> Session | None:
        """The session that the agent made `session` from."""
        return self.ancestors[0] if self.ancestors else None


class Outcome(msgspec.Struct, Generic[T], kw_only=True):
    """What was decided: the answer, the rows to write and the facts to record.

    Args:
        answer: what the caller is told after the commit.
        answer_at: makes the answer instead, from the sequence number of the first fact: engines number facts last.
        new_agent, agent, agents: an agent to insert, to update, several to update.
        new_session, session, sessions: a session to insert, to update, several to update.
        retry_answer: replaces the sealed answer of `session`; None leaves it, b"" clears it.
        idempotency_key: hash of the key under which `new_session` was created.
        values: keys of the key-value store to set.
        new_channel, channel: a notification channel to insert, to update.
        new_verifier, verifiers: a verifier to insert, several to update.
        attempts: rows of the delivery log to add.
        settled: what becomes of a message of the outbox.
        new_answers: answers to add.
        used_answer: the answer that was used, with what was chosen.
        spent_answers_of: id of a session whose unused answers end.
        conversation: to insert, or to store in place of the one there is, whole.
        gone_conversation: key of the conversation to delete.
        new_process, process: a process to insert, to update.
        turns: to insert, or to store in place of those there are.
        room: the place of the pool that is given up to another process.
        facts: what happened, in order.
    """

    answer: T = None  # type: ignore[assignment] # there is one, or there is `answer_at`
    answer_at: Callable[[int], T] | None = None
    new_agent: Agent | None = None
    agent: Agent | None = None
    agents: tuple[Agent, ...] = ()
    new_session: Session | None = None
    session: Session | None = None
    sessions: tuple[Session, ...] = ()
    new_channel: Channel | None = None
    channel: Channel | None = None
    new_verifier: Verifier | None = None
    verifiers: tuple[Verifier, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    settled: Settled | None = None
    new_answers: tuple[Answer, ...] = ()
    used_answer: Answer | None = None
    spent_answers_of: str | None = None
    retry_answer: bytes | None = None
    idempotency_key: str | None = None
    values: dict[str, str] | None = None
    conversation: Conversation | None = None
    gone_conversation: ConversationKey | None = None
    new_process: Process | None = None
    process: Process | None = None
    turns: tuple[Turn, ...] = ()
    room: Place | None = None
    facts: tuple[Fact, ...] = ()


Decide = Callable[[Rows, int], Outcome[T]]
