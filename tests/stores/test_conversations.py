"""The memory in front of the conversations: bounded, exact, and trusted only while it is current."""

import asyncio
import sqlite3
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from daemon.domain.clock import DomainClock
from daemon.domain.conversations import Rebinding
from daemon.domain.errors import STORAGE_UNAVAILABLE, DaemonError
from daemon.domain.events import SYSTEM
from daemon.domain.facts.conversations import Binding
from daemon.domain.filters import ConversationFilter
from daemon.domain.pages import Page
from daemon.domain.rows import Conversation, ConversationKey, TouchedConversation
from daemon.stores.conversations import EngineConversations
from daemon.stores.migrate import migrate
from daemon.stores.sqlite.database import SQLiteStore
from daemon.stores.sqlite.opening import open_store
from daemon.stores.terms import Elsewhere
from tests.support.live import FakeTime

pytestmark = pytest.mark.anyio

KEY = ("agent", "conv")
ANTHROPIC, OPENAI = Binding("anthropic", "claude"), Binding("openai", "gpt")
MOVED = Rebinding(ANTHROPIC, OPENAI, "overloaded")
TTL = 3600


def wanted(conversation_id: str = "conv") -> Conversation:
    return Conversation("agent", conversation_id, "anthropic", "claude", None, "session")


class Watched:
    """An engine that counts, can be out of sight of other daemons, and lets them act at the worst moment."""

    def __init__(self, store: SQLiteStore) -> None:
        self.store = store
        self.is_current = True
        self.reads = self.changes = 0
        self.after_read: Callable[[], Awaitable[None]] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def conversation(self, key: ConversationKey) -> Conversation | None:
        self.reads += 1
        found = await self.store.conversation(key)
        if self.after_read is not None:
            meanwhile, self.after_read = self.after_read, None
            await meanwhile()
        return found

    async def change(self, *arguments: Any) -> Any:
        self.changes += 1
        return await self.store.change(*arguments)


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
async def store(tmp_path: Path, time: FakeTime) -> AsyncIterator[Watched]:
    file = tmp_path / "daemon.db"
    migrate(file, now=1000, backups=tmp_path)
    with sqlite3.connect(file) as raw:
        raw.execute(
            "INSERT INTO agents (id, name, status, created_at, updated_at) VALUES ('agent', 'a', 'ACTIVE', 1, 1)"
        )
        raw.execute(
            "INSERT INTO sessions (id, agent_id, token_hash, expires_at, created_at) VALUES (?, 'agent', 'x', ?, 1)",
            ("session", int(time.wall) + 10**6),
        )
    opened = await open_store(
        file,
        DomainClock(lambda: time.wall, lambda: time.mono),
        synchronous="normal",
        cache_sessions=100,
        announce=lambda _: None,
        failed=lambda _: None,
    )
    yield Watched(opened)
    await opened.close()


def memory(store: Watched, size: int = 100) -> EngineConversations:
    return EngineConversations(store, TTL, size)  # type: ignore[arg-type]


async def stored(store: Watched, key: ConversationKey = KEY) -> Conversation:
    row = await store.store.conversation(key)
    assert row is not None
    return row


async def test_using_a_known_conversation_neither_reads_nor_writes(store: Watched, time: FakeTime) -> None:
    bindings = memory(store)
    assert (await bindings.bind(wanted(), SYSTEM)).created
    store.reads = store.changes = 0
    for _ in range(50):
        time.advance(1)
        assert not (await bindings.bind(wanted(), SYSTEM)).created
        assert await bindings.touch(KEY) == int(time.wall) + TTL
        assert await bindings.get(KEY) is not None
    assert (store.reads, store.changes) == (0, 0)
    assert (await stored(store)).request_count == 1
    await bindings.flush()
    row = await stored(store)
    assert (row.request_count, row.last_activity, row.expires_at) == (101, int(time.wall), int(time.wall) + TTL)
    assert await bindings.get(KEY) == row


async def test_a_conversation_of_the_table_is_read_once_however_many_ask(store: Watched) -> None:
    await memory(store).bind(wanted(), SYSTEM)
    store.reads = store.changes = 0
    bindings = memory(store)
    answers = await asyncio.gather(*(bindings.bind(wanted(), SYSTEM) for _ in range(50)))
    assert (store.reads, store.changes) == (1, 0)
    assert [answer.conversation.request_count for answer in answers] == list(range(2, 52))


async def test_the_memory_keeps_its_bound_and_loses_no_use(store: Watched) -> None:
    bindings = memory(store, size=10)
    for round_ in range(3):
        for number in range(30):
            assert (await bindings.bind(wanted(f"conv-{number}"), SYSTEM)).created == (round_ == 0)
            assert len(bindings) <= 10
    await bindings.flush()
    rows = await store.conversations(ConversationFilter(), Page(200))
    assert [row.request_count for row in rows] == [3] * 30


async def test_a_conversation_in_memory_takes_600_bytes(store: Watched) -> None:
    bindings, count = memory(store, size=20_000), 2000
    ids = [f"{number:036}" for number in range(count)]
    for one in ids[:500]:
        await bindings.bind(wanted(one), SYSTEM)
    await store.touch_conversations([])
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(500, count):
            await bindings.bind(wanted("".join(ids[number])), SYSTEM)
        await asyncio.sleep(0)
        taken = (tracemalloc.get_traced_memory()[0] - before) / (count - 500)
    finally:
        tracemalloc.stop()
    assert taken < 600


async def test_what_another_daemon_changed_is_forgotten_and_own_uses_are_kept(store: Watched) -> None:
    bindings, elsewhere = memory(store), memory(store)
    await bindings.bind(wanted(), SYSTEM)
    await bindings.bind(wanted(), SYSTEM)
    await elsewhere.rebind(KEY, MOVED, "session", SYSTEM)
    bindings.forget(Elsewhere(conversations=(KEY,)))
    answer = await bindings.bind(wanted(), SYSTEM)
    assert (answer.conversation.provider, answer.conversation.request_count) == ("openai", 3)
    await elsewhere.delete(KEY, "session", SYSTEM)
    bindings.forget(Elsewhere(everything=True))
    assert await bindings.get(KEY) is None
    await bindings.flush()
    assert await store.conversation(KEY) is None


async def test_a_row_that_changed_while_it_was_read_does_not_stay_in_memory(store: Watched) -> None:
    elsewhere = memory(store)
    await elsewhere.bind(wanted(), SYSTEM)
    bindings = memory(store)

    async def rebind() -> None:
        await memory(store).rebind(KEY, MOVED, "session", SYSTEM)
        bindings.forget(Elsewhere(conversations=(KEY,)))

    store.after_read = rebind
    assert (await bindings.bind(wanted(), SYSTEM)).conversation.provider == "openai"
    assert (await bindings.get(KEY)) == await stored(store)


async def test_memory_that_may_be_old_is_not_trusted(store: Watched) -> None:
    bindings, elsewhere = memory(store), memory(store)
    await bindings.bind(wanted(), SYSTEM)
    await elsewhere.rebind(KEY, MOVED, "session", SYSTEM)
    store.is_current = False
    assert (await bindings.bind(wanted(), SYSTEM)).conversation.provider == "openai"
    seen = await bindings.get(KEY)
    assert seen is not None
    assert (seen.provider, seen.request_count) == ("openai", 2)
    assert await bindings.touch(KEY) is not None
    await bindings.flush()
    assert (await stored(store)).request_count == 3


async def test_what_expired_in_memory_but_was_used_elsewhere_goes_on(store: Watched, time: FakeTime) -> None:
    bindings, elsewhere = memory(store), memory(store)
    await bindings.bind(wanted(), SYSTEM)
    time.advance(TTL - 1)
    await elsewhere.touch(KEY)
    await elsewhere.flush()
    time.advance(10)
    assert not (await bindings.bind(wanted(), SYSTEM)).created
    assert (await bindings.bind(wanted(), SYSTEM)).conversation.request_count == 4


async def test_a_rebind_sees_uses_that_were_not_stored_yet(store: Watched, time: FakeTime) -> None:
    bindings = memory(store)
    await bindings.bind(wanted(), SYSTEM)
    time.advance(TTL - 1)
    await bindings.touch(KEY)
    time.advance(100)
    rebound = await bindings.rebind(KEY, MOVED, "session", SYSTEM)
    assert (rebound.provider, rebound.request_count, rebound.rebind_count) == ("openai", 2, 1)


async def test_uses_and_rebinds_at_once_lose_none(store: Watched) -> None:
    bindings = memory(store)
    await bindings.bind(wanted(), SYSTEM)
    back = Rebinding(OPENAI, ANTHROPIC, "back")
    work: list[Any] = []
    for number in range(60):
        work.append(bindings.rebind(KEY, back if number % 2 else MOVED, "session", SYSTEM))
        work += [bindings.touch(KEY), bindings.bind(wanted(), SYSTEM), bindings.flush()]
    await asyncio.gather(*work)
    await bindings.flush()
    row = await stored(store)
    assert (row.request_count, row.rebind_count, row.provider) == (121, 60, "anthropic")
    assert await bindings.get(KEY) == row


async def test_uses_of_a_deleted_conversation_do_not_bring_it_back(store: Watched) -> None:
    await memory(store).bind(wanted(), SYSTEM)
    await store.purge_conversations(10**11, 10)
    await store.touch_conversations([TouchedConversation(*KEY, 1, 10**10, 10**10)])
    assert await store.conversation(KEY) is None


async def test_uses_that_could_not_be_stored_are_stored_later(store: Watched) -> None:
    bindings = memory(store)
    await bindings.bind(wanted(), SYSTEM)
    await bindings.touch(KEY)
    await store._connection.run(lambda raw: raw.execute("PRAGMA query_only = 1"))
    for _ in range(2):
        with pytest.raises(DaemonError) as refused:
            await bindings.flush()
        assert refused.value.kind is STORAGE_UNAVAILABLE
        assert await bindings.touch(KEY) is not None
    await store._connection.run(lambda raw: raw.execute("PRAGMA query_only = 0"))
    await bindings.flush()
    assert (await stored(store)).request_count == 4
