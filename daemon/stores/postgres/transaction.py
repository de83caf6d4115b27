"""One transaction: changes decided on a ledger or a single piece of work, then its events, then word to the others."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from daemon.domain.changes import Decide, Outcome, Rows, Scope
from daemon.domain.descent import with_descendants
from daemon.domain.errors import DaemonError
from daemon.domain.events import Event, Fact, Origin
from daemon.domain.notifications import deliveries, level_of
from daemon.stores.chain import Chain
from daemon.stores.postgres import changes, events, locks, notifications
from daemon.stores.postgres.connection import Connection
from daemon.stores.postgres.ledger import Decided, Ledger
from daemon.stores.postgres.word import Word
from daemon.stores.terms import Telling


class Change(msgspec.Struct, frozen=True):
    """A change as it was asked for."""

    scope: Scope
    decide: Decide[Any]
    origin: Origin


class Written(msgspec.Struct):
    """What a change wrote, for the cache."""

    outcome: Outcome[Any]
    rows: Rows


class Transaction:
    """A transaction on its way.

    Args:
        raw: the connection.
        now: the one time of the transaction, Unix seconds.
        telling: whether messages are written.
        instance: this daemon's id.
    """

    def __init__(self, raw: Connection, now: int, telling: Telling, instance: str) -> None:
        self.raw = raw
        self.now = now
        self.word = Word(by=instance)
        self.told = False
        self.events: list[Event] = []
        self._telling = telling

    async def change(self, asked: Sequence[Change], *, long: bool) -> list[Any]:
        """Decide changes in their order, each on what those before it decided, and write what came of it.

        Args:
            asked: the changes.
            long: they may take their time.

        Returns:
            For each what it wrote, or what it refused with.
        """
        scopes = [change.scope for change in asked]
        await changes.begin(self.raw, scopes, long=long)
        ledger = await changes.load(self.raw, scopes, self.now)
        # What decides on very many rows must not keep the loop from answering others meanwhile.
        results = await asyncio.to_thread(_decide, ledger, asked) if long else _decide(ledger, asked)
        if ledger.decided:
            await changes.write(self.raw, ledger)
            self.word.note(ledger)
            await self._record(ledger.decided, long=long)
        return results

    async def work(self, work: Callable[["Transaction"], Awaitable[Any]], *, long: bool) -> list[Any]:
        """Do one piece of work that decides nothing."""
        await locks.begin(self.raw, (), long=long)
        return [await work(self)]

    async def record(self, fact: Fact, origin: Origin) -> None:
        """Append one event."""
        await self._record([Decided(Outcome(answer=None, facts=(fact,)), Rows(), origin)], long=False)

    async def _record(self, decided: Sequence[Decided], *, long: bool) -> None:
        """Append the events of what was decided, with messages about them: the last step before the commit."""
        if not any(one.outcome.facts for one in decided):
            return
        tells = self._telling.enabled and any(level_of(fact) for one in decided for fact in one.outcome.facts)
        channels = await notifications.channels(self.raw) if tells else []
        chain = Chain(await events.lock_head(self.raw), self.now)
        await asyncio.to_thread(_append, chain, decided) if long else _append(chain, decided)
        await events.append(self.raw, chain.rows, chain.head)
        self.events = chain.events
        if channels:
            facts = (fact for one in decided for fact in one.outcome.facts)
            first = chain.head.seq - len(chain.events) + 1
            rows = [row for seq, fact in enumerate(facts, first) for row in deliveries(fact, seq, self.now, channels)]
            if rows:
                await notifications.enqueue(self.raw, rows, self._telling.dedup_ttl)
                self.told = True

    async def send_word(self) -> None:
        """Tell the other daemons, at the commit, what changed."""
        self.word.messages = self.told
        self.word.seq = self.events[-1].seq if self.events else 0
        if text := self.word.text():
            await self.raw.execute("SELECT pg_notify('daemon_changes', $1)", text)


def _decide(ledger: Ledger, asked: Sequence[Change]) -> list[Any]:
    results: list[Any] = []
    for change in asked:
        try:
            rows = ledger.rows(change.scope)
            outcome = with_descendants(change.scope, rows, change.decide(rows, ledger.now), ledger.now)
        except DaemonError as refusal:
            results.append(refusal)
        except Exception as error:  # noqa: BLE001 - a change that fails harms no other of its batch
            results.append(error)
        else:
            ledger.take(Decided(outcome, rows, change.origin))
            results.append(Written(outcome, rows))
    return results


def _append(chain: Chain, decided: Sequence[Decided]) -> None:
    for one in decided:
        if one.outcome.answer_at is not None:
            one.outcome.answer = one.outcome.answer_at(chain.head.seq + 1)
        chain.append(one.outcome.facts, one.origin)
