"""PostgreSQL that goes away, hangs or loses a commit: fast and clear errors, and nothing half done."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from daemon.domain import agents, kill_switch
from daemon.domain.changes import Outcome, Rows, Scope
from daemon.domain.clock import DomainClock
from daemon.domain.errors import DaemonError
from daemon.domain.events import SYSTEM
from daemon.domain.rows import Agent
from daemon.stores.postgres.connection import connect
from daemon.stores.postgres.database import PostgresStore
from daemon.stores.postgres.migrate import migrate
from daemon.stores.postgres.opening import open_store
from tests.support import postgres
from tests.support.postgres import Cluster

pytestmark = pytest.mark.anyio

AWAY = "STORAGE_UNAVAILABLE 5"
_numbers = itertools.count(1)


class Reports(list[tuple[str, str]]):
    """What the engine told of."""

    def add(self, event: str, *, operation: str, reason: str) -> None:
        """Take one line."""
        assert event == "storage.failed"
        self.append((operation, reason))


@pytest.fixture
def reports() -> Reports:
    """What the engine told of."""
    return Reports()


async def opened(url: str, reports: Reports) -> PostgresStore:
    clock = DomainClock(time.time, time.monotonic)
    return await open_store(url, clock, cache_sessions=100, announce=lambda _: None, report=reports.add)


@pytest.fixture
async def store(database_url: str, reports: Reports) -> AsyncIterator[PostgresStore]:
    """A store on the server that tests share."""
    store = await opened(database_url, reports)
    yield store
    await store.close()


@pytest.fixture
async def own(own_cluster: Cluster, reports: Reports) -> AsyncIterator[PostgresStore]:
    """A store on a server that may be stopped, with a database of its own."""
    name = f"daemon_{next(_numbers)}"
    postgres.ask(own_cluster.url, f"CREATE DATABASE {name}")
    url = postgres.named(own_cluster.url, name)
    await migrate(url, now=1)
    store = await opened(url, reports)
    yield store
    await store.close()


async def add(store: PostgresStore, name: str) -> str:
    def decide(rows: Rows, now: int) -> Outcome[Any]:
        return agents.create(rows, now, agent=Agent(id=name, name=name, status="ACTIVE"))

    try:
        await store.change(Scope(), decide, SYSTEM)
    except DaemonError as refusal:
        return f"{refusal.code} {refusal.retry_after}"
    return "added"


EVERYTHING = Scope(values=(kill_switch.KEY,), pick="every", active_agents=True, while_locked=True)


async def activate(store: PostgresStore) -> str:
    try:
        return (await store.change(EVERYTHING, partial(kill_switch.activate, reason="x"), SYSTEM)).state
    except DaemonError as error:
        return error.code


@contextmanager
def frozen(cluster: Cluster) -> Iterator[None]:
    cluster.freeze()
    try:
        yield
    finally:
        cluster.thaw()


async def test_connections_that_a_restart_cut_are_replaced_without_an_error(
    own: PostgresStore, own_cluster: Cluster
) -> None:
    assert await asyncio.gather(*(add(own, f"before {number}") for number in range(20))) == ["added"] * 20
    own_cluster.stop()
    assert await add(own, "meanwhile") == AWAY
    own_cluster.start()
    assert await asyncio.gather(*(add(own, f"after {number}") for number in range(20))) == ["added"] * 20
    assert await own.agent("meanwhile") is None
    assert (await own.head()).seq == 40


async def test_a_server_that_hangs_is_an_error_within_a_second_for_everybody(
    own: PostgresStore, own_cluster: Cluster, reports: Reports
) -> None:
    await add(own, "first")
    with frozen(own_cluster):
        began = time.monotonic()
        early = [asyncio.create_task(add(own, f"early {number}")) for number in range(3)]
        await asyncio.sleep(0.1)
        late = [asyncio.create_task(add(own, f"late {number}")) for number in range(3)]
        assert await asyncio.gather(*early, *late) == [AWAY] * 6
        assert time.monotonic() - began < 1.2
    assert len(reports) == 1
    assert await add(own, "last") == "added"
    assert await own.agent("late 1") is None


async def test_what_stops_everything_is_given_up_only_when_the_server_answers_nobody(
    own: PostgresStore, own_cluster: Cluster
) -> None:
    holder = await connect(own._pool.url)
    await holder.execute("BEGIN; SELECT * FROM audit_head FOR UPDATE")
    activation = asyncio.create_task(activate(own))
    assert await add(own, "behind") == AWAY
    assert not activation.done()
    await holder.close()
    assert await activation == "ACTIVATED"
    with frozen(own_cluster):
        began = time.monotonic()
        assert await activate(own) == "STORAGE_UNAVAILABLE"
        assert 2 < time.monotonic() - began < 8


async def test_a_commit_whose_answer_was_lost_is_503_and_what_is_in_memory_is_read_again(
    store: PostgresStore, database_url: str, reports: Reports
) -> None:
    # Checked at the commit, and slow: the one moment at which nobody knows.
    postgres.script(
        database_url,
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep(30); RETURN NULL; END$$;"
        " CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON agents DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW WHEN (NEW.name = 'lost') EXECUTE FUNCTION slow()",
    )
    adding = [asyncio.create_task(add(store, name)) for name in ("a", "lost", "b")]
    await asyncio.sleep(0.1)
    postgres.ask(
        database_url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND query = 'COMMIT'",
    )
    assert await asyncio.gather(*adding) == [AWAY] * 3
    assert [operation for operation, _ in reports] == ["commit"]
    assert await store.agent_count() == 0
    assert await add(store, "next") == "added"
    assert (await store.head()).seq == 1
