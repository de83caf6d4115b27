"""The server on real sockets: what a connection may do before, between and after requests."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import stat
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from litestar import Litestar, Request, get, post
from litestar.params import FromPath

from daemon.domain.clock import DomainClock
from daemon.log import Log
from daemon.web.envelope import Envelope
from daemon.web.hosts import HostPolicy
from daemon.web.limits import MAX_BODY
from daemon.web.options import NoAutomaticOptions
from daemon.web.problems import handle_exception
from daemon.web.protocol import PEER, Limits, Peer
from daemon.web.server import Server, bind_tcp, bind_unix

DEADLINE = 10.0
"""Seconds after which a fact that was waited for counts as missing."""


class Reply(msgspec.Struct):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/problem+json"
        found: dict[str, Any] = msgspec.json.decode(self.body)
        assert found["requestId"] == self.headers["x-request-id"]
        assert self.headers["x-content-type-options"] == "nosniff"
        return found


class Client:
    """A raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def send(self, data: bytes | str) -> None:
        self._writer.write(data.encode() if isinstance(data, str) else data)

    async def reply(self) -> Reply:
        async with asyncio.timeout(DEADLINE):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
            status, *lines = head.rstrip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await self._reader.readexactly(int(headers.get("content-length", 0)))
        return Reply(int(status.split()[1]), headers, body)

    async def is_closed(self) -> bool:
        async with asyncio.timeout(DEADLINE):
            try:
                return await self._reader.read() == b""
            except ConnectionResetError:
                return True

    def close(self) -> None:
        self._writer.close()


class World:
    """A server with one TCP and one unix listener."""

    def __init__(self, home: Path, **limits: Any) -> None:
        self.log = Log(home / "daemon.log")
        self.file = home / "daemon.log"
        self.entered, self.leave = asyncio.Event(), asyncio.Event()
        self.tcp, self.unix = bind_tcp("127.0.0.1", 0), bind_unix(home / "d.sock")
        self.path = home / "d.sock"
        self.port: int = self.tcp.getsockname()[1]
        self.host = f"Host: 127.0.0.1:{self.port}\r\n"
        clock = DomainClock(time.time, time.monotonic)
        self.envelope = Envelope(
            self._app(), services=None, log=self.log, clock=clock, hosts=HostPolicy.of(self.port), global_rpm=0
        )
        self.server = Server(self.envelope, log=self.log, drain_seconds=5, limits=Limits(**limits))
        self.task = asyncio.create_task(self.server.serve([self.tcp, self.unix]))
        self.clients: list[Client] = []

    def _app(self) -> Litestar:
        @get("/n/{number:int}")
        async def echo_number(number: FromPath[int]) -> dict[str, int]:
            return {"number": number}

        @get("/peer")
        async def peer(request: Request[Any, Any, Any]) -> list[int] | None:
            known: Peer | None = request.scope.get(PEER)  # type: ignore[assignment]
            return [known.pid, known.uid] if known else None

        @get("/wait")
        async def wait() -> dict[str, int]:
            self.entered.set()
            await self.leave.wait()
            return {}

        @get("/headers")
        async def headers(request: Request[Any, Any, Any]) -> list[str]:
            return [name.decode() for name, _ in request.scope["headers"]]

        @post("/size")
        async def size(request: Request[Any, Any, Any]) -> dict[str, int]:
            return {"size": len(await request.body())}

        return Litestar(
            [echo_number, peer, wait, headers, size],
            openapi_config=None,
            logging_config=None,
            exception_handlers={Exception: handle_exception},
            plugins=[NoAutomaticOptions()],
        )

    async def connect(self, *, unix: bool = False) -> Client:
        opened = asyncio.open_unix_connection(self.path) if unix else asyncio.open_connection("127.0.0.1", self.port)
        self.clients.append(Client(*await opened))
        return self.clients[-1]

    async def ask(self, data: bytes | str, *, unix: bool = False) -> tuple[Reply, Client]:
        client = await self.connect(unix=unix)
        client.send(data)
        return await client.reply(), client

    def get(self, path: str, extra: str = "") -> str:
        return f"GET {path} HTTP/1.1\r\n{self.host}{extra}\r\n"

    def requests(self) -> list[dict[str, Any]]:
        assert self.log.flush(5)
        lines = [msgspec.json.decode(line) for line in self.file.read_bytes().splitlines()]
        return [line for line in lines if line["event"] == "http.request"]

    async def stop(self) -> None:
        for client in self.clients:
            client.close()
        self.leave.set()
        self.server.begin_shutdown()
        await asyncio.wait_for(self.task, DEADLINE)
        self.log.close(5)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The event loop that the daemon runs on."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    worlds: list[World] = []

    async def start(**limits: Any) -> World:
        worlds.append(World(tmp_path, **limits))
        await asyncio.wait_for(worlds[-1].server.started(), DEADLINE)
        return worlds[-1]

    yield start
    for world in worlds:
        await world.stop()


Serve = Callable[..., Any]


# --- one connection, many requests


async def test_a_connection_is_kept_and_used_again(serve: Serve) -> None:
    world: World = await serve()
    client = await world.connect()
    for number in range(3):
        client.send(world.get(f"/n/{number}"))
        assert (await client.reply()).body == b'{"number":%d}' % number
    assert [line["route"] for line in world.requests()] == ["/n/{number}"] * 3


async def test_pipelined_requests_are_answered_in_order(serve: Serve) -> None:
    world: World = await serve()
    client = await world.connect()
    client.send("".join(world.get(f"/n/{number}") for number in range(50)))
    assert [(await client.reply()).body for _ in range(50)] == [b'{"number":%d}' % number for number in range(50)]


async def test_a_malformed_pipelined_request_is_refused_after_the_answers_before_it(serve: Serve) -> None:
    world: World = await serve()
    client = await world.connect()
    client.send(world.get("/wait") + "nonsense\r\n\r\n")
    await asyncio.wait_for(world.entered.wait(), DEADLINE)
    world.leave.set()
    assert (await client.reply()).status == 200
    assert (await client.reply()).problem["code"] == "VALIDATION_ERROR"
    assert await client.is_closed()


async def test_http_1_0_is_answered_and_closed(serve: Serve) -> None:
    world: World = await serve()
    reply, client = await world.ask(f"GET /n/1 HTTP/1.0\r\n{world.host}\r\n")
    assert (reply.status, reply.headers["connection"]) == (200, "close")
    assert await client.is_closed()


async def test_an_upgrade_is_not_taken(serve: Serve) -> None:
    world: World = await serve()
    reply, client = await world.ask(world.get("/n/1", "Connection: upgrade\r\nUpgrade: websocket\r\n"))
    assert reply.status == 200
    assert await client.is_closed()


# --- malformed requests


@pytest.mark.parametrize(
    "request_text",
    [
        "GET /n/1\r\n\r\n",
        "GET /n/1 HTTP/2.0\r\n{host}\r\n",
        "GET /n/1 HTTP/1.1\n{host}\r\n",
        "GET /n/1 HTTP/1.1\r\nHost : x\r\n\r\n",
        "GET /n/1 HTTP/1.1\r\n{host} folded\r\n\r\n",
        "GET http://evil.example/n/1 HTTP/1.1\r\n{host}\r\n",
        "CONNECT evil.example:443 HTTP/1.1\r\n{host}\r\n",
        "OPTIONS * HTTP/1.1\r\n{host}\r\n",
        "POST /size HTTP/1.1\r\n{host}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /size HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        "POST /size HTTP/1.1\r\n{host}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        "POST /size HTTP/1.1\r\n{host}Content-Length: -3\r\n\r\nabc",
        "GET /n/\xff HTTP/1.1\r\n{host}\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
async def test_what_is_not_http_is_a_problem_document_and_the_end_of_the_connection(
    serve: Serve, request_text: str
) -> None:
    world: World = await serve()
    reply, client = await world.ask(request_text.replace("{host}", world.host).encode("latin-1"))
    assert (reply.status, reply.problem["code"]) == (400, "VALIDATION_ERROR")
    assert reply.headers["connection"] == "close"
    assert await client.is_closed()
    (line,) = world.requests()
    assert (line["status"], line["requestId"], line["actor"]) == (400, reply.headers["x-request-id"], "anonymous")


async def test_two_hosts_and_none_are_malformed_and_a_foreign_one_is_refused(serve: Serve) -> None:
    world: World = await serve()
    assert (await world.ask(world.get("/n/1", world.host)))[0].status == 400
    assert (await world.ask("GET /n/1 HTTP/1.1\r\n\r\n"))[0].status == 400
    foreign, _ = await world.ask("GET /n/1 HTTP/1.1\r\nHost: evil.example\r\n\r\n")
    assert foreign.problem["code"] == "HOST_NOT_ALLOWED"
    origin, _ = await world.ask(world.get("/n/1", "Origin: http://evil.example\r\n"))
    assert origin.problem["code"] == "ORIGIN_NOT_ALLOWED"


@pytest.mark.parametrize("path", ["//n/1", "/n%2f1", "/n/%00", "/n/%ff", "/N/1"])
async def test_a_path_that_reads_two_ways_is_no_route(serve: Serve, path: str) -> None:
    world: World = await serve()
    reply, _ = await world.ask(world.get(path))
    assert reply.problem["code"] == "ROUTE_NOT_FOUND"


async def test_a_trailer_is_no_header(serve: Serve) -> None:
    world: World = await serve()
    chunked = f"GET /headers HTTP/1.1\r\n{world.host}Transfer-Encoding: chunked\r\n\r\n"
    reply, _ = await world.ask(chunked + "0\r\nAuthorization: Bearer x\r\n\r\n")
    assert msgspec.json.decode(reply.body) == ["host", "transfer-encoding"]


# --- sizes


async def test_headers_of_16_kib_pass_and_one_byte_more_does_not(serve: Serve) -> None:
    world: World = await serve()
    room = 16_384 - (len(world.host) - 2 + 2) - len("x: \r\n")
    assert (await world.ask(world.get("/n/1", f"x: {'a' * room}\r\n")))[0].status == 200
    reply, client = await world.ask(world.get("/n/1", f"x: {'a' * (room + 1)}\r\n"))
    assert (reply.status, reply.problem["code"]) == (431, "HEADERS_TOO_LARGE")
    assert await client.is_closed()
    assert [line["status"] for line in world.requests()] == [200, 431]


async def test_a_header_that_never_ends_is_cut_off(serve: Serve) -> None:
    world: World = await serve()
    client = await world.connect()
    client.send(f"GET /n/1 HTTP/1.1\r\n{world.host}x: ")

    async def flood() -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                client.send(b"a" * 65_536)
                await client._writer.drain()

    flooding = asyncio.create_task(flood())
    assert (await client.reply()).status == 431
    flooding.cancel()


async def test_a_target_of_8_kib_passes_and_one_byte_more_does_not(serve: Serve) -> None:
    world: World = await serve()
    assert (await world.ask(world.get("/n/1?" + "a" * (8_192 - 5))))[0].status == 200
    reply, _ = await world.ask(world.get("/n/1?" + "a" * (8_192 - 4)))
    assert (reply.status, reply.problem["code"]) == (414, "URI_TOO_LONG")


async def test_a_body_of_one_mebibyte_passes_and_one_byte_more_does_not(serve: Serve) -> None:
    world: World = await serve()
    for size, status in ((MAX_BODY, 201), (MAX_BODY + 1, 413)):
        head = f"POST /size HTTP/1.1\r\n{world.host}Content-Length: {size}\r\n\r\n".encode()
        reply, _ = await world.ask(head + b"x" * size)
        assert reply.status == status


async def test_a_chunked_body_is_cut_off_one_byte_after_one_mebibyte(serve: Serve) -> None:
    world: World = await serve()
    head = f"POST /size HTTP/1.1\r\n{world.host}Transfer-Encoding: chunked\r\n\r\n".encode()
    block = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    passed, _ = await world.ask(head + block * 16 + b"0\r\n\r\n")
    assert passed.body == b'{"size":%d}' % MAX_BODY
    reply, client = await world.ask(head + block * 16 + b"1\r\nx\r\n")
    assert reply.problem["code"] == "BODY_TOO_LARGE"
    client.send("0\r\n\r\n" + world.get("/n/7"))
    assert (await client.reply()).body == b'{"number":7}'


async def test_a_body_that_waits_for_leave_is_refused_without_it(serve: Serve) -> None:
    world: World = await serve()
    head = f"POST /size HTTP/1.1\r\n{world.host}Expect: 100-continue\r\nContent-Length: {MAX_BODY + 1}\r\n\r\n"
    reply, client = await world.ask(head)
    assert reply.status == 413
    assert await client.is_closed()
    granted = await world.connect()
    granted.send(f"POST /size HTTP/1.1\r\n{world.host}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert (await granted.reply()).status == 100
    granted.send("ab")
    assert (await granted.reply()).body == b'{"size":2}'


async def test_a_broken_chunk_is_the_clients_error(serve: Serve) -> None:
    world: World = await serve()
    reply, client = await world.ask(f"POST /size HTTP/1.1\r\n{world.host}Transfer-Encoding: chunked\r\n\r\nzz\r\n")
    assert (reply.status, reply.problem["code"]) == (400, "VALIDATION_ERROR")
    assert await client.is_closed()
    assert [line["route"] for line in world.requests()] == ["/size"]


# --- time


async def test_a_head_that_does_not_arrive_in_time_is_408_however_it_trickles(serve: Serve) -> None:
    world: World = await serve(head_seconds=0.2)
    client = await world.connect()
    client.send("GET /n/1 HTTP/1.1\r\n")
    trickling = asyncio.create_task(_trickle(client))
    reply = await client.reply()
    trickling.cancel()
    assert (reply.status, reply.problem["code"]) == (408, "REQUEST_TIMEOUT")
    assert [line["status"] for line in world.requests()] == [408]


async def _trickle(client: Client) -> None:
    with contextlib.suppress(ConnectionError):
        while True:
            client.send("x: y\r\n")
            await asyncio.sleep(0.02)


async def test_a_connection_without_a_request_is_closed_in_silence(serve: Serve) -> None:
    world: World = await serve(head_seconds=0.1)
    silent, blank = await world.connect(), await world.connect()
    blank.send("\r\n")
    assert await silent.is_closed()
    assert await blank.is_closed()
    assert world.requests() == []


async def test_a_second_request_has_the_same_time_for_its_head(serve: Serve) -> None:
    world: World = await serve(head_seconds=0.2)
    client = await world.connect()
    client.send(world.get("/n/1") + "GET /n/2 HT")
    assert (await client.reply()).status == 200
    assert (await client.reply()).status == 408


async def test_waiting_for_our_own_answer_is_not_the_clients_delay(serve: Serve) -> None:
    world: World = await serve(head_seconds=0.05)
    client = await world.connect()
    client.send(world.get("/wait") + "GET /n/2 HT")
    await asyncio.wait_for(world.entered.wait(), DEADLINE)
    late = asyncio.get_running_loop().time() + 0.2
    while asyncio.get_running_loop().time() < late:
        await asyncio.sleep(0.02)
    client.send(f"TP/1.1\r\n{world.host}\r\n")
    world.leave.set()
    assert (await client.reply()).body == b"{}"
    assert (await client.reply()).body == b'{"number":2}'


async def test_a_body_that_does_not_arrive_in_time_is_408(serve: Serve) -> None:
    world: World = await serve(body_seconds=0.1)
    reply, client = await world.ask(f"POST /size HTTP/1.1\r\n{world.host}Content-Length: 9\r\n\r\nabc")
    assert (reply.status, reply.problem["code"]) == (408, "REQUEST_TIMEOUT")
    assert await client.is_closed()
    assert [line["route"] for line in world.requests()] == ["/size"]


async def test_a_body_nobody_reads_holds_no_connection_for_ever(serve: Serve) -> None:
    world: World = await serve(body_seconds=0.2)
    reply, client = await world.ask(f"POST /nowhere HTTP/1.1\r\n{world.host}Content-Length: 9\r\n\r\nabc")
    assert reply.status == 404
    client.send("d")
    assert await client.is_closed()


async def test_a_client_that_hangs_up_harms_nothing(serve: Serve) -> None:
    world: World = await serve()
    waiting = await world.connect()
    waiting.send(world.get("/wait"))
    await asyncio.wait_for(world.entered.wait(), DEADLINE)
    half = await world.connect()
    half.send(f"POST /size HTTP/1.1\r\n{world.host}Content-Length: 9\r\n\r\nabc")
    waiting.close()
    half.close()
    world.leave.set()
    async with asyncio.timeout(DEADLINE):
        while len(world.requests()) < 2:
            await asyncio.sleep(0.01)
    assert (await world.ask(world.get("/n/1")))[0].status == 200
    assert world.envelope.in_flight == 0
    assert "request.failed" not in world.file.read_text()


# --- listeners


async def test_the_unix_socket_serves_beside_tcp_and_knows_its_peer(serve: Serve) -> None:
    world: World = await serve()
    reply, _ = await world.ask("GET /peer HTTP/1.1\r\nHost: anything\r\n\r\n", unix=True)
    assert msgspec.json.decode(reply.body) == [os.getpid(), os.getuid()]
    over_tcp, _ = await world.ask(world.get("/peer"))
    assert msgspec.json.decode(over_tcp.body) is None


async def test_connections_above_the_limit_are_closed_and_said_so_once(serve: Serve) -> None:
    world: World = await serve(connections=16)
    for _ in range(16):
        assert (await world.ask(world.get("/n/1")))[0].status == 200
    for _ in range(2):
        client = await world.connect()
        assert await client.is_closed()
    assert world.log.flush(5)
    assert len(re.findall('"connections.refused"', world.file.read_text())) == 1


async def test_a_stop_answers_what_is_in_progress_and_leaves_the_signals_alone(serve: Serve) -> None:
    before = signal.getsignal(signal.SIGTERM)
    world: World = await serve()
    assert signal.getsignal(signal.SIGTERM) is before
    client = await world.connect()
    client.send(world.get("/wait"))
    await asyncio.wait_for(world.entered.wait(), DEADLINE)
    world.envelope.begin_shutdown()
    refused, _ = await world.ask(world.get("/n/1"))
    assert refused.problem["code"] == "SHUTTING_DOWN"
    world.server.begin_shutdown()
    world.leave.set()
    assert (await client.reply()).status == 200
    await asyncio.wait_for(world.task, DEADLINE)
    with pytest.raises(ConnectionRefusedError):
        await world.connect()


def test_a_port_in_use_is_named() -> None:
    with bind_tcp("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(OSError, match=rf"cannot listen on 127.0.0.1:{port}: address already in use"):
            bind_tcp("127.0.0.1", port)


def test_tcp_sockets_say_that_they_are_tcp_and_are_not_inherited() -> None:
    with bind_tcp("127.0.0.1", 0) as sock:
        assert sock.proto == socket.IPPROTO_TCP
        assert not sock.get_inheritable()


def test_an_ipv6_address_is_bound_alone() -> None:
    with bind_tcp("::1", 0) as six, bind_tcp("127.0.0.1", six.getsockname()[1]) as four:
        assert (six.family, four.family) == (socket.AF_INET6, socket.AF_INET)


def test_an_unknown_name_is_a_clear_error() -> None:
    with pytest.raises(OSError, match=r"cannot listen on no\.such\.invalid:0: the name is unknown"):
        bind_tcp("no.such.invalid", 0)


def test_a_unix_socket_is_for_its_owner_and_replaces_a_leftover(tmp_path: Path) -> None:
    path = tmp_path / "d.sock"
    bind_unix(path).close()
    assert path.exists()
    with bind_unix(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_a_file_in_the_way_of_the_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "d.sock"
    path.write_text("precious")
    with pytest.raises(OSError, match="a file that is no socket is in the way"):
        bind_unix(path)
    assert path.read_text() == "precious"


def test_a_socket_path_that_is_too_long_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"cannot listen on .* too long"):
        bind_unix(tmp_path / ("x" * 120))
