"""What makes a daemon's memory follow the rows that others change, piece by piece."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from daemon.domain import session_creation
from daemon.domain.clock import DomainClock
from daemon.domain.errors import STORAGE_UNAVAILABLE, DaemonError
from daemon.domain.events import Event
from daemon.domain.rows import Agent, Session
from daemon.stores.cache import SessionCache
from daemon.stores.postgres.announcer import CHUNK, Announcer
from daemon.stores.postgres.connection import connect, open_pool
from daemon.stores.postgres.leader import SERVER_SETTINGS, Leader
from daemon.stores.postgres.listener import CURRENT_SECONDS, Listener
from daemon.stores.postgres.server_clock import ServerClock
from daemon.stores.postgres.word import CHANNEL, Word

AGENT = Agent("a1", "agent", "ACTIVE")


def clock() -> DomainClock:
    return DomainClock(time.time, time.monotonic)


def session(**fields: Any) -> Session:
    known = {"token_hash": "t1", "used_generation": 1, **fields}
    return session_creation.blank("s1", "a1", created_by="api", max_renewals=3, **known)


async def until(fact: Callable[[], Any], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, "the fact did not come true in time"
        await asyncio.sleep(0.005)


def test_what_another_daemon_changed_is_not_served_until_it_is_read_again_into_the_same_object() -> None:
    cache = SessionCache(10, clock())
    live = cache.add(session(), AGENT)
    cache.count(live, 100, 1)
    cache.doubt(["s1"], [])
    assert cache.by_token("t1") is cache.by_id("s1") is None
    assert cache.add(session(token_hash="t2", generation=2, request_count=7), AGENT) is live
    assert (live.requests, live.counted, live.last_activity, live.rotated_monotonic) == (1, 7, 100, None)
    assert cache.by_token("t2") is live
    assert cache.by_token("t1") is None


def test_an_agent_that_another_daemon_changed_makes_all_its_sessions_stale() -> None:
    cache = SessionCache(10, clock())
    lives = [cache.add(session(id=f"s{number}", token_hash=f"t{number}"), AGENT) for number in range(3)]
    cache.doubt([], ["a1"])
    assert [cache.by_token(live.session.token_hash) for live in lives] == [None] * 3
    cache.add(lives[0].session, msgspec.structs.replace(AGENT, status="SUSPENDED"))
    assert {live.agent.row.status for live in lives} == {"SUSPENDED"}
    assert [cache.by_token(live.session.token_hash) for live in lives] == lives


def test_an_own_commit_does_not_make_fresh_what_another_daemon_changed_since() -> None:
    cache = SessionCache(10, clock())
    live = cache.add(session(), AGENT)
    cache.doubt(["s1"], ["a1"])  # of a later commit; word of it came before the answer to the own one
    cache.put(session(metadata="{}"))
    cache.put_agent(AGENT)
    assert cache.by_token("t1") is None
    assert live.stale


@pytest.mark.parametrize("doubt", [lambda cache: cache.doubt(["s1"], []), lambda cache: cache.doubt([], ["a1"]),
                                   lambda cache: cache.doubt_everything()])  # fmt: skip
def test_word_of_a_change_makes_the_reading_that_it_overtakes_begin_again(doubt: Callable[[Any], None]) -> None:
    cache = SessionCache(10, clock())
    since = cache.begin_load()
    doubt(cache)
    assert not cache.end_load(since, "s1", "a1")
    since = cache.begin_load()
    assert cache.end_load(since, "s1", "a1")


def test_what_changes_while_others_are_read_takes_bounded_memory() -> None:
    cache = SessionCache(10, clock())
    since = cache.begin_load()
    for number in range(25_000):
        cache.doubt([f"x{number}"], [])
    assert len(cache._touched) <= 10_001
    assert not cache.end_load(since, "s1")


def event(seq: int) -> Event:
    return Event(seq, 0, "T", "info", "system", None, None, None, None, msgspec.Raw(b"{}"), "", "")


class Table:
    """Events that are committed, and what was announced of them."""

    def __init__(self) -> None:
        self.committed = 0
        self.told: list[int] = []
        self.fails = 0
        self.announcer = Announcer(self.read, lambda events: self.told.extend(one.seq for one in events))

    async def read(self, after: int, limit: int) -> list[Event]:
        await asyncio.sleep(0)
        if self.fails:
            self.fails -= 1
            raise DaemonError(STORAGE_UNAVAILABLE)
        return [event(seq) for seq in range(after + 1, min(self.committed, after + limit) + 1)]


async def test_every_event_is_announced_once_and_in_order_whoever_committed_it() -> None:
    table = Table()
    table.committed = 3
    table.announcer.committed([event(3)])
    assert table.told == []
    table.announcer.follow(1)
    table.committed = 6
    table.announcer.committed([event(5), event(6)])  # 4 is another daemon's, and word of it comes late
    table.announcer.seen(4)
    await until(lambda: len(table.told) == 5)
    table.committed = 7
    table.announcer.committed([event(7)])
    assert table.told == [2, 3, 4, 5, 6, 7]
    table.fails = 2
    table.committed = 7 + 2 * CHUNK + 5
    table.announcer.seen(table.committed)
    table.announcer.seen(9)
    await until(lambda: table.told[-1] == table.committed)
    assert table.told == list(range(2, table.committed + 1))
    await table.announcer.close()


async def test_events_that_nobody_told_of_are_found_by_a_look() -> None:
    table = Table()
    table.announcer.follow(0)
    table.announcer.look()
    await asyncio.sleep(0.01)
    table.committed = 1
    table.announcer.look()
    await until(lambda: table.told == [1])
    await table.announcer.close()


@pytest.fixture
async def listening(database_url: str) -> AsyncIterator[tuple[Listener, list[Word], list[str], list[str]]]:
    heard: list[Word] = []
    begun: list[str] = []
    said: list[str] = []

    async def begin() -> None:
        begun.append("begun")

    listener = Listener(
        lambda: connect(database_url),
        "test1",
        heard=heard.append,
        begin=begin,
        report=lambda name, **_: said.append(name),
    )
    await listener.open()
    yield listener, heard, begun, said
    await listener.close()


async def test_a_listener_is_current_by_its_own_beats_and_comes_back_by_itself(
    listening: tuple[Listener, list[Word], list[str], list[str]], database_url: str
) -> None:
    listener, heard, begun, said = listening
    await until(lambda: listener.is_current, CURRENT_SECONDS)
    other = await connect(database_url)
    await other.execute("SELECT pg_notify($1, $2)", CHANNEL, Word(by="b", sessions=["s1"], seq=4).text())
    await other.execute("SELECT pg_notify($1, 'from a newer daemon')", CHANNEL)
    await until(lambda: len(heard) == 2)
    assert heard[0] == Word(by="b", sessions=["s1"], seq=4)
    assert heard[1].everything
    await other.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await until(lambda: said == ["storage.lost", "storage.recovered"], 2)
    assert begun == ["begun"] * 2
    await until(lambda: listener.is_current, CURRENT_SECONDS)
    await other.close()
    await listener.close()
    assert not listener.is_current


async def test_one_daemon_leads_until_its_connection_is_gone(database_url: str) -> None:
    one, two = (Leader(lambda: connect(database_url, settings=SERVER_SETTINGS)) for _ in range(2))
    await one.open()
    await two.open()
    assert await one.leads("sweeper")
    assert not await two.leads("sweeper")
    assert await two.leads("idle")
    assert not await one.leads("idle")
    await one.close()
    assert not await one.leads("sweeper")
    until_then = time.monotonic() + 2
    while not await two.leads("sweeper"):
        assert time.monotonic() < until_then
        await asyncio.sleep(0.01)
    await two.close()


async def test_the_domain_clock_is_the_servers_and_a_skew_is_told_once_per_change(database_url: str) -> None:
    said: list[int] = []
    behind = [30.0]

    def wall() -> float:
        return time.time() - behind[0]

    domain = DomainClock(wall, time.monotonic)
    pool = await open_pool(database_url, 1)
    server = ServerClock(pool, domain, lambda name, seconds: said.append(seconds), wall)
    for skew in (30.0, 30.3, -3.0, 90.0):
        behind[0] = skew
        await server.measure()
        assert abs(domain.now() - time.time()) <= 1.1
    assert said == [30, 90]
    await pool.close()
