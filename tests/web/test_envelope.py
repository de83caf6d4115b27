"""What happens to every request, in the order of the API's contract; the app is a small one of the test's own."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from litestar import Litestar, Request, get, post, put

from daemon.domain.clock import DomainClock
from daemon.domain.errors import SESSION_SUSPENDED, DaemonError
from daemon.log import Log
from daemon.web.context import RequestContext, context
from daemon.web.envelope import Envelope
from daemon.web.hosts import HostPolicy
from daemon.web.limits import MAX_BODY, accepts, accepts_json
from daemon.web.options import NoAutomaticOptions
from daemon.web.problems import handle_exception

HOST = "127.0.0.1:3100"


@get(["/v1/session", "/health", "/v1/agents/{name:str}"])
async def who(request: Request[Any, Any, Any]) -> dict[str, str | None]:
    about = context(request.scope)
    about.actor, about.session_id, about.agent_id = "agent:a1", "s1", "a1"
    about.headers.append((b"ratelimit-limit", b"6000"))
    return {"ip": about.ip, "client": about.client, "requestId": about.request_id}


@put("/v1/sessions/{name:str}/renew")
async def renew() -> None:
    raise DaemonError(SESSION_SUSPENDED)


@post("/v1/echo")
async def echo(request: Request[Any, Any, Any]) -> dict[str, int]:
    return {"size": len(await request.body())}


@get("/boom")
async def boom() -> None:
    raise ValueError("the password is 'hunter2' and wai_sess_abc.def")


class Answer(msgspec.Struct):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        assert self.headers["content-type"] == "application/problem+json"
        return str(msgspec.json.decode(self.body)["code"])


class World:
    """The envelope around the app, its log, and a clock that the test turns."""

    def __init__(self, home: Path, **settings: Any) -> None:
        self.now = 1000.0
        self.file = home / "daemon.log"
        self.log = Log(self.file)
        app = Litestar(
            [who, renew, echo, boom],
            openapi_config=None,
            logging_config=None,
            exception_handlers={Exception: handle_exception},
            plugins=[NoAutomaticOptions()],
        )
        settings = {"hosts": HostPolicy.of(3100), "global_rpm": 0} | settings
        clock = DomainClock(lambda: 0.0, lambda: self.now)
        self.envelope = Envelope(settings.pop("app", app), services="services", log=self.log, clock=clock, **settings)

    async def ask(
        self,
        method: str = "GET",
        path: str = "/v1/session",
        *,
        headers: list[tuple[str, str]] | None = None,
        host: str | None = HOST,
        chunks: list[bytes] | None = None,
        unix: bool = False,
    ) -> Answer:
        sent = [("host", host)] if host is not None else []
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in sent + (headers or [])]
        scope = {
            "type": "http",
            "method": method,
            "path": path.partition("?")[0],
            "raw_path": path.partition("?")[0].encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "http_version": "1.1",
            "headers": encoded,
            "server": ("/home/daemon.sock", None) if unix else ("127.0.0.1", 3100),
            "client": None if unix else ("127.0.0.1", 40000),
        }
        return await self._run(scope, chunks)

    async def _run(self, scope: dict[str, Any], chunks: list[bytes] | None) -> Answer:
        waiting = list(chunks or [b""])
        messages: list[Any] = []

        async def receive() -> Any:
            if not waiting:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": waiting.pop(0), "more_body": chunks is not None and bool(waiting)}

        async def send(message: Any) -> None:
            messages.append(message)

        await self.envelope(scope, receive, send)
        body = b"".join(message.get("body", b"") for message in messages[1:])
        headers = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
        return Answer(messages[0]["status"], headers, body)

    def lines(self) -> list[dict[str, Any]]:
        assert self.log.flush(5)
        return [msgspec.json.decode(line) for line in self.file.read_bytes().splitlines()]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    made.log.close(5)


# --- request id, headers, context


async def test_every_answer_carries_the_security_headers_and_what_the_guards_add(world: World) -> None:
    answer = await world.ask()
    assert answer.status == 200
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["ratelimit-limit"] == "6000"
    problem = await world.ask(path="/nowhere")
    assert problem.headers["cache-control"] == "no-store"
    assert problem.headers["x-request-id"] == msgspec.json.decode(problem.body)["requestId"]


async def test_a_valid_request_id_is_the_clients_and_any_other_is_replaced(world: World) -> None:
    kept = await world.ask(headers=[("x-request-id", "Job-7._x")])
    assert kept.headers["x-request-id"] == "Job-7._x"
    for bad in ("", "a b", "x" * 65, "a\xe9", "a\n"):
        answer = await world.ask(headers=[("x-request-id", bad)])
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


async def test_the_context_tells_the_peer_and_the_client(world: World) -> None:
    headers = [("x-daemon-client", "cli"), ("x-forwarded-for", "9.9.9.9"), ("forwarded", "for=9.9.9.9")]
    answer = msgspec.json.decode((await world.ask(headers=headers)).body)
    assert (answer["ip"], answer["client"]) == ("127.0.0.1", "cli")
    over_unix = msgspec.json.decode((await world.ask(unix=True, headers=[("x-daemon-client", "else")])).body)
    assert (over_unix["ip"], over_unix["client"]) == (None, None)


def test_two_contexts_share_no_headers() -> None:
    one, other = RequestContext("1", None, None, None), RequestContext("2", None, None, None)
    one.headers.append((b"a", b"b"))
    assert other.headers == []


# --- Host and Origin


@pytest.mark.parametrize("host", ["127.0.0.1:3100", "localhost:3100", "LOCALHOST:3100", "[::1]:3100"])
async def test_the_local_names_with_the_bound_port_are_allowed(world: World, host: str) -> None:
    assert (await world.ask(host=host)).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1", "localhost:3101", "localhost.:3100", "127.0.0.1:3100.evil.example", "::1:3100", ""],
)
async def test_any_other_host_is_refused(world: World, host: str) -> None:
    answer = await world.ask(host=host)
    assert (answer.status, answer.code) == (403, "HOST_NOT_ALLOWED")


async def test_a_missing_or_repeated_host_is_malformed(world: World) -> None:
    assert (await world.ask(host=None)).status == 400
    assert (await world.ask(headers=[("host", HOST)])).status == 400


async def test_the_host_is_not_checked_on_the_unix_socket(world: World) -> None:
    assert (await world.ask(host="anything", unix=True)).status == 200
    assert (await world.ask(host=None, unix=True)).status == 200


async def test_a_peer_without_address_is_not_taken_for_the_unix_socket(world: World) -> None:
    scope = {"type": "http", "method": "GET", "path": "/health", "raw_path": b"/health", "query_string": b""}
    gone = scope | {"headers": [(b"host", b"evil")], "server": ("127.0.0.1", 3100), "client": None}
    assert (await world._run(gone, None)).code == "HOST_NOT_ALLOWED"


async def test_allowed_hosts_and_the_public_url_are_allowed(tmp_path: Path) -> None:
    policy = HostPolicy.of(3100, ["desk.lan", "box:8080", "[fd00::1]"], "https://agents.example")
    world = World(tmp_path, hosts=policy)
    for host in ("desk.lan", "desk.lan:99", "box:8080", "[fd00::1]:5", "agents.example", "agents.example:443"):
        assert (await world.ask(host=host)).status == 200, host
    for host in ("box", "box:8081", "desk.lan:", "x.desk.lan", "agents.example:80"):
        assert (await world.ask(host=host)).status == 403, host
    for origin in ("http://desk.lan:5", "http://box:8080", "https://agents.example"):
        assert (await world.ask(headers=[("origin", origin)])).status == 200, origin
    for origin in ("https://desk.lan", "http://agents.example", "https://agents.example.evil"):
        assert (await world.ask(headers=[("origin", origin)])).status == 403, origin
    world.log.close(5)


@pytest.mark.parametrize(
    "origin", ["null", "http://evil.example", "https://127.0.0.1:3100", "http://127.0.0.1", "http://127.0.0.1:3101", ""]
)
async def test_a_foreign_origin_is_refused(world: World, origin: str) -> None:
    answer = await world.ask(headers=[("origin", origin)])
    assert (answer.status, answer.code) == (403, "ORIGIN_NOT_ALLOWED")


async def test_our_own_origin_is_allowed_but_not_beside_a_foreign_one(world: World) -> None:
    own = ("origin", f"http://{HOST}")
    assert (await world.ask(headers=[own])).status == 200
    assert (await world.ask(headers=[own, ("origin", "http://evil.example")])).status == 403


async def test_a_foreign_host_is_refused_before_anything_else_is_looked_at(world: World) -> None:
    world.envelope.begin_shutdown()
    answer = await world.ask(path="//x", host="evil", headers=[("content-length", str(MAX_BODY + 1))])
    assert answer.code == "HOST_NOT_ALLOWED"


# --- bodies


async def test_a_body_of_one_mebibyte_passes_and_one_byte_more_does_not(world: World) -> None:
    for size, status in ((MAX_BODY, 201), (MAX_BODY + 1, 413)):
        answer = await world.ask(
            "POST",
            "/v1/echo",
            headers=[("content-length", str(size))],
            chunks=[b"x" * MAX_BODY, b"x" * (size - MAX_BODY)],
        )
        assert answer.status == status


async def test_a_chunked_body_is_counted_while_it_comes(world: World) -> None:
    chunked = [("transfer-encoding", "chunked")]
    half = MAX_BODY // 2
    passed = await world.ask("POST", "/v1/echo", headers=chunked, chunks=[b"x" * half, b"x" * half])
    assert msgspec.json.decode(passed.body) == {"size": MAX_BODY}
    answer = await world.ask("POST", "/v1/echo", headers=chunked, chunks=[b"x" * half, b"x" * half, b"x", b"never"])
    assert (answer.status, answer.code) == (413, "BODY_TOO_LARGE")


async def test_a_client_that_goes_away_in_its_body_is_no_error_of_ours(world: World) -> None:
    scope_headers = [("content-length", "10")]

    async def gone() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pass

    scope = {"type": "http", "method": "POST", "path": "/v1/echo", "raw_path": b"/v1/echo", "query_string": b""}
    encoded = [(b"host", HOST.encode())] + [(name.encode(), value.encode()) for name, value in scope_headers]
    await world.envelope(scope | {"headers": encoded, "server": ("127.0.0.1", 3100)}, gone, send)
    (line,) = world.lines()
    assert (line["event"], line["status"]) == ("http.request", 400)


# --- shutdown, rate limit


async def test_while_stopping_only_health_is_answered(world: World) -> None:
    world.envelope.begin_shutdown()
    refused = await world.ask()
    assert (refused.status, refused.code, refused.headers["connection"]) == (503, "SHUTTING_DOWN", "close")
    assert (await world.ask(path="/health")).status == 200


async def test_drained_returns_when_the_last_request_is_answered(tmp_path: Path) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        entered.set()
        await leave.wait()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    world = World(tmp_path, app=slow)
    request = asyncio.create_task(world.ask())
    await entered.wait()
    world.envelope.begin_shutdown()
    drained = asyncio.create_task(world.envelope.drained())
    await asyncio.wait([drained], timeout=0.02)
    assert (world.envelope.in_flight, drained.done()) == (1, False)
    leave.set()
    await asyncio.wait_for(drained, 5)
    assert (await request).status == 204
    world.log.close(5)


async def test_the_global_rate_is_a_window_of_one_minute(tmp_path: Path) -> None:
    world = World(tmp_path, global_rpm=3)
    for _ in range(3):
        assert (await world.ask()).status == 200
    world.now += 20
    refused = await world.ask()
    assert (refused.status, refused.code, refused.headers["retry-after"]) == (429, "RATE_LIMIT_EXCEEDED", "41")
    world.now += 40
    assert (await world.ask()).status == 200
    world.log.close(5)


async def test_owner_routes_and_health_are_not_counted_but_renewal_is(tmp_path: Path) -> None:
    world = World(tmp_path, global_rpm=1)
    for path in ("/v1/agents/x", "/health", "/v1/owner/sessions", "/v1/sessions/x/renew"):
        assert (await world.ask(path=path)).status != 429
    assert (await world.ask("PUT", "/v1/sessions/x/renew")).status == 403
    assert (await world.ask("PUT", "/v1/sessions/x/renew/")).status == 429
    assert (await world.ask()).status == 429
    assert (await world.ask(path="/v1/agents/x")).status == 200
    world.log.close(5)


async def test_the_rate_can_be_changed_while_running(tmp_path: Path) -> None:
    world = World(tmp_path, global_rpm=1)
    assert [(await world.ask()).status for _ in range(2)] == [200, 429]
    world.envelope.rate.limit = 0
    assert (await world.ask()).status == 200
    world.log.close(5)


# --- paths, methods, Accept


@pytest.mark.parametrize(
    "path", ["//v1/session", "/v1//session", "/v1%2Fsession", "/v1%2fsession", "/v1%5Csession", "/v1/a%00", "/v1/%ff"]
)
async def test_a_path_that_reads_two_ways_is_no_route(world: World, path: str) -> None:
    answer = await world.ask(path=path)
    assert (answer.status, answer.code) == (404, "ROUTE_NOT_FOUND")


@pytest.mark.parametrize("method", ["OPTIONS", "HEAD", "DELETE", "TRACE", "PROPFIND"])
async def test_a_method_that_the_route_does_not_name_is_405_and_on_no_route_404(world: World, method: str) -> None:
    answer = await world.ask(method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET")
    assert (await world.ask(method, "/nowhere")).status == 404
    assert (await world.ask(method, "/v1/agents/x")).status == 405


async def test_an_accept_header_without_json_is_406(world: World) -> None:
    answer = await world.ask(headers=[("accept", "text/html")])
    assert (answer.status, answer.code) == (406, "NOT_ACCEPTABLE")
    assert (await world.ask(headers=[("accept", "text/html"), ("accept", "application/json")])).status == 200


@pytest.mark.parametrize(
    ("accept", "accepted"),
    [
        (b"*/*", True),
        (b"", True),
        (b"APPLICATION/JSON", True),
        (b"text/html, application/*;q=0.1", True),
        (b"application/problem+json", True),
        (b"text/html;q=1.0, */*;q=0", False),
        (b"application/json;q=0, */*", False),
        (b"image/png,text/*", False),
        (b"application/json; q=0.000", False),
    ],
)
def test_accept_is_read_as_rfc_9110_says(accept: bytes, accepted: bool) -> None:
    assert accepts_json(accept) is accepted


@pytest.mark.parametrize(
    ("accept", "accepted"),
    [
        (b"text/event-stream", True),
        (b"TEXT/*;q=0.5", True),
        (b"text/event-stream;q=0, text/*", False),
        (b"text/html", False),
        (b"application/json", True),
    ],
)
def test_event_streams_are_acceptable_where_there_are_some(accept: bytes, accepted: bool) -> None:
    for path in ("/v1/owner/events", "/v1/session/events/"):
        assert accepts(accept, path) is accepted
    assert accepts(accept, "/v1/session") is accepts_json(accept)


# --- errors and the log line


async def test_an_error_of_the_app_is_a_problem_and_its_cause_is_in_the_log_alone(world: World) -> None:
    answer = await world.ask(path="/boom")
    assert (answer.status, answer.code) == (500, "INTERNAL_ERROR")
    assert b"ValueError" not in answer.body
    failed, request = world.lines()
    assert (failed["event"], failed["exception"]) == ("request.failed", "ValueError")
    assert failed["requestId"] == request["requestId"] == answer.headers["x-request-id"]
    assert "in boom" in failed["traceback"]
    assert "wai_sess_" not in failed["traceback"]
    assert failed["traceback"].endswith("ValueError: the password is '***' and wai_***\n")
    assert request["status"] == 500


async def test_an_exception_that_escapes_the_app_is_a_problem_too(tmp_path: Path) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("outside")

    world = World(tmp_path, app=broken)
    assert (await world.ask()).code == "INTERNAL_ERROR"
    assert [line["event"] for line in world.lines()] == ["request.failed", "http.request"]
    world.log.close(5)


async def test_an_exception_after_the_answer_began_is_logged_and_the_answer_not_repeated(tmp_path: Path) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise DaemonError(SESSION_SUSPENDED)

    world = World(tmp_path, app=broken)
    assert (await world.ask()).status == 200
    assert [line["event"] for line in world.lines()] == ["request.failed", "http.request"]
    world.log.close(5)


async def test_one_line_a_request_with_template_actor_and_duration(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.ask(path="/v1/agents/wai_sess_secret")
    await world.ask("PUT", "/v1/sessions/x/renew")
    known, refused = world.lines()
    assert list(known)[:6] == ["ts", "level", "event", "requestId", "sessionId", "agentId"]
    assert (known["method"], known["route"], known["status"]) == ("GET", "/v1/agents/{name}", 200)
    assert (known["actor"], known["sessionId"], known["agentId"]) == ("agent:a1", "s1", "a1")
    assert known["durationMs"] == 0
    assert (refused["route"], refused["status"], refused["actor"]) == ("/v1/sessions/{name}/renew", 403, "anonymous")
    assert "sessionId" not in refused
    world.log.close(5)
