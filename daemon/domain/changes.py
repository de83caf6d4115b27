"""What a change asks to see, and what it decides: the two sides of every transaction.

A `Decide` is pure, synchronous and rerunnable: an engine may roll a batch back and run it again.
"""

from collections.abc import Callable
from typing import Generic, Literal, TypeVar

import msgspec

from daemon.domain.events import Fact
from daemon.domain.rows import Agent, Session

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


class Rows(msgspec.Struct, kw_only=True):
    """What the scope named, as it stands inside the transaction."""

    agent: Agent | None = None
    session: Session | None = None
    retry_answer: bytes | None = None
    active_sessions: int = 0
    key_holder: Agent | None = None
    idempotent_session: str | None = None
    sessions: list[Session] = msgspec.field(default_factory=list)
    values: dict[str, str] = msgspec.field(default_factory=dict)


class Outcome(msgspec.Struct, Generic[T], kw_only=True):
    """What was decided: the answer, the rows to write and the facts to record.

    Args:
        answer: what the caller is told after the commit.
        new_agent, agent: an agent to insert, to update.
        new_session, session, sessions: a session to insert, to update, several to update.
        retry_answer: replaces the sealed answer of `session`; None leaves it, b"" clears it.
        idempotency_key: hash of the key under which `new_session` was created.
        values: keys of the key-value store to set.
        facts: what happened, in order.
    """

    answer: T
    new_agent: Agent | None = None
    agent: Agent | None = None
    new_session: Session | None = None
    session: Session | None = None
    sessions: tuple[Session, ...] = ()
    retry_answer: bytes | None = None
    idempotency_key: str | None = None
    values: dict[str, str] | None = None
    facts: tuple[Fact, ...] = ()


Decide = Callable[[Rows, int], Outcome[T]]
