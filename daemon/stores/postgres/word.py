"""What a transaction tells the other daemons: which rows they must not trust in memory any more."""

import msgspec

from daemon.domain.rows import ConversationKey
from daemon.stores.postgres.ledger import Ledger

CHANNEL = "daemon_changes"
_MOST_BYTES = 7_900
"""PostgreSQL carries less than 8,000."""


class Word(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One message on the channel.

    Args:
        by: id of the daemon that sends it.
        sessions, agents, conversations, values: keys of rows that changed.
        verifiers: whether any was added or revoked.
        messages: whether something was put into the outbox.
        seq: of the newest event; 0 if there is none.
        everything: so much changed that it cannot be listed.
    """

    by: str
    sessions: list[str] = msgspec.field(default_factory=list, name="s")
    agents: list[str] = msgspec.field(default_factory=list, name="a")
    conversations: list[ConversationKey] = msgspec.field(default_factory=list, name="c")
    values: list[str] = msgspec.field(default_factory=list, name="v")
    verifiers: bool = msgspec.field(default=False, name="vf")
    messages: bool = msgspec.field(default=False, name="m")
    seq: int = 0
    everything: bool = msgspec.field(default=False, name="all")

    def note(self, ledger: Ledger) -> None:
        """Note what a batch changed; what it made nobody has in memory yet."""
        self.sessions += [update.after.id for update in ledger.changed_sessions()]
        self.agents += [agent.id for agent in ledger.changed_agents()]
        stored, gone = ledger.changed_conversations()
        self.conversations += [*(one.key for one in stored), *gone]
        self.values += [key for one in ledger.decided for key in one.outcome.values or ()]
        self.verifiers = any(one.outcome.new_verifier or one.outcome.verifiers for one in ledger.decided)

    def text(self) -> str | None:
        """Return the message; None if there is nothing to tell."""
        if self == Word(by=self.by):
            return None
        text = _encode(self)
        if len(text) > _MOST_BYTES:
            text = _encode(Word(by=self.by, messages=self.messages, seq=self.seq, everything=True))
        return text.decode()


_encode = msgspec.json.Encoder().encode
read = msgspec.json.Decoder(Word).decode
