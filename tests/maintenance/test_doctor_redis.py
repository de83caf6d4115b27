"""The doctor on the Redis of the conversations."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.home import Home
from daemon.maintenance.doctor import check_conversations, checks
from daemon.maintenance.findings import Finding, Patient
from tests.support.redis import RedisServer

SECRET = "s3same"


def patient(root: Path, url: str) -> Patient:
    env = {"DAEMON_CONVERSATIONS_URL": url, "DAEMON_CONVERSATIONS_KEY_PREFIX": "shared:"} if url else {}
    return Patient.of(Home.resolve(root, {}), env, 1_800_000_000)


def found(root: Path, url: str) -> list[Finding]:
    """Return what is found of a Redis; no line has the password."""
    examined = list(asyncio.run(check_conversations(patient(root, url))))
    assert SECRET not in str(examined)
    assert all((one.cure is None) == (one.status == "ok") for one in examined)
    return examined


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server that asks for a password."""
    made = RedisServer(tmp_path_factory.mktemp("redis"), "--requirepass", SECRET)
    yield made
    made.kill()


@pytest.fixture
def url(server: RedisServer) -> str:
    return f"redis://:{SECRET}@127.0.0.1:{server.port}"


def test_a_redis_that_is_well_is_ok_and_nothing_is_written_there(server: RedisServer, url: str, tmp_path: Path) -> None:
    redis, memory = found(tmp_path, url)
    assert (redis.status, memory.status) == ("ok", "ok")
    assert f"redis://:***@127.0.0.1:{server.port}: Redis " in redis.detail
    assert redis.detail.endswith("every key begins with shared:")
    plain = server.client(password=SECRET)
    assert plain.dbsize() == 0
    assert {"cmdstat_set", "cmdstat_evalsha", "cmdstat_del"}.isdisjoint(plain.info("commandstats"))


def test_it_is_asked_only_where_conversations_are_there(url: str, tmp_path: Path) -> None:
    assert check_conversations in checks(patient(tmp_path, url))
    assert check_conversations not in checks(patient(tmp_path, ""))


def test_a_redis_that_drops_keys_is_a_warning_that_says_who_answers_then(
    server: RedisServer, url: str, tmp_path: Path
) -> None:
    plain = server.client(password=SECRET)
    plain.config_set("maxmemory", 64 << 20)
    assert [one.status for one in found(tmp_path, url)] == ["ok", "ok"]
    plain.config_set("maxmemory-policy", "volatile-lru")
    try:
        redis, memory = found(tmp_path, url)
    finally:
        plain.config_set("maxmemory", 0)
        plain.config_set("maxmemory-policy", "noeviction")
    assert (redis.status, memory.status) == ("ok", "warning")
    assert "volatile-lru: at 64 MiB it drops conversations, which the database answers then" in memory.detail
    assert "maxmemory-policy noeviction" in (memory.cure or "")


def test_a_replica_is_a_warning(server: RedisServer, url: str, tmp_path: Path) -> None:
    plain = server.client(password=SECRET)
    plain.replicaof("127.0.0.1", "1")
    try:
        (redis, _) = found(tmp_path, url)
    finally:
        plain.replicaof("NO", "ONE")
    assert (redis.status, "the database answers" in redis.detail) == ("warning", True)
    assert "primary" in (redis.cure or "")


def test_a_redis_that_is_away_or_hangs_is_a_warning_and_one_that_refuses_a_failure(
    server: RedisServer, url: str, tmp_path: Path
) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        (away,) = found(tmp_path, f"redis://:{SECRET}@127.0.0.1:{reserved.getsockname()[1]}")
    server.freeze()
    try:
        (silent,) = found(tmp_path, url)
    finally:
        server.thaw()
    assert (away.status, silent.status) == ("warning", "warning")
    assert "cannot be reached; the database answers for conversations meanwhile" in away.detail
    assert "does not answer in time" in silent.detail
    (refused,) = found(tmp_path, f"{url.replace(SECRET, SECRET + 'x')}")
    assert (refused.status, refused.cure) == ("failed", "correct user and password in the URL")


def test_a_user_without_rights_to_the_keys_is_found(server: RedisServer, tmp_path: Path) -> None:
    plain = server.client(password=SECRET)
    plain.execute_command("ACL", "SETUSER", "weak", "on", f">{SECRET}", "~other:*", "+@all")
    (found_,) = found(tmp_path, f"redis://weak:{SECRET}@127.0.0.1:{server.port}")
    assert (found_.status, "ACL SETUSER" in (found_.cure or "")) == ("failed", True)
