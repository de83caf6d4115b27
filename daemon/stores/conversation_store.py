"""What a service may ask of where conversations are kept; the engine and Redis answer the same."""

from typing import Protocol

from daemon.domain.conversations import Bound, Rebinding
from daemon.domain.events import Origin
from daemon.domain.rows import Conversation, ConversationKey
from daemon.domain.views import Check
from daemon.stores.terms import Chore, Elsewhere


class ConversationStore(Protocol):
    """Bindings of conversations: in the engine's own table, or in front of it.

    Every method that touches storage raises DaemonError STORAGE_UNAVAILABLE when it cannot.
    """

    async def bind(self, wanted: Conversation, origin: Origin) -> Bound:
        """Return the conversation with this key, and begin it where there is none or only an expired one.

        Args:
            wanted: what it shall begin with, and the session that asks; times and counters are filled in.
            origin: who causes the change, for its event.

        Raises:
            DaemonError: as the session check does.
        """
        ...

    async def get(self, key: ConversationKey) -> Conversation | None:
        """Return a conversation that has not expired; this is no use of it."""
        ...

    async def touch(self, key: ConversationKey) -> int | None:
        """Count one use; return when the conversation expires now (Unix seconds), None if there is none."""
        ...

    async def rebind(self, key: ConversationKey, change: Rebinding, session_id: str, origin: Origin) -> Conversation:
        """Bind a conversation to another provider or model where it is bound as `change` expects.

        Args:
            key: which.
            change: from what, to what, and why.
            session_id: the session that asks.
            origin: who causes the change, for its event.

        Raises:
            DaemonError: CONVERSATION_NOT_FOUND, CONVERSATION_CONFLICT, and as the session check does.
        """
        ...

    async def delete(self, key: ConversationKey, session_id: str, origin: Origin) -> None:
        """Delete a conversation.

        Raises:
            DaemonError: CONVERSATION_NOT_FOUND, and as the session check does.
        """
        ...

    async def flush(self) -> None:
        """Store all uses that are only in memory."""
        ...

    def forget(self, elsewhere: Elsewhere) -> None:
        """Drop from memory what other daemons changed."""
        ...

    def chores(self) -> list[Chore]:
        """Return what is to be done again and again."""
        ...

    def check(self) -> Check | None:
        """Return how what stands in front of the engine does; None if nothing does."""
        ...

    async def close(self) -> None:
        """Let go of what stands in front of the engine."""
        ...
