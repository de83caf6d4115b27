"""Two real daemons on one PostgreSQL database and one Redis: of a conversation there is one binding, whoever fails."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.support.daemon_process import wait_for
from tests.support.pair import Site
from tests.support.postgres import ask, fresh_database
from tests.support.proxy import Proxy
from tests.support.redis import RedisServer

CONVERSATION = "/v1/conversations/conv"
A, B = {"provider": "anthropic", "model": "claude"}, {"provider": "openai", "model": "gpt"}


class Sharing(NamedTuple):
    """Two daemons, a session of both, and the way on which the second reaches Redis."""

    a: Site
    b: Site
    database: str
    server: RedisServer
    way: Proxy
    agents: tuple[httpx.Client, httpx.Client]

    def held(self) -> list[str]:
        """Return the providers that Redis holds."""
        return [json.loads(text)["provider"] for text in self.server.everything().values()]


@pytest.fixture
def sharing(tmp_path: Path) -> Iterator[Sharing]:
    """Start them."""
    server = RedisServer(tmp_path)
    way = Proxy(server.url)
    sites: list[Site] = []
    with fresh_database() as url:
        try:
            sites.append(Site(tmp_path / "a", url, DAEMON_CONVERSATIONS_URL=server.url))
            (tmp_path / "b").mkdir(mode=0o700)
            shutil.copy(tmp_path / "a" / "seal.key", tmp_path / "b" / "seal.key")
            sites.append(Site(tmp_path / "b", url, DAEMON_CONVERSATIONS_URL=way.url))
            token = sites[0].new_session()["token"]
            yield Sharing(*sites, url, server, way, tuple(site.agent(token) for site in sites))  # type: ignore[arg-type]
        finally:
            for site in sites:
                if site.process.poll() is None:
                    site.kill9()
            way.close()
            server.kill()


def rebind(agent: httpx.Client, expected: dict[str, str], wanted: dict[str, str]) -> int:
    body = {"expected": expected, **wanted, "reason": "529"}
    return agent.post(f"{CONVERSATION}/rebind", json=body).status_code


def state(site: Site) -> dict[str, Any]:
    found: dict[str, Any] = site.client().get("/health").json()["checks"]["conversations"]
    return found


def test_what_one_changes_while_it_cannot_reach_redis_the_other_sees_and_does_not_overrule(sharing: Sharing) -> None:
    first, second = sharing.agents
    assert first.put(CONVERSATION, json=A).status_code == 201
    assert second.put(CONVERSATION, json=A).json()["matched"] is True
    sharing.way.close()
    assert rebind(second, A, B) == 200
    since = time.monotonic()
    wait_for(lambda: first.get(CONVERSATION).json()["provider"] == "openai", 1)
    assert time.monotonic() - since < 1
    assert rebind(first, A, {**A, "model": "other"}) == 409
    assert state(sharing.a) == {"status": "degraded", "detail": "Redis is not used: another daemon cannot reach it"}
    assert rebind(first, B, A) == 200
    assert second.get(CONVERSATION).json()["provider"] == "anthropic"
    assert second.delete(CONVERSATION).status_code == 204
    assert first.get(CONVERSATION).status_code == 404


def test_what_a_daemon_left_that_was_killed_while_cut_off_is_in_redis_once_the_others_return(sharing: Sharing) -> None:
    first, second = sharing.agents
    assert first.put(CONVERSATION, json=A).status_code == 201
    sharing.way.close()
    assert rebind(second, A, B) == 200
    assert sharing.held() == ["anthropic"]
    wait_for(lambda: first.get(CONVERSATION).json()["provider"] == "openai", 1)
    sharing.a.kill9()
    sharing.a.start()
    with sharing.a.agent(first.headers["Authorization"].split()[1]) as again:
        assert again.get(CONVERSATION).json()["provider"] == "openai"
    sharing.b.kill9()
    wait_for(lambda: state(sharing.a)["status"] == "ok", 10)
    assert sharing.held() == ["openai"]


def test_a_redis_that_is_restarted_empty_is_left_and_taken_up_by_both_and_no_rebind_is_lost(sharing: Sharing) -> None:
    bound, count = A, 0
    assert sharing.agents[0].put(CONVERSATION, json=A).status_code == 201
    for restart in range(3):
        sharing.server.kill()
        sharing.server.start()
        for number in range(20):
            wanted = {"provider": "p", "model": f"{restart}-{number}"}
            assert wait_for(lambda: rebind(sharing.agents[number % 2], bound, wanted) == 200, 1)  # noqa: B023 (called at once)
            bound, count = wanted, count + 1
    wait_for(lambda: all(state(site)["status"] == "ok" for site in (sharing.a, sharing.b)), 10)
    wait_for(lambda: sharing.agents[1].get(CONVERSATION).json()["model"] == bound["model"], 1)
    assert ask(sharing.database, "SELECT model, rebind_count FROM conversations") == [(bound["model"], count)]
    told = "SELECT count(*) FROM audit_log WHERE event_type = 'CONVERSATION_REBOUND'"
    assert ask(sharing.database, told) == [(count,)]
