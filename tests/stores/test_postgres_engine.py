"""The PostgreSQL engine: several daemons decide on one set of rows, and none harms another."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from daemon import engines
from daemon.config import load
from daemon.domain import agents, kill_switch, pool, session_creation, sessions
from daemon.domain.changes import Outcome, Rows, Scope
from daemon.domain.clock import DomainClock
from daemon.domain.errors import AGENT_NOT_FOUND, DaemonError
from daemon.domain.events import SYSTEM, Origin
from daemon.domain.facts.agents import AgentCreated
from daemon.domain.facts.sessions import SessionRevoked
from daemon.domain.filters import AttemptFilter, EventFilter
from daemon.domain.pages import Page
from daemon.domain.rows import Agent, Attempt, Channel
from daemon.home import Home
from daemon.stores.postgres.connection import connect
from daemon.stores.postgres.database import PostgresStore
from daemon.stores.postgres.opening import open_store
from daemon.stores.postgres.transaction import Transaction
from daemon.stores.postgres.writer import Unit
from tests.support import postgres
from tests.support.live import START, FakeTime, MovedClock

pytestmark = pytest.mark.anyio

Open = Callable[[], Awaitable[PostgresStore]]
LIMIT = 5


@pytest.fixture
def time() -> FakeTime:
    """The time of all daemons."""
    return FakeTime()


@pytest.fixture
async def another(database_url: str, time: FakeTime) -> AsyncIterator[Open]:
    """Open one more store, as another daemon would."""
    async with AsyncExitStack() as stack:

        async def start() -> PostgresStore:
            clock = MovedClock(lambda: time.wall, lambda: time.mono)
            store = await open_store(
                database_url, clock, cache_sessions=100, announce=lambda _: None, report=lambda *_, **__: None
            )
            stack.push_async_callback(store.close)
            return store

        yield start


@pytest.fixture
async def store(another: Open) -> PostgresStore:
    """One daemon's store."""
    return await another()


@pytest.fixture
async def stores(store: PostgresStore, another: Open) -> list[PostgresStore]:
    """The stores of three daemons."""
    return [store, await another(), await another()]


@pytest.mark.parametrize(("synchronous", "commit"), [("full", "on"), ("normal", "off")])
async def test_commits_wait_for_the_servers_disk_only_where_synchronous_is_full(
    tmp_path: Path, database_url: str, time: FakeTime, synchronous: str, commit: str
) -> None:
    name = database_url.rpartition("/")[2]
    await asyncio.to_thread(
        postgres.ask,
        database_url,
        f"ALTER DATABASE {name} SET synchronous_commit = {'off' if commit == 'on' else 'on'}",
    )
    env = {"DAEMON_DATABASE_URL": database_url, "DAEMON_DATABASE_SYNCHRONOUS": synchronous}
    store = await engines.open_engine(
        Home(tmp_path),
        load(tmp_path, env, {}).config,
        DomainClock(lambda: time.wall, lambda: time.mono),
        announce=lambda _: None,
        report=lambda *_, **__: None,
    )

    async def committing(tx: Transaction) -> str:
        return str(await tx.raw.fetchval("SHOW synchronous_commit"))

    try:
        assert isinstance(store, PostgresStore)
        assert await store._writer.run(Unit(committing)) == commit
    finally:
        await store.close()


def adding(name: str, public_key: str | None = None) -> Any:
    def decide(rows: Rows, now: int) -> Outcome[Any]:
        return agents.create(rows, now, agent=Agent(id=name, name=name, status="ACTIVE", public_key=public_key))

    return decide


async def add(store: PostgresStore, name: str, public_key: str | None = None) -> Any:
    return await store.change(Scope(public_key=public_key), adding(name, public_key), SYSTEM)


async def create(store: PostgresStore, name: str, agent: str = "agent", key: str | None = None) -> Any:
    asked = session_creation.Asked(
        session=session_creation.blank(name, agent, created_by="api", max_renewals=3),
        process=None,
        ttl=3600,
        absolute_lifetime=86_400,
        limit=LIMIT,
        places=pool.Limits(1, 1),
        key=key,
        mint=lambda session: (f"token of {session.id}", f"hash of {session.id}"),
    )
    decide = partial(session_creation.create, asked=asked)
    scope = Scope(agent=agent, active_sessions_of=agent, idempotency_key=key)
    return await store.change(scope, decide, Origin("owner"))


def codes(results: list[Any]) -> dict[str, int]:
    kinds = [result.code if isinstance(result, DaemonError) else type(result).__name__ for result in results]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


async def gather(work: list[Awaitable[Any]]) -> dict[str, int]:
    return codes(await asyncio.gather(*work, return_exceptions=True))


async def whole(store: PostgresStore) -> list[str]:
    """Return the types of all events, whose numbers have no gap."""
    found = await store.events(EventFilter(), 10_000)
    assert [event.seq for event in found] == list(range(1, len(found) + 1))
    assert [event.prev_hash for event in found[1:]] == [event.hash for event in found[:-1]]
    assert not found or (await store.head()).hash == found[-1].hash
    return [event.type for event in found]


async def test_a_refused_and_a_failing_unit_harm_no_other_of_their_batch(store: PostgresStore) -> None:
    def refusing(_rows: Rows, _now: int) -> Outcome[str]:
        raise DaemonError(AGENT_NOT_FOUND)

    def breaking(_rows: Rows, _now: int) -> Outcome[str]:
        raise ZeroDivisionError

    work = [add(store, "a"), store.change(Scope(), refusing, SYSTEM), add(store, "b"), add(store, "nul \0")]
    work += [store.change(Scope(), breaking, SYSTEM), add(store, "a"), add(store, "half \ud800"), add(store, "c")]
    results = await asyncio.gather(*work, return_exceptions=True)
    failed = "STORAGE_UNAVAILABLE"
    expected = ["AgentView", "AGENT_NOT_FOUND", "AgentView", failed, "ZeroDivisionError", failed, failed, "AgentView"]
    assert [next(iter(codes([result]))) for result in results] == expected
    assert await store.agent_count() == 3
    assert await whole(store) == ["AGENT_CREATED"] * 3


async def test_concurrent_changes_share_one_commit(store: PostgresStore, database_url: str) -> None:
    await asyncio.gather(*(add(store, f"agent {number}") for number in range(100)))
    assert postgres.ask(database_url, "SELECT count(DISTINCT xmin::text) <= 3 FROM agents") == [(True,)]


async def test_the_session_limit_holds_within_a_batch_and_across_daemons(stores: list[PostgresStore]) -> None:
    await add(stores[0], "agent")
    made = await gather([create(one, f"{at}-{n}") for n in range(10) for at, one in enumerate(stores)])
    assert made == {"CreatedSession": LIMIT, "SESSION_LIMIT_EXCEEDED": 30 - LIMIT}
    assert (await whole(stores[0])).count("SESSION_CREATED") == LIMIT


async def test_an_idempotency_key_makes_one_session_within_a_batch_and_across_daemons(
    stores: list[PostgresStore],
) -> None:
    await add(stores[0], "agent")
    made = await gather([create(one, f"{at}-{n}", key="key") for n in range(4) for at, one in enumerate(stores)])
    assert made == {"CreatedSession": 1, "IDEMPOTENCY_CONFLICT": 11}


async def test_a_public_key_is_one_agents_within_a_batch_and_across_daemons(
    stores: list[PostgresStore], database_url: str
) -> None:
    made = await gather([add(one, f"{at}-{n}", "key") for n in range(4) for at, one in enumerate(stores)])
    assert made == {"AgentView": 1, "AGENT_EXISTS": 11}
    stranger = await connect(database_url)
    await stranger.execute(
        "BEGIN; INSERT INTO agents (id, name, public_key, created_at, updated_at) VALUES ('x', 'x', 'y', now(), now())"
    )
    late = asyncio.create_task(gather([add(stores[0], "late", "y"), add(stores[0], "other")]))
    await asyncio.sleep(0.05)
    await stranger.execute("COMMIT")
    await stranger.close()
    assert await late == {"AGENT_EXISTS": 1, "AgentView": 1}


async def test_two_daemons_suspend_and_use_one_agent_in_some_order(stores: list[PostgresStore]) -> None:
    for number in range(5):
        await add(stores[0], f"agent {number}")
        suspend = stores[0].change(Scope(agent=f"agent {number}"), partial(agents.suspend, reason=None), SYSTEM)
        made = [create(one, f"{number}-{at}", f"agent {number}") for at, one in enumerate(stores)]
        await asyncio.gather(suspend, *made, return_exceptions=True)
        of_agent = await stores[0].events(EventFilter(agent_id=f"agent {number}"), 100)
        assert of_agent[-1].type == "AGENT_SUSPENDED"


async def test_nothing_of_an_agent_commits_after_the_kill_switch(stores: list[PostgresStore]) -> None:
    await add(stores[0], "agent")
    await create(stores[0], "session")

    def record(rows: Rows, now: int) -> Outcome[int]:
        sessions.require_usable(rows, now)
        return Outcome(answer_at=lambda seq: seq, facts=(AgentCreated(agent_id="agent", name="x"),))

    async def publish(store: PostgresStore) -> None:
        found = ["int"]
        while found == ["int"]:
            found = list(await gather([store.change(Scope(session="session"), record, Origin("agent:agent"))]))
        assert found == ["SYSTEM_LOCKED"]

    busy = [asyncio.create_task(publish(one)) for one in stores for _ in range(4)]
    await asyncio.sleep(0.1)
    everything = Scope(values=(kill_switch.KEY,), pick="every", active_agents=True, while_locked=True)
    await stores[1].change(everything, partial(kill_switch.activate, reason="x"), SYSTEM)
    await asyncio.gather(*busy)
    types = await whole(stores[0])
    at = types.index("KILL_SWITCH_ACTIVATED")
    assert types[at:] == ["KILL_SWITCH_ACTIVATED", "AGENT_SUSPENDED", "SESSION_REVOKED", "SESSION_CLOSED"]
    assert at > 20


async def test_many_daemons_append_one_chain_without_a_gap(stores: list[PostgresStore]) -> None:
    async def work(at: int, store: PostgresStore) -> None:
        for number in range(20):
            await asyncio.gather(add(store, f"{at} {number} a"), add(store, f"{at} {number} b"))
            await gather([add(store, f"{at} {number} a")])

    await asyncio.gather(*(work(at, store) for at, store in enumerate(stores)))
    assert await whole(stores[0]) == ["AGENT_CREATED"] * 120


async def test_the_answer_made_from_a_number_gets_the_number_of_its_event(store: PostgresStore) -> None:
    def decide(_rows: Rows, _now: int, *, name: str) -> Outcome[int]:
        return Outcome(answer_at=lambda seq: seq, facts=(AgentCreated(agent_id=name, name=name),))

    names = [str(number) for number in range(20)]
    seqs = await asyncio.gather(*(store.change(Scope(), partial(decide, name=name), SYSTEM) for name in names))
    found = {event.seq: event.agent_id for event in await store.events(EventFilter(), 100)}
    assert [found[seq] for seq in seqs] == names


async def test_what_several_daemons_counted_adds_up_and_all_of_them_see_it(stores: list[PostgresStore]) -> None:
    await add(stores[0], "agent")
    await create(stores[0], "session")
    lives = [await store.live_by_id("session") for store in stores]
    for number, (store, live) in enumerate(zip(stores, lives, strict=True), 1):
        assert live is not None
        for _ in range(10 * number):
            store.touch(live, START + number, number)
    await asyncio.gather(*(store.flush() for store in stores))
    for store, live in zip(stores, lives, strict=True):
        assert live is not None
        store.touch(live, START + 9, 1)
    await asyncio.gather(*(store.flush() for store in stores))
    session = await stores[0].session("session")
    assert session is not None
    assert (session.request_count, session.last_activity, session.used_generation) == (63, START + 9, 3)
    store, live = stores[0], lives[0]
    assert live is not None
    store.touch(live, START + 9, 1)
    await store.flush()
    assert (live.counted, live.requests, live.used_generation) == (64, 0, 3)


async def test_a_message_is_one_daemons_to_send_until_it_leaves_it_alone(
    stores: list[PostgresStore], time: FakeTime
) -> None:
    channel = Channel("c", "WEBHOOK", "c", "sealed", 0, "INFO", None, None, True, START, START)
    await stores[0].change(Scope(), lambda _rows, _now: Outcome(answer=None, new_channel=channel), SYSTEM)
    for number in range(6):
        await add(stores[0], f"agent {number}")
        await create(stores[0], f"session {number}", f"agent {number}")
    found = await asyncio.gather(*(store.due_deliveries(2, []) for store in stores))
    taken = [one.id for some in found for one in some]
    assert len(taken) == len(set(taken)) == 6
    assert await stores[0].due_deliveries(6, []) == found[0]
    time.advance(9)
    assert await stores[0].due_deliveries(2, []) == found[0]
    time.advance(1)
    left = {one.id for some in found[1:] for one in some}
    assert {one.id for one in await stores[2].due_deliveries(6, [])} == left
    assert await stores[1].due_deliveries(6, []) == []


async def test_whatever_a_service_says_of_a_failure_is_logged(store: PostgresStore) -> None:
    attempt = Attempt("id", None, "TEST", "INFO", None, "FAILED", "a\0b", 0, START)
    await store.change(Scope(), lambda _rows, _now: Outcome(answer=None, attempts=(attempt,)), SYSTEM)
    assert [one.error for one in await store.attempts(AttemptFilter(), Page())] == ["a\ufffdb"]


async def test_an_equal_message_is_written_once_whichever_daemon_writes_it(stores: list[PostgresStore]) -> None:
    channel = Channel("c", "WEBHOOK", "c", "sealed", 0, "INFO", None, None, True, START, START)
    await stores[0].change(Scope(), lambda _rows, _now: Outcome(answer=None, new_channel=channel), SYSTEM)
    fact = SessionRevoked(agent_id="a", session_id="s", reason="manual_revoke")

    async def tell(store: PostgresStore) -> None:
        await store.change(Scope(), lambda _rows, _now: Outcome(answer=None, facts=(fact,)), SYSTEM)

    await asyncio.gather(*(tell(store) for store in stores for _ in range(3)))
    assert (await stores[0].backlog()).pending == 1
