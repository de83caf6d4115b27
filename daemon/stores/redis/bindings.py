"""Bindings as Redis holds them: what the scripts are asked, and what their answers mean."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from daemon.domain.clock import Clock
from daemon.domain.conversations import Bound, Rebinding
from daemon.domain.facts.conversations import Binding
from daemon.domain.rows import Conversation, ConversationKey
from daemon.stores.redis import scripts
from daemon.stores.redis.failures import AwayError
from daemon.stores.redis.keys import Keys
from daemon.stores.redis.link import Link
from daemon.stores.redis.values import decode, encode


class Merged(msgspec.Struct, frozen=True):
    """What became of a row that was offered: the conversation as Redis holds it now, and whether that is new there."""

    conversation: Conversation
    changed: bool


class Bindings:
    """Conversations in Redis; every method raises AwayError when it cannot be asked.

    Args:
        link: the server.
        keys: their form.
        clock: the domain clock; an expired value is none, whether or not the server has dropped it.
        ttl: seconds without use after which a conversation is over.
        replaced: called when a key held what is no conversation.
    """

    def __init__(self, link: Link, keys: Keys, clock: Clock, ttl: int, replaced: Callable[[], None]) -> None:
        self._link = link
        self._keys = keys
        self._clock = clock
        self._ttl = ttl
        self._replaced = replaced

    async def use(self, key: ConversationKey, begun: Conversation | None = None) -> Bound | None:
        """Count a use and return the conversation; where there is none begin with `begun`, if that is given."""
        offer = encode(begun) if begun is not None else b""
        created, found = self._answer(key, await self._run(scripts.USE, key, self._ttl, offer))
        return Bound(found, created=created) if found is not None else None

    async def get(self, key: ConversationKey) -> Conversation | None:
        """Return a conversation; this is no use of it."""
        return self._answer(key, await self._run(scripts.READ, key))[1]

    async def rebind(self, key: ConversationKey, change: Rebinding) -> tuple[bool, Conversation | None]:
        """Bind to something else where it is bound as expected; return whether that is done, and what is stored."""
        expected, wanted = change.expected, change.wanted
        values = (expected.provider, expected.model, wanted.provider, wanted.model)
        return self._answer(key, await self._run(scripts.REBIND, key, *values))

    async def remove(self, key: ConversationKey) -> Conversation | None:
        """Delete a conversation and return it as it was."""
        return self._answer(key, await self._run(scripts.REMOVE, key))[1]

    async def undo(self, refused: Conversation, before: Binding | None) -> None:
        """Take back what the engine refused, unless it was changed again: bind as before, or delete for None."""
        provider, model = (before.provider, before.model) if before is not None else ("", "")
        versions = (refused.created_at, refused.rebind_count)
        self._answer(refused.key, await self._run(scripts.UNDO, refused.key, *versions, provider, model))

    async def restore(self, row: Conversation) -> None:
        """Bring in a row of the engine; what Redis holds stays where it is newer."""
        self._answer(row.key, await self._run(scripts.MERGE, row.key, encode(row)))

    async def merge(self, rows: Sequence[Conversation]) -> list[Merged]:
        """Bring in many rows of the engine, also while Redis does not serve."""
        now = self._clock.now()
        calls = [(self._keys.conversation(row.key), (now, encode(row))) for row in rows]
        answers = await self._link.run_many(scripts.MERGE, calls)
        merged = []
        for row, answer in zip(rows, answers, strict=True):
            changed, found = self._answer(row.key, answer)
            merged.append(Merged(found or row, changed))
        return merged

    async def forget(self, deleted: Sequence[tuple[ConversationKey, int]]) -> int:
        """Take away what was not used since its deletion (Unix seconds), also while Redis does not serve.

        Returns:
            How many there were.
        """
        now = self._clock.now()
        calls = [(self._keys.conversation(key), (now, at)) for key, at in deleted]
        answers = await self._link.run_many(scripts.FORGET, calls)
        return sum(self._answer(key, answer)[0] for (key, _), answer in zip(deleted, answers, strict=True))

    async def _run(self, script: str, key: ConversationKey, *values: str | bytes | int) -> list[Any]:
        return await self._link.run(script, self._keys.conversation(key), self._clock.now(), *values)

    def _answer(self, key: ConversationKey, answer: list[Any]) -> tuple[bool, Conversation | None]:
        """Return whether a script did what it is for, and what is stored."""
        odd, done, value = answer
        if odd:
            self._replaced()
        try:
            return bool(done), decode(value, key) if value is not None else None
        except msgspec.DecodeError as error:
            raise AwayError("a key holds what is no conversation") from error
