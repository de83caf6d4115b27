"""Agents notice nothing of a Redis that stops, hangs, forgets or comes back."""

import asyncio
import json
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.daemon_process import PASSWORD, DaemonProcess, cli, wait_for
from tests.support.http import Answer, load, request, spread
from tests.support.live import LiveDaemon
from tests.support.redis import RedisServer, shared

A = {"provider": "anthropic", "model": "claude-sonnet-4-5"}
B = {"provider": "openai", "model": "gpt-5"}
UNLIMITED = {"DAEMON_SERVER_GLOBAL_RPM": "0", "DAEMON_SERVER_SESSION_RPM": "0"}
PREFIX = "sentinel:session:"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    started = RedisServer(tmp_path)
    yield started
    started.kill()


@pytest.fixture
def live(launch: Callable[..., LiveDaemon], server: RedisServer) -> LiveDaemon:
    return launch(DAEMON_CONVERSATIONS_URL=server.url, **UNLIMITED)


@pytest.fixture
def made(live: LiveDaemon) -> dict[str, Any]:
    """A session that lasts."""
    return live.new_session(ttl=604_800)


@pytest.fixture
def agent(live: LiveDaemon, made: dict[str, Any]) -> httpx.Client:
    return live.agent(made["token"])


def path(conversation_id: str) -> str:
    return f"/v1/conversations/{quote(conversation_id, safe='')}"


def bind(client: httpx.Client, conversation_id: str, to: dict[str, str] = A) -> httpx.Response:
    return client.put(path(conversation_id), json=to)


def rebind(client: httpx.Client, conversation_id: str) -> httpx.Response:
    return client.post(path(conversation_id) + "/rebind", json={"expected": A, **B, "reason": "529"})


def value(server: RedisServer, made: dict[str, Any], conversation_id: str) -> dict[str, Any] | None:
    text = server.client().get(f"{PREFIX}{made['agentId']}:{conversation_id}")
    return json.loads(text) if text is not None else None


def said(home: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, (home / "logs" / "daemon.log").read_text().splitlines())
    return [line for line in lines if line["event"].startswith("conversations.")]


def check(live: LiveDaemon) -> tuple[int, dict[str, Any]]:
    answer = live.anonymous.get("/health")
    return answer.status_code, answer.json()["checks"]["conversations"]


def await_recovery(live: LiveDaemon) -> None:
    def recovered() -> bool:
        live.time.mono += 3
        return bool(check(live)[1]["status"] == "ok")

    wait_for(recovered)


def test_key_value_and_time_to_live_have_their_form(
    live: LiveDaemon, server: RedisServer, made: dict[str, Any], agent: httpx.Client
) -> None:
    agent.put(path("conv/1 ü"), json={**A, "externalId": "thread_1"}).raise_for_status()
    plain = server.client()
    key = f"sentinel:session:{made['agentId']}:conv/1 ü"
    assert plain.keys() == [key]
    assert json.loads(plain.get(key)) == {
        "id": "conv/1 ü",
        **A,
        "external_id": "thread_1",
        "created_at": 1_800_000_000,
        "session_id": made["id"],
        "last_activity": 1_800_000_000,
        "expires_at": 1_800_086_400,
        "request_count": 1,
        "rebind_count": 0,
    }
    assert 86_390 <= plain.ttl(key) <= 86_400
    plain.expire(key, 100)
    live.time.advance(10)
    agent.post(path("conv/1 ü") + "/touch").raise_for_status()
    assert 86_390 <= plain.ttl(key) <= 86_400
    plain.expire(key, 100)
    assert rebind(agent, "conv/1 ü").status_code == 200
    assert plain.ttl(key) <= 100
    assert agent.get(path("conv/1 ü")).json()["expiresAt"] == 1_800_086_410
    live.time.advance(86_400)
    assert plain.exists(key)
    assert bind(agent, "conv/1 ü", B).status_code == 201
    agent.delete(path("conv/1 ü")).raise_for_status()
    assert plain.keys() == []


def test_a_redis_that_forgets_loses_no_binding(
    live: LiveDaemon, server: RedisServer, made: dict[str, Any], agent: httpx.Client
) -> None:
    bind(agent, "conv")
    bind(agent, "conv")
    rebind(agent, "conv").raise_for_status()
    server.client().flushall()
    assert agent.get(path("conv")).json()["requestCount"] == 2
    again = bind(agent, "conv")
    assert (again.status_code, again.json()["provider"], again.json()["requestCount"]) == (200, "openai", 3)
    assert value(server, made, "conv")["rebind_count"] == 1
    server.client().flushall()
    assert agent.post(path("conv") + "/touch").json()["expiresAt"] is not None
    server.client().flushall()
    assert rebind(agent, "conv").status_code == 409
    server.client().flushall()
    assert agent.delete(path("conv")).status_code == 204
    assert bind(agent, "conv").status_code == 201
    kinds = Counter(event["type"] for event in live.events() if event["type"].startswith("CONVERSATION"))
    assert kinds == {"CONVERSATION_BOUND": 2, "CONVERSATION_REBOUND": 1, "CONVERSATION_DELETED": 1}


@pytest.mark.parametrize("garbage", ["[]", "{}", "\x00\xff", '{"id": 1}', "list"])
def test_what_is_no_conversation_is_written_over(
    live: LiveDaemon, server: RedisServer, made: dict[str, Any], agent: httpx.Client, garbage: str
) -> None:
    bind(agent, "conv")
    plain, key = server.client(), f"{PREFIX}{made['agentId']}:conv"
    plain.delete(key)
    plain.lpush(key, "x") if garbage == "list" else plain.set(key, garbage)
    again = bind(agent, "conv", B)
    assert (again.status_code, again.json()["provider"]) == (200, "anthropic")
    assert value(server, made, "conv")["provider"] == "anthropic"
    wait_for(lambda: "conversations.replaced" in [line["event"] for line in said(live.root)])
    assert check(live) == (200, {"status": "ok", "detail": None})


def test_what_changed_while_redis_was_away_is_copied_back(
    live: LiveDaemon, server: RedisServer, made: dict[str, Any], agent: httpx.Client
) -> None:
    for name in ("kept", "rebound", "deleted", "again"):
        bind(agent, name)
    dump = server.everything()
    server.kill()
    assert bind(agent, "kept").json()["requestCount"] == 2
    assert rebind(agent, "rebound").status_code == 200
    assert agent.delete(path("deleted")).status_code == 204
    assert agent.delete(path("again")).status_code == 204
    assert bind(agent, "again", B).status_code == 201
    assert bind(agent, "new", B).status_code == 201
    assert agent.get(path("deleted")).status_code == 404
    status, conversations = check(live)
    assert (status, conversations["status"]) == (200, "degraded")
    assert "Redis is not used" in conversations["detail"]
    server.start()
    server.client().mset(dump)
    await_recovery(live)
    held = {name: value(server, made, name) for name in ("kept", "rebound", "deleted", "again", "new")}
    assert {name: one and one["provider"] for name, one in held.items()} == {
        "kept": "anthropic",
        "rebound": "openai",
        "deleted": None,
        "again": "openai",
        "new": "openai",
    }
    assert (held["kept"]["request_count"], held["rebound"]["rebind_count"]) == (2, 1)
    assert all(server.client().ttl(key) > 0 for key in server.everything())
    assert bind(agent, "kept").json()["requestCount"] == 3
    live.stop()
    assert [line["event"] for line in said(live.root)] == ["conversations.degraded", "conversations.recovered"]
    assert said(live.root)[0]["level"] == "warning"
    assert said(live.root)[1]["copied"] == 6, "two deletions, four conversations"
    assert live.query("SELECT request_count FROM conversations WHERE conversation_id = 'kept'") == [(3,)]


def test_the_newest_use_wins_when_redis_is_back(
    live: LiveDaemon, server: RedisServer, made: dict[str, Any], agent: httpx.Client
) -> None:
    bind(agent, "conv")
    newer = {**value(server, made, "conv"), "last_activity": 1_800_000_900, "expires_at": 1_800_087_300, **B}
    server.kill()
    live.time.advance(60)
    bind(agent, "conv")
    server.start()
    server.client().set(f"{PREFIX}{made['agentId']}:conv", json.dumps(newer))
    await_recovery(live)
    assert value(server, made, "conv")["provider"] == "openai"
    assert bind(agent, "conv").json()["provider"] == "openai"


def test_a_restarted_redis_with_old_values_does_not_answer_before_it_is_up_to_date(
    live: LiveDaemon, server: RedisServer, made: dict[str, Any], agent: httpx.Client
) -> None:
    """It comes back between two requests, with a copy from before the rebind and the deletion."""
    bind(agent, "conv")
    bind(agent, "gone")
    dump = server.everything()
    live.time.advance(3600)
    rebind(agent, "conv").raise_for_status()
    agent.delete(path("gone")).raise_for_status()
    server.kill()
    server.start()
    server.client().mset(dump)
    assert bind(agent, "conv").json()["provider"] == "openai"
    assert agent.get(path("gone")).status_code == 404
    await_recovery(live)
    assert (value(server, made, "conv")["provider"], value(server, made, "gone")) == ("openai", None)


def ask(made: dict[str, Any], number: int, kind: str) -> bytes:
    headers = {"Authorization": f"Bearer {made['token']}"}
    if kind == "touch":
        return request("POST", path(f"known-{number % 20}") + "/touch", **headers)
    name = f"known-{number % 20}" if kind == "known" else f"new-{number}"
    wanted = A if kind == "new" else B
    return request("PUT", path(name), body=json.dumps(wanted).encode(), **headers)


def under_load(live: LiveDaemon, made: dict[str, Any], disturb: Callable[[], None]) -> list[Answer]:
    """Send requests over 16 connections, do something to Redis in the midst of them, and return the answers."""
    requests = [ask(made, number, ("known", "touch", "new", "known")[number % 4]) for number in range(3200)]
    answers: list[list[Answer]] = []
    port = int(live.url.rpartition(":")[2])
    sender = threading.Thread(target=lambda: answers.extend(uvloop.run(load(port, spread(requests, 16)))))
    sender.start()
    try:
        disturb()
    finally:
        sender.join(60)
    assert sum(map(len, answers)) == len(requests)
    return [answer for batch in answers for answer in batch]


@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_under_load_nobody_notices_that_redis_goes_and_comes_back(
    live: LiveDaemon, server: RedisServer, made: dict[str, Any], agent: httpx.Client, fault: str
) -> None:
    for number in range(20):
        bind(agent, f"known-{number}")

    def disturb() -> None:
        counted = "SELECT count(*) FROM conversations"
        wait_for(lambda: live.query(counted)[0][0] > 100)
        server.kill() if fault == "killed" else server.freeze()
        wait_for(lambda: check(live)[1]["status"] == "degraded")
        before = live.query(counted)[0][0]
        wait_for(lambda: live.query(counted)[0][0] > before + 100)
        server.start() if fault == "killed" else server.thaw()
        await_recovery(live)

    answers = under_load(live, made, disturb)
    assert Counter(answer.status for answer in answers) == {200: 2400, 201: 800}
    bound = [json.loads(answer.body) for answer in answers]
    assert {one["provider"] for one in bound if "provider" in one} == {"anthropic"}
    assert max(answer.seconds for answer in answers) < 1.5
    live.stop()
    told = [
        line["event"] for line in said(live.root)
    ]  # more than once only where a busy machine is slower than Redis may be
    assert told == ["conversations.degraded", "conversations.recovered"] * max(1, len(told) // 2)
    rows = live.query("SELECT conversation_id, provider, request_count FROM conversations")
    held = {json.loads(text)["id"]: json.loads(text) for text in server.everything().values()}
    assert len(rows) == 820
    if fault == "frozen":
        assert len(held) == 820
    assert all(held[name]["provider"] == "anthropic" for name, *_ in rows if name in held)
    assert len(live.query("SELECT 1 FROM audit_log WHERE event_type = 'CONVERSATION_BOUND'")) == 820


@pytest.mark.parametrize(
    "refusing",
    [
        (("replicaof", "127.0.0.1", "1"), ("replicaof", "no", "one"), "READONLY"),
        (("config", "set", "maxmemory", "1"), ("config", "set", "maxmemory", "0"), "OOM"),
        (("config", "set", "requirepass", "secret"), None, "password"),
    ],
)
def test_a_redis_that_refuses_is_gone_round(
    live: LiveDaemon, server: RedisServer, agent: httpx.Client, refusing: tuple[Any, Any, str]
) -> None:
    break_it, mend_it, reason = refusing
    bind(agent, "conv")
    plain = server.client()
    plain.execute_command(*break_it)
    if reason == "password":
        plain.client_kill_filter(skipme=True, _type="normal")
        mender = server.client(password="secret")
        mend_it = ("config", "set", "requirepass", "")
    else:
        mender = plain
    assert bind(agent, "conv").status_code == 200
    assert bind(agent, "new").status_code == 201
    assert reason in check(live)[1]["detail"]
    mender.execute_command(*mend_it)
    await_recovery(live)
    assert bind(agent, "conv").json()["requestCount"] == 3
    wait_for(lambda: len(said(live.root)) == 2)
    assert "secret" not in (live.root / "logs" / "daemon.log").read_text()


def test_a_script_that_the_server_forgot_is_loaded_again(
    live: LiveDaemon, server: RedisServer, agent: httpx.Client
) -> None:
    bind(agent, "conv")
    server.client().script_flush()
    assert bind(agent, "conv").json()["requestCount"] == 2
    assert check(live)[1]["status"] == "ok"


def test_the_first_request_alone_waits_for_a_redis_that_hangs(
    live: LiveDaemon, server: RedisServer, agent: httpx.Client
) -> None:
    bind(agent, "conv")
    server.freeze()
    times = [bind(agent, "conv").elapsed.total_seconds() for _ in range(5)]
    assert 0.2 < times[0] < 0.7
    assert max(times[1:]) < 0.15
    server.thaw()


def test_kill_9_during_the_outage_copies_back_at_the_next_start(tmp_path: Path, server: RedisServer) -> None:
    options = ("--appendonly", "yes", "--appendfsync", "always")
    server.kill()
    server.start(*options)
    daemon = DaemonProcess(tmp_path / "home", DAEMON_CONVERSATIONS_URL=server.url)
    with httpx.Client(base_url=daemon.url, headers={"X-Master-Password": PASSWORD}, trust_env=False) as owner:
        agent_id = owner.post("/v1/agents", json={"name": "a"}).json()["id"]
        made = owner.post("/v1/sessions", json={"agentId": agent_id}).json()
    with httpx.Client(
        base_url=daemon.url, headers={"Authorization": f"Bearer {made['token']}"}, trust_env=False
    ) as agent:
        for name in ("kept", "rebound", "deleted"):
            assert bind(agent, name).status_code == 201
        server.kill()
        assert rebind(agent, "rebound").status_code == 200
        assert agent.delete(path("deleted")).status_code == 204
        assert bind(agent, "new", B).status_code == 201
        daemon.kill9()
    server.start(*options)
    assert value(server, made, "deleted") is not None
    daemon.start()
    wanted = {"kept": "anthropic", "rebound": "openai", "deleted": None, "new": "openai"}

    def held() -> dict[str, str | None]:
        found = {name: value(server, made, name) for name in wanted}
        return {name: one and one["provider"] for name, one in found.items()}

    wait_for(lambda: held() == wanted)
    assert daemon.stop() == 0


def test_a_daemon_starts_without_its_redis_and_takes_it_up_later(
    launch: Callable[..., LiveDaemon], server: RedisServer
) -> None:
    server.kill()
    live = launch(DAEMON_CONVERSATIONS_URL=server.url, **UNLIMITED)
    made = live.new_session()
    agent = live.agent(made["token"])
    assert bind(agent, "conv").status_code == 201
    server.start()
    await_recovery(live)
    assert value(server, made, "conv")["provider"] == "anthropic"
    live.stop()
    server.kill()
    server.start()
    live.start()
    assert value(server, made, "conv")["provider"] == "anthropic", "another server gets everything"


def refusal(tmp_path: Path, url: str, **env: str) -> str:
    ended = cli(tmp_path / "refused", "start", DAEMON_CONVERSATIONS_URL=url, DAEMON_SERVER_PORT="0", timeout=20, **env)
    assert ended.code == 2, ended
    (line,) = ended.err.strip().splitlines()
    assert "hunter2" not in ended.err + ended.out
    return line


def test_what_can_never_work_refuses_the_start_in_one_line(tmp_path: Path, server: RedisServer) -> None:
    host = server.url.removeprefix("redis://")
    server.client().execute_command("config", "set", "requirepass", "other")
    assert "refuses the password" in refusal(tmp_path, f"redis://:hunter2@{host}")
    assert "refuses the password" in refusal(tmp_path, f"redis://{host}")
    server.client(password="other").execute_command("config", "set", "requirepass", "")
    assert "database number" in refusal(tmp_path, f"redis://{host}/99")
    with Fake(lambda _: b"") as silent:
        assert "no Redis" in refusal(tmp_path, silent)
    with Fake(lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n") as web:
        assert "no Redis" in refusal(tmp_path, web)
    info = b"redis_version:5.0.14\r\nrun_id:abc\r\nredis_mode:standalone\r\n"
    about = b"$%d\r\n%s\r\n" % (len(info), info)
    with Fake(lambda asked: b"-ERR\r\n" * asked.count(b"SETINFO") + about * asked.count(b"$4\r\nINFO")) as old:
        assert "5.0.14: 6.0 or newer is needed" in refusal(tmp_path, old)


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for localhost that nobody but itself vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(key.private_bytes(*plain))
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return folder / "cert.pem", folder / "key.pem"


def test_tls_is_used_and_a_certificate_that_nobody_vouches_for_refused(tmp_path: Path) -> None:
    cert, key = map(str, certificate(tmp_path))
    tls = ("--port", "0", "--tls-cert-file", cert, "--tls-key-file", key, "--tls-auth-clients", "no")
    server = RedisServer(tmp_path, *tls)
    try:
        url = f"rediss://localhost:{server.port}"
        assert "certificate" in refusal(tmp_path, url)
        assert "rediss://" in refusal(tmp_path, server.url.replace("rediss", "redis"))
        daemon = DaemonProcess(tmp_path / "home", DAEMON_CONVERSATIONS_URL=url, SSL_CERT_FILE=cert)
        health = httpx.get(f"{daemon.url}/health", trust_env=False).json()
        assert daemon.stop() == 0
        assert health["checks"]["conversations"]["status"] == "ok"
    finally:
        server.kill()


def test_a_missing_package_is_named_with_the_command_that_installs_it(tmp_path: Path) -> None:
    (tmp_path / "redis.py").write_text("raise ModuleNotFoundError('No module', name='redis')\n")
    repository = Path(__file__).resolve().parents[1]
    line = refusal(tmp_path, "redis://127.0.0.1:1", PYTHONPATH=f"{tmp_path}:{repository}")
    assert "pip install 'agent-session-daemon[redis]'" in line


class Fake:
    """Something that is no fit Redis.

    Args:
        answer: returns what it says to what was sent; nothing closes the connection.
    """

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self._answer = answer

    def __enter__(self) -> str:
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while (asked := await reader.read(65_536)) and (answer := self._answer(asked)):
                writer.write(answer)
            writer.close()

        async def main() -> None:
            listening = await asyncio.start_server(serve, "127.0.0.1", 0)
            self._port = listening.sockets[0].getsockname()[1]
            self._stop = asyncio.Event()
            ready.set()
            await self._stop.wait()
            listening.close()

        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(main()))
        self._thread.start()
        assert ready.wait(5)
        return f"redis://127.0.0.1:{self._port}"

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(5)
        self._loop.close()


@pytest.fixture
def two(launch: Callable[..., LiveDaemon], tmp_path: Path) -> Iterator[tuple[LiveDaemon, LiveDaemon, str]]:
    """Two daemons with the same agents that share one Redis, and a session that both know."""
    with shared() as env:
        first = launch(root=tmp_path / "one", **env, **UNLIMITED)
        token = first.new_session(ttl=604_800)["token"]
        first.stop()
        shutil.copytree(first.root, tmp_path / "two")
        first.start()
        yield first, launch(root=tmp_path / "two", time=first.time, **env, **UNLIMITED), token


def test_two_daemons_that_share_a_redis_see_each_others_changes_at_once(
    two: tuple[LiveDaemon, LiveDaemon, str],
) -> None:
    first, second = (live.agent(two[2]) for live in two[:2])
    assert bind(first, "conv").status_code == 201
    assert bind(second, "conv", B).json()["provider"] == "anthropic"
    assert rebind(second, "conv").status_code == 200
    assert rebind(first, "conv").status_code == 409
    assert bind(first, "conv").json()["provider"] == "openai"


def test_of_200_workers_at_two_daemons_one_begins_each_conversation(two: tuple[LiveDaemon, LiveDaemon, str]) -> None:
    def puts(model: str) -> list[list[bytes]]:
        body = json.dumps({"provider": "p", "model": model}).encode()
        return [
            [request("PUT", path(f"conv-{n % 4}"), body=body, Authorization=f"Bearer {two[2]}")] for n in range(100)
        ]

    async def both() -> list[Any]:
        ports = [int(live.url.rpartition(":")[2]) for live in two[:2]]
        return await asyncio.gather(load(ports[0], puts("m1")), load(ports[1], puts("m2")))

    answers = [answer for batches in uvloop.run(both()) for (answer,) in batches]
    assert Counter(answer.status for answer in answers) == {200: 196, 201: 4}
    bodies = [json.loads(answer.body) for answer in answers]
    assert len({(body["conversationId"], body["model"]) for body in bodies}) == 4
    for live in two[:2]:
        live.time.mono += 3
        wait_for(lambda: live.query("SELECT count(*) FROM conversations") == [(4,)])  # noqa: B023 (called at once)
        assert len(live.events(type="CONVERSATION_BOUND")) == 4
