"""Metrics when something is wrong: that is when somebody looks, and when somebody tries."""

import asyncio
import random
import re
import string
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from daemon.web.meter import UNROUTED
from tests.support.engines import both_engines
from tests.support.live import PASSWORD, LiveDaemon
from tests.support.scrape import ON, scrape
from tests.support.supervised import code

Launch = Callable[..., LiveDaemon]


def test_it_answers_while_the_kill_switch_is_on(launch: Launch) -> None:
    live = launch(**ON)
    live.new_session()
    assert scrape(live)("daemon_kill_switch_on") == 0
    live.owner.post("/v1/admin/kill-switch", json={"reason": "test"}).raise_for_status()
    found = scrape(live)
    assert found("daemon_kill_switch_on") == 1
    assert found("daemon_sessions", state="CLOSED", status="REVOKED") == 1
    assert code(live.anonymous.get("/v1/session")) == (503, "SYSTEM_LOCKED")
    assert scrape(live)("daemon_http_requests_total", route=UNROUTED, method="GET", code="503") == 1


def test_agents_that_use_up_the_global_rate_leave_it_open(launch: Launch) -> None:
    live = launch(**ON, DAEMON_SERVER_GLOBAL_RPM="2")
    client = live.agent(live.new_session()["token"])
    assert [client.get("/v1/session").status_code for _ in range(3)] == [200, 200, 429]
    assert [live.anonymous.get("/metrics").status_code for _ in range(5)] == [200] * 5


@both_engines
def test_a_database_that_cannot_be_read_is_told_and_what_is_in_memory_still_is(launch: Launch) -> None:
    live = launch(**ON)
    client = live.agent(live.new_session()["token"])
    client.get("/v1/session")
    live.query("ALTER TABLE agents RENAME TO gone")
    try:
        found = scrape(live)
    finally:
        live.query("ALTER TABLE gone RENAME TO agents")
    assert (found("daemon_database_up"), found("daemon_token_checks_total", result="ok")) == (0, 1)
    assert not any(map(found.has, ("daemon_sessions", "daemon_agents", "daemon_outbox_pending")))
    assert scrape(live)("daemon_database_up") == 1
    assert scrape(live).has("daemon_sessions")


def test_however_often_it_is_asked_the_database_is_asked_once_a_second(launch: Launch) -> None:
    live = launch(**ON)
    statements: list[str] = []

    async def trace(daemon: Any) -> None:
        for connection in daemon.parts.store._readers._all:
            await connection.run(lambda raw: raw.set_trace_callback(statements.append))

    live.call(trace)

    def censuses() -> int:
        return sum("FROM agents GROUP BY status" in statement for statement in statements)

    with ThreadPoolExecutor(16) as pool:
        formats = ["text/plain", "application/openmetrics-text"] * 40
        texts = list(pool.map(lambda accept: live.anonymous.get("/metrics", headers={"Accept": accept}).text, formats))
    assert (len(set(texts)), censuses()) == (2, 1)
    scrape(live)
    assert censuses() == 2


METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "LOCK", "PURGE")


def hammer(live: LiveDaemon, token: str, seed: int) -> None:
    """Ask for what nobody has asked for before, in every way that there is."""
    dice, agent = random.Random(seed), live.agent(token)

    def word() -> str:
        return "".join(dice.choices(string.ascii_letters + string.digits + "-._~{}", k=12))

    for number in range(60):
        headers = {"X-Request-Id": word()[:8].strip("{}~") + "x", "X-Daemon-Client": word(), "User-Agent": word()}
        if number % 3 == 0:
            headers["Host"] = f"{seed}-{number}.example"
        path = "/" + "/".join(word() for _ in range(1 + number % 4))
        client = agent if number % 2 else live.anonymous
        client.request(METHODS[number // 6], path, headers=headers)
        client.request(METHODS[number // 6], f"/v1/sessions/{word()}", headers=headers)
        agent.get(f"/v1/conversations/{word()}")
        live.anonymous.get("/v1/session", headers={"Authorization": f"Bearer wai_sess_{word()}"})


def test_no_client_can_add_a_number(launch: Launch) -> None:
    live = launch(**ON)
    token = live.new_session()["token"]
    scrape(live)
    hammer(live, token, seed=1)
    before = scrape(live)
    hammer(live, token, seed=2)
    after = scrape(live)
    assert after.samples.keys() == before.samples.keys()
    assert after.total("daemon_http_requests_total") - before.total("daemon_http_requests_total") == 4 * 60 + 1
    methods = {dict(labels)["method"] for _, labels in after.samples if dict(labels).get("route") == UNROUTED}
    assert methods <= {*METHODS[:7], "other"}


def test_nothing_in_it_is_an_id_or_a_secret(launch: Launch) -> None:
    live = launch(**ON)
    agent = live.new_agent("a-name-of-an-agent")
    made = live.new_session(agent, ttl=600, userId="user-17", metadata={"key": "value-of-metadata"})
    client = live.agent(made["token"])
    client.get("/v1/session")
    client.put("/v1/conversations/conversation-99", json={"provider": "anthropic", "model": "sonnet"})
    live.time.advance(300)
    token = client.put(f"/v1/sessions/{made['id']}/renew").json()["token"]
    live.owner.get(f"/v1/sessions/{made['id']}")
    live.time.advance(1)
    for accept in ("text/plain", "application/openmetrics-text"):
        text = live.anonymous.get("/metrics", headers={"Accept": accept}).text
        secrets = (agent, made["id"], made["token"], token, PASSWORD, "a-name-of", "user-17", "conversation-99")
        assert [one for one in (*secrets, "value-of-metadata", "127.0.0.1", "anthropic") if one in text] == []
        assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}|wai_|[0-9a-f]{32}", text)


def test_a_scraper_that_hangs_up_disturbs_no_other(shared: LiveDaemon) -> None:
    async def hurry() -> None:
        async with httpx.AsyncClient(base_url=shared.url, trust_env=False) as client:
            tasks = [asyncio.ensure_future(client.get("/metrics")) for _ in range(20)]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            assert {one.status_code for one in answers if isinstance(one, httpx.Response)} == {200}

    shared.time.advance(1)
    asyncio.run(hurry())
    assert scrape(shared)("daemon_database_up") == 1
