"""PostgreSQL's connections: times as seconds, a bounded pool, and a server that stops, crashes or hangs."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from daemon.domain.errors import STORAGE_UNAVAILABLE, DaemonError
from daemon.stores.postgres.connection import ANSWER_TIMEOUT, Connection, Pool, connect, open_pool
from daemon.stores.postgres.reasons import reason
from tests.support.postgres import Cluster, fresh_database, server

WITHIN = 1.0


async def one(connection: Connection) -> Any:
    return await connection.fetchval("SELECT 1")


async def backend(connection: Connection) -> Any:
    return await connection.fetchval("SELECT pg_backend_pid()")


@pytest.fixture
async def pool(own_cluster: Cluster) -> AsyncIterator[Pool]:
    """A pool of two connections to a server that may be stopped."""
    made = await open_pool(own_cluster.url, 2)
    yield made
    await made.close()


async def failure(pool: Pool, question: Any = one) -> DaemonError:
    """Return the error of a question, which must come within a second."""
    started = time.monotonic()
    with pytest.raises(DaemonError) as caught:
        await pool.run(question)
    assert time.monotonic() - started < WITHIN + 0.2
    assert caught.value.code == STORAGE_UNAVAILABLE.code
    assert caught.value.retry_after
    return caught.value


@pytest.mark.parametrize("moment", [0, -1, 946_684_800, 946_684_799, 1_750_000_000, 253_402_300_799])
async def test_times_are_seconds_in_both_directions(moment: int) -> None:
    connection = await connect(server())
    try:
        row = await connection.fetchrow(
            "SELECT $1::timestamptz, extract(epoch FROM $1)::bigint, $1 + interval '0.9 s', $2::timestamptz[]",
            moment,
            [moment, None],
        )
        assert tuple(row) == (moment, moment, moment, [moment, None])
    finally:
        await connection.close()


async def test_no_more_connections_are_opened_than_asked_for_and_the_next_free_one_answers(pool: Pool) -> None:
    assert len(set(await asyncio.gather(*(pool.run(backend) for _ in range(50))))) <= 2
    assert await pool.run(backend) == await pool.run(backend)


async def test_a_refusal_of_the_law_leaves_the_connection_and_what_was_open_is_rolled_back(pool: Pool) -> None:
    async def refuse(connection: Connection) -> None:
        async with connection.transaction():
            raise DaemonError(STORAGE_UNAVAILABLE, "no")

    async def leave_open(connection: Connection) -> Any:
        await connection.execute("BEGIN; CREATE TABLE left_open (n int)")
        return await connection.fetchval("SELECT to_regclass('left_open') IS NOT NULL")

    before = await pool.run(backend)
    with pytest.raises(DaemonError, match="no"):
        await pool.run(refuse)
    assert await pool.run(backend) == before
    assert await pool.run(leave_open)
    assert await pool.run(lambda connection: connection.fetchval("SELECT to_regclass('left_open')")) is None
    assert await pool.run(backend) != before


async def test_a_bad_statement_is_an_error_without_a_second_attempt(pool: Pool) -> None:
    attempts = 0

    async def wrong(connection: Connection) -> None:
        nonlocal attempts
        attempts += 1
        await connection.execute("SELEC")

    before = await pool.run(backend)
    await failure(pool, wrong)
    assert (attempts, await pool.run(backend)) == (1, before)


async def test_a_connection_that_was_lost_is_replaced_without_an_error(pool: Pool, own_cluster: Cluster) -> None:
    before = await pool.run(backend)
    own_cluster.stop()
    own_cluster.start()
    assert await pool.run(backend) != before

    attempts = 0

    async def cut_off_once(connection: Connection) -> Any:
        nonlocal attempts
        attempts += 1
        return await connection.fetchval("SELECT pg_terminate_backend(pg_backend_pid()) WHERE $1", attempts == 1)

    assert await pool.run(cut_off_once) is None
    assert attempts == 2


async def test_what_cannot_know_what_it_did_is_not_run_again(pool: Pool) -> None:
    attempts = 0

    async def cut_off(connection: Connection) -> None:
        nonlocal attempts
        attempts += 1
        await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(DaemonError):
        await pool.run(cut_off, again=False)
    assert attempts == 1
    assert await pool.run(one) == 1


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_while_the_server_is_away_the_answer_is_an_error_at_once(
    pool: Pool, own_cluster: Cluster, how: str
) -> None:
    getattr(own_cluster, how)()
    try:
        started = time.monotonic()
        for _ in range(5):
            await failure(pool)
        assert time.monotonic() - started < WITHIN
    finally:
        own_cluster.start()
    assert await pool.run(one) == 1


async def test_a_server_that_hangs_is_an_error_within_a_second_for_everybody_and_then_forgotten(
    pool: Pool, own_cluster: Cluster
) -> None:
    own_cluster.freeze()
    try:
        started = time.monotonic()
        await asyncio.gather(*(failure(pool) for _ in range(6)))
        assert ANSWER_TIMEOUT <= time.monotonic() - started < WITHIN + 0.2
    finally:
        own_cluster.thaw()
    assert await pool.run(one) == 1


async def test_a_connection_that_takes_longer_than_anybody_waits_is_there_for_the_next(own_cluster: Cluster) -> None:
    pool = Pool(own_cluster.url, 1)
    try:
        own_cluster.freeze()
        try:
            await failure(pool)
        finally:
            own_cluster.thaw()
        assert await pool.run(backend) == await pool.run(backend)
    finally:
        await pool.close()


async def test_a_pool_that_cannot_be_opened_tells_no_password(own_cluster: Cluster) -> None:
    url = own_cluster.url.replace("postgres@", "nobody:sesame@", 1)
    with pytest.raises(DaemonError) as caught:
        await open_pool(url)
    told = f"{caught.value!r} {caught.value} {caught.value.__cause__!r} {Pool(url, 1)!r}"
    assert "sesame" not in told


async def test_every_connection_of_a_closed_pool_ends() -> None:
    with fresh_database(migrated=False) as url:
        pool = await open_pool(url, 3)
        await asyncio.gather(*(pool.run(lambda c: c.fetchval("SELECT pg_sleep(0.01)")) for _ in range(3)))
        await pool.close()
        watcher = await connect(url)
        try:
            deadline = time.monotonic() + 5
            while await watcher.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
                " AND backend_type = 'client backend'"
            ):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)
        finally:
            await watcher.close()


async def test_a_connection_that_the_server_ended_is_told_in_the_servers_words(database_url: str) -> None:
    cut, other = await connect(database_url), await connect(database_url)
    try:
        asking = asyncio.ensure_future(cut.execute("SELECT pg_sleep(5)"))
        while not await other.fetchval("SELECT pg_terminate_backend($1)", cut.get_server_pid()):
            await asyncio.sleep(0.01)
        with pytest.raises(asyncpg.PostgresConnectionError) as lost:
            await asking
        said = reason(lost.value, database_url)
        assert "terminating connection due to administrator command; try again" in said
        assert "database.url" not in said
    finally:
        cut.terminate()
        other.terminate()
