"""Under which key a conversation is in Redis."""

import msgspec

from daemon.domain.rows import ConversationKey


class Keys(msgspec.Struct, frozen=True):
    """The keys' form: everything of ours begins with one prefix.

    Args:
        prefix: `conversations.key_prefix`.
    """

    prefix: str

    def session(self, session_id: str) -> str:
        """Return the key of an id, which is taken as it is."""
        return f"{self.prefix}{session_id}"

    def conversation(self, key: ConversationKey) -> str:
        """Return the key of an agent's conversation; the agent's id has no colon, so that no two are the same."""
        return self.session(":".join(key))
