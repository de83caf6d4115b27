"""Threads and event loops around the one core: who waits, who is woken, and what is left when somebody gives up."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from daemon.client import AsyncSession, Session, SessionEnded
from daemon.client.claims import claims
from daemon.client.finding import locator
from tests.client.conftest import OpenAgent
from tests.support.agents import Agent, InLoop, in_time_of, of_file
from tests.support.cutter import Cutter
from tests.support.daemon_process import wait_for
from tests.support.live import LiveDaemon


def generation(file: Path) -> int:
    return claims(file.read_text().strip(), "the file").gen


def at_once(count: int, work: Callable[[], Any]) -> list[Any]:
    """Do something in this many threads at the same moment."""
    barrier = threading.Barrier(count)

    def one() -> Any:
        barrier.wait(20)
        return work()

    with ThreadPoolExecutor(count) as pool:
        return [pool.submit(one) for _ in range(count)]


def test_all_who_renew_at_once_get_one_answer(live: LiveDaemon, open_agent: OpenAgent, file: Path) -> None:
    agents = [open_agent() for _ in range(4)]
    turn = iter(agents * 4)
    lock = threading.Lock()

    def renew() -> Any:
        with lock:
            agent = next(turn)
        return agent.do("renew")

    live.time.advance(501)
    answers = [done.result(20) for done in at_once(16, renew)]
    assert all(answer == answers[0] for answer in answers)
    assert (answers[0].renewal_count, generation(file)) == (1, 2)


def test_who_waits_is_woken_when_the_session_ends(
    live: LiveDaemon, made: dict[str, Any], open_agent: OpenAgent
) -> None:
    live.owner.patch(f"/v1/sessions/{made['id']}", json={"constraints": {"requestsPerMinute": 1}}).raise_for_status()
    agent, before = open_agent(timeout=300.0), refused(live)
    agent.do("whoami")
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(agent.do, "whoami") for _ in range(2)]
        wait_for(lambda: refused(live) == before + 2)
        live.owner.delete(f"/v1/sessions/{made['id']}").raise_for_status()
        with pytest.raises(SessionEnded):
            agent.do("whoami")
        for one in waiting:
            with pytest.raises(SessionEnded):
                one.result(20)
    wait_for(lambda: not keeps(agent))


def refused(live: LiveDaemon) -> int:
    """Return how many requests were refused as too many."""
    return live.home.log_file("logs/daemon.log").read_text().count('"status":429')


def keeps(agent: Agent) -> bool:
    keeper = agent.session._keeper
    return keeper is not None and not (keeper.done() if isinstance(keeper, asyncio.Task) else not keeper.is_alive())


def test_the_background_renews_without_a_request(live: LiveDaemon, open_agent: OpenAgent, file: Path) -> None:
    live.time.advance(700)
    open_agent()
    wait_for(lambda: generation(file) == 2)


def test_closing_stops_the_background(agent: Agent) -> None:
    agent.do("whoami")
    assert keeps(agent)
    agent.do("close")
    assert not keeps(agent)


def test_a_task_that_gives_up_in_the_middle_of_a_renewal_strands_nobody(
    live: LiveDaemon, file: Path, way: Cutter
) -> None:
    live.time.advance(501)

    async def main() -> None:
        located = locator(None, way.path, None, {})
        async with AsyncSession(of_file(file), located, in_time_of(live)) as session:
            for patience in (0.0, 0.001, 0.002, 0.005, 0.01, 0.02):
                try:
                    await asyncio.wait_for(session.renew(), patience)
                except TimeoutError:
                    continue
                break
            assert (await session.whoami()).renewal_count <= 1
        async with AsyncSession(of_file(file), located, in_time_of(live)) as session:
            live.time.advance(200)
            assert (await session.whoami()).renewal_count == 1

    asyncio.run(main())
    assert generation(file) == 2
    assert sorted(path.name for path in file.parent.iterdir() if path.suffix != ".sock") == ["token", "token.lock"]


def test_a_renewal_does_not_block_the_event_loop(live: LiveDaemon, open_agent: OpenAgent, file: Path) -> None:
    agent = open_agent()
    if not isinstance(agent, InLoop):
        pytest.skip("there is no event loop")
    claim = of_file(file).claim()
    assert claim is not None
    live.time.advance(501)
    waiting = asyncio.run_coroutine_threadsafe(agent.session.renew(), agent.loop)  # type: ignore[arg-type]
    assert agent.do("whoami").renewal_count == 0
    assert not waiting.done()
    claim.release()
    assert waiting.result(20).renewal_count == 1


def test_threads_and_tasks_share_one_file(live: LiveDaemon, file: Path) -> None:
    async def main() -> None:
        located = locator(None, None, live.root, {})
        with Session(of_file(file), located, in_time_of(live)) as threads:
            async with AsyncSession(of_file(file), located, in_time_of(live)) as tasks:
                for number in range(1, 5):
                    live.time.advance(700)
                    one = asyncio.to_thread(threads.whoami)
                    answers = await asyncio.gather(one, tasks.whoami(), tasks.whoami())
                    assert answers[0].id == answers[1].id
                    await asyncio.to_thread(wait_for, lambda number=number: generation(file) == number + 1)
                    assert (await tasks.whoami()).renewal_count == number
                    assert threads.token == tasks.token

    asyncio.run(main())
    assert generation(file) == 5
