"""The SQLite engine: group commit, the cache, activity written behind."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from daemon.domain import session_creation
from daemon.domain.changes import Outcome, Rows, Scope
from daemon.domain.clock import DomainClock
from daemon.domain.errors import AGENT_NOT_FOUND, DaemonError
from daemon.domain.events import SYSTEM
from daemon.domain.facts.agents import AgentCreated
from daemon.domain.process_rows import Process, Turn
from daemon.domain.rows import Agent
from daemon.stores.migrate import migrate
from daemon.stores.sqlite import processes
from daemon.stores.sqlite.database import SQLiteStore
from daemon.stores.sqlite.opening import open_store
from daemon.stores.sqlite.writer import Transaction, Unit
from tests.support.engines import ask

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    path = tmp_path / "daemon.db"
    migrate(path, now=1000, backups=tmp_path)
    clock = DomainClock(lambda: 1000.0, lambda: 0.0)
    opened = await open_store(
        path, clock, synchronous="full", cache_sessions=3, announce=lambda _: None, failed=lambda _: None
    )
    yield opened
    await opened.close()


def adding(name: str) -> Any:
    def decide(_rows: Rows, now: int) -> Outcome[str]:
        agent = Agent(id=name, name=name, status="ACTIVE", created_at=now, updated_at=now)
        return Outcome(answer=name, new_agent=agent, facts=(AgentCreated(agent_id=name, name=name),))

    return decide


async def add(store: SQLiteStore, name: str) -> str:
    return await store.change(Scope(), adding(name), SYSTEM)


def refusing(_rows: Rows, _now: int) -> Outcome[str]:
    raise DaemonError(AGENT_NOT_FOUND)


def breaking(_rows: Rows, _now: int) -> Outcome[str]:
    raise ZeroDivisionError


async def test_a_refused_and_a_failing_unit_harm_no_other_of_their_batch(store: SQLiteStore) -> None:
    work = [add(store, "a"), store.change(Scope(), refusing, SYSTEM), add(store, "b")]
    work += [store.change(Scope(), breaking, SYSTEM), add(store, "a"), add(store, "c")]
    results = await asyncio.gather(*work, return_exceptions=True)
    kinds = [result if isinstance(result, str) else type(result).__name__ for result in results]
    assert kinds == ["a", "DaemonError", "b", "ZeroDivisionError", "DaemonError", "c"]
    assert isinstance(results[4], DaemonError)
    assert results[4].code == "STORAGE_UNAVAILABLE"
    assert await store.agent_count() == 3
    rows = await store.event_rows(0, 10)
    assert [(row[0], row[4]) for row in rows] == [(1, "a"), (2, "b"), (3, "c")]
    assert (await store.head()).seq == 3


async def test_concurrent_changes_share_one_commit(store: SQLiteStore) -> None:
    commits: list[str] = []
    await store._connection.run(lambda raw: raw.set_trace_callback(commits.append))
    await asyncio.gather(*(add(store, f"agent {number}") for number in range(100)))
    assert commits.count("COMMIT") <= 3


async def test_a_lost_commit_answers_everybody_503_and_leaves_nothing(store: SQLiteStore) -> None:
    await add(store, "before")

    def lose(tx: Transaction) -> None:
        tx.raw.execute("ROLLBACK")
        raise sqlite3.OperationalError("disk I/O error")

    results = await asyncio.gather(
        add(store, "a"), store._writer.run(Unit(lose)), add(store, "b"), return_exceptions=True
    )
    assert [getattr(result, "code", result) for result in results] == ["STORAGE_UNAVAILABLE"] * 3
    assert (await store.agent_count(), (await store.head()).seq) == (1, 1)
    assert await add(store, "after") == "after"
    assert (await store.head()).seq == 2


async def test_a_waiter_that_was_cancelled_still_gets_its_row_written(store: SQLiteStore) -> None:
    task = asyncio.ensure_future(add(store, "patient"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await add(store, "next") == "next"
    assert await store.agent_count() == 2


async def test_a_session_its_process_and_its_turns_are_read_as_of_one_moment(
    store: SQLiteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add(store, "a")
    row = session_creation.blank("s", "a", created_by="process", max_renewals=0, state="IDLE")
    made: Outcome[None] = Outcome(new_session=row, new_process=Process("s", "home", "{}", None, "x"))
    await store.change(Scope(), lambda _rows, _now: made, SYSTEM)
    read = processes.turns

    def late(raw: sqlite3.Connection, session_id: str) -> list[Turn]:
        ask(
            tmp_path / "daemon.db",
            "INSERT INTO turns (session_id, turn, state, created_at) VALUES ('s', 1, 'RUNNING', 1)",
        )
        return read(raw, session_id)

    monkeypatch.setattr(processes, "turns", late)
    found = await store.supervised("s")
    monkeypatch.undo()
    assert found is not None
    assert (found.session.id, found.turns) == ("s", [])
    after = await store.supervised("s")
    assert after is not None
    assert after.turns == [Turn("s", 1, "RUNNING", None, 1)]
