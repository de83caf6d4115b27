"""Conversations in Redis: the keys, what wins, and how the engine follows."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import redis

from daemon.domain.errors import DaemonError
from daemon.domain.events import SYSTEM
from daemon.domain.rows import Conversation
from daemon.running import Daemon
from daemon.stores.redis.keys import Keys
from daemon.stores.redis.values import decode, encode
from tests.support.daemon_process import wait_for
from tests.support.live import LiveDaemon
from tests.support.redis import SHARED, shared

A = {"provider": "anthropic", "model": "claude-sonnet-4-5"}
B = {"provider": "openai", "model": "gpt-5"}
NOW = 1_800_000_000


@pytest.mark.parametrize(
    "session_id", ["conv-123", "", ":", "a:b", "a b", "ü/가\U0001f600", "*", "{x}", "\x00", "x" * 256]
)
def test_a_key_is_the_prefix_and_the_id_as_it_is(session_id: str) -> None:
    assert Keys("sentinel:session:").session(session_id) == f"sentinel:session:{session_id}"
    assert Keys("p").conversation(("agent", session_id)) == f"pagent:{session_id}"


def test_a_value_is_what_it_was_made_from() -> None:
    row = Conversation("agent", "ü/\U0001f600", "p", "m/1", None, "session", 1, 2, 3, 4, 5)
    assert decode(encode(row), row.key) == row


class World:
    """A daemon with its conversations in the Redis of this machine, under a prefix of its own."""

    def __init__(self, live: LiveDaemon, prefix: str) -> None:
        self.live = live
        self.session = live.new_session(ttl=604_800)
        self.agent = live.agent(self.session["token"])
        self.plain = redis.Redis.from_url(SHARED, decode_responses=True)
        self.key = f"{prefix}{self.session['agentId']}:conv"

    def bind(self, to: dict[str, str] = A) -> httpx.Response:
        return self.agent.put("/v1/conversations/conv", json=to)

    def held(self) -> dict[str, Any] | None:
        text = self.plain.get(self.key)
        return json.loads(text) if text is not None else None

    def put(self, **changed: Any) -> None:
        """Let Redis hold something, as another daemon would have left it."""
        session_id, ends = self.session["id"], NOW + 86_400
        value = {"id": "conv", **A, "external_id": None, "created_at": NOW, "session_id": session_id}
        value |= {"last_activity": NOW, "expires_at": ends, "request_count": 1, "rebind_count": 0}
        self.plain.set(self.key, json.dumps({**value, **changed}), ex=60)

    def row(self) -> tuple[Any, ...] | None:
        rows = self.live.query("SELECT provider, created_at, request_count, rebind_count FROM conversations")
        return rows[0] if rows else None

    def told(self) -> list[tuple[str, Any]]:
        found = [event for event in self.live.events() if event["type"].startswith("CONVERSATION_")]
        return [(event["type"], event["details"].get("reason")) for event in found]

    def flush(self) -> None:
        """Let the engine be told, patience being over."""
        self.live.time.mono += 3
        self.live.call(lambda daemon: daemon.parts.bindings.flush())

    def merge(self, **changed: Any) -> None:
        """Copy a row of the engine to Redis."""
        fields = {**A, "created_at": NOW, "last_activity": NOW, "expires_at": NOW + 86_400, "request_count": 1}
        offered = Conversation(self.session["agentId"], "conv", **{**fields, **changed})

        async def copy(daemon: Daemon) -> None:
            await daemon.parts.bindings._bindings.merge([offered])  # type: ignore[attr-defined]

        self.live.call(copy)


@pytest.fixture
def world(launch: Callable[..., LiveDaemon]) -> Iterator[World]:
    with shared() as env:
        yield World(launch(**env), env["DAEMON_CONVERSATIONS_KEY_PREFIX"])


@pytest.mark.parametrize(
    ("in_redis", "in_engine", "wins"),
    [
        ({"last_activity": NOW + 1}, {**B, "last_activity": NOW}, "anthropic"),
        ({"last_activity": NOW}, {**B, "last_activity": NOW + 1}, "openai"),
        ({"rebind_count": 1}, {**B}, "anthropic"),
        ({}, {**B, "rebind_count": 1}, "openai"),
        ({"last_activity": NOW + 9}, {**B, "rebind_count": 1}, "openai"),
        ({"created_at": NOW - 5, "last_activity": NOW + 9}, {**B, "rebind_count": 1}, "anthropic"),
        ({"expires_at": NOW}, {**B}, "openai"),
    ],
)
def test_the_newest_use_wins_and_no_rebind_is_lost(
    world: World, in_redis: dict[str, Any], in_engine: dict[str, Any], wins: str
) -> None:
    world.put(**in_redis)
    world.merge(**in_engine)
    held = world.held()
    assert held is not None
    assert held["provider"] == wins
    assert world.plain.ttl(world.key) > 0


def test_what_another_daemon_began_and_could_not_tell_is_told_once(world: World) -> None:
    world.put(request_count=5)
    assert world.bind(B).json()["requestCount"] == 6
    assert world.row() is None
    world.bind()
    world.flush()
    assert world.row() == ("anthropic", NOW, 7, 0)
    world.bind()
    world.flush()
    assert world.row() == ("anthropic", NOW, 8, 0)
    assert world.told() == [("CONVERSATION_BOUND", None)]


def test_what_another_daemon_rebound_and_could_not_tell_is_told_once(world: World) -> None:
    world.bind()
    world.put(**B, rebind_count=1)
    world.bind()
    world.flush()
    world.flush()
    assert world.row() == ("openai", NOW, 2, 1)
    assert world.told() == [("CONVERSATION_BOUND", None), ("CONVERSATION_REBOUND", "found in Redis")]


def test_what_was_deleted_before_the_engine_was_told_stays_deleted(world: World) -> None:
    world.put()
    world.bind()
    world.plain.delete(world.key)
    world.flush()
    assert (world.row(), world.told()) == (None, [])
    world.put()
    assert world.agent.delete("/v1/conversations/conv").status_code == 204
    assert (world.row(), world.told()) == (None, [("CONVERSATION_DELETED", None)])


def test_uses_reach_the_engine_within_a_second_and_with_every_list(world: World) -> None:
    for _ in range(3):
        world.bind()
    listed = world.agent.get("/v1/conversations").json()
    assert [one["requestCount"] for one in listed] == [3]
    world.bind()
    wait_for(lambda: world.row() == ("anthropic", NOW, 4, 0), 3)


def test_what_the_engine_refuses_is_taken_back(world: World) -> None:
    """The session ends between its check and the write: nothing of it may stay."""
    live, session_id = world.live, world.session["id"]
    live.owner.delete(f"/v1/sessions/{session_id}").raise_for_status()
    wanted = Conversation(world.session["agentId"], "conv", **A, session_id=session_id)

    async def bind(daemon: Daemon) -> str:
        try:
            await daemon.parts.bindings.bind(wanted, SYSTEM)
        except DaemonError as error:
            return error.code
        return ""

    assert live.call(bind) == "SESSION_REVOKED"
    assert (world.held(), world.row(), world.told()) == (None, None, [])
