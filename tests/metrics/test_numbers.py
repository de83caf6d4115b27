"""Every metric is the number that was caused."""

import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families as parse_text

from daemon.domain.facts import kinds
from daemon.domain.states import STATES
from daemon.web.families import STATUSES
from daemon.web.meter import UNROUTED
from tests.support.daemon_process import DaemonProcess, wait_for
from tests.support.engines import both_engines, broken
from tests.support.live import PASSWORD, LiveDaemon
from tests.support.scrape import ON, Scrape, scrape
from tests.support.streams import Follower
from tests.support.supervised import code

Launch = Callable[..., LiveDaemon]


def test_requests_are_counted_by_template_method_and_status(shared: LiveDaemon) -> None:
    made = shared.new_session()
    client = shared.agent(made["token"])
    before = scrape(shared)
    for _ in range(3):
        client.get("/v1/session")
    shared.owner.get(f"/v1/sessions/{made['id']}")
    shared.owner.get("/v1/sessions/01980e5a-7c00-7a2b-9c4d-5e6f708192a3")
    client.put("/v1/conversations/chat%2F1", json={"provider": "anthropic", "model": "sonnet"})
    shared.anonymous.get("/v1/agents")
    after = scrape(shared)

    def seen(route: str, method: str, status: str) -> float:
        labels = {"route": route, "method": method, "code": status}
        return after("daemon_http_requests_total", **labels) - before("daemon_http_requests_total", **labels)

    assert seen("/v1/session", "GET", "200") == 3
    assert seen("/v1/sessions/{session_id}", "GET", "200") == 1
    assert seen("/v1/sessions/{session_id}", "GET", "404") == 1
    assert seen("/v1/conversations/{conversationId}", "PUT", "201") == 1
    assert seen("/v1/agents", "GET", "401") == 1
    assert seen("/metrics", "GET", "200") == 1
    name, of = "daemon_http_request_duration_seconds", {"route": "/v1/session", "method": "GET"}
    assert after(f"{name}_count", **of) - before(f"{name}_count", **of) == 3
    assert after(f"{name}_bucket", le="+Inf", **of) == after(f"{name}_count", **of)


def test_what_reaches_no_route_is_counted_under_one_name(shared: LiveDaemon) -> None:
    before = scrape(shared)
    shared.anonymous.get("/nothing/here")
    shared.anonymous.post("/v1/session")
    shared.anonymous.get("/health", headers={"Host": "evil.example"})
    shared.anonymous.request("PROPFIND", "/health")
    with socket.create_connection(("127.0.0.1", int(shared.url.rpartition(":")[2]))) as raw:
        raw.sendall(b"nonsense\r\n\r\n")
        assert raw.recv(99).startswith(b"HTTP/1.1 400 ")
    after = scrape(shared)

    def seen(method: str, status: str) -> float:
        labels = {"route": UNROUTED, "method": method, "code": status}
        return after("daemon_http_requests_total", **labels) - before("daemon_http_requests_total", **labels)

    assert (seen("GET", "404"), seen("POST", "405"), seen("GET", "403")) == (1, 1, 1)
    assert (seen("other", "405"), seen("other", "400")) == (1, 1)


def test_token_checks_are_counted_by_what_they_found(shared: LiveDaemon) -> None:
    good, expired, revoked, suspended = (shared.new_session(ttl=ttl) for ttl in (3600, 300, 3600, 3600))
    narrow = shared.new_session(constraints={"allowedOperations": ["conversations.*"]})
    shared.owner.delete(f"/v1/sessions/{revoked['id']}")
    shared.owner.post(f"/v1/sessions/{suspended['id']}/suspend")
    shared.time.advance(301)
    shared.owner.post(f"/v1/sessions/{good['id']}/rotate")
    before = scrape(shared)
    for token in (narrow["token"], expired["token"], revoked["token"], suspended["token"], good["token"], "wai_sess_x"):
        assert shared.agent(token).get("/v1/session").status_code in {401, 403}
    fresh = shared.new_session()
    for _ in range(5):
        assert shared.agent(fresh["token"]).get("/v1/session").status_code == 200
    after = scrape(shared)
    counted = {
        dict(labels)["result"]: value - before.samples[name, labels]
        for (name, labels), value in after.samples.items()
        if name == "daemon_token_checks_total"
    }
    wanted = dict.fromkeys(counted, 0.0) | {"ok": 5.0}
    codes = ("CONSTRAINT_VIOLATED", "TOKEN_EXPIRED", "SESSION_REVOKED", "SESSION_SUSPENDED", "TOKEN_ROTATED")
    assert counted == wanted | dict.fromkeys((*codes, "INVALID_TOKEN"), 1.0)


def test_renewals_are_counted_by_what_came_of_them(shared: LiveDaemon) -> None:
    made, other = shared.new_session(ttl=600), shared.new_session()
    before = scrape(shared)
    route = f"/v1/sessions/{made['id']}/renew"
    assert code(shared.agent(made["token"]).put(route)) == (403, "RENEWAL_TOO_EARLY")
    assert code(shared.agent(other["token"]).put(route)) == (403, "SESSION_RENEWAL_MISMATCH")
    shared.time.advance(300)
    assert [shared.agent(made["token"]).put(route).status_code for _ in range(3)] == [200] * 3
    after = scrape(shared)

    def seen(result: str) -> float:
        return after("daemon_renewals_total", result=result) - before("daemon_renewals_total", result=result)

    assert (seen("ok"), seen("RENEWAL_TOO_EARLY"), seen("SESSION_RENEWAL_MISMATCH")) == (3, 1, 1)
    renewed = {"type": "SESSION_RENEWED"}
    assert after("daemon_events_total", **renewed) - before("daemon_events_total", **renewed) == 1


@both_engines
def test_sessions_and_agents_are_counted_as_they_are_stored(launch: Launch) -> None:
    live = launch(**ON)
    agents = [live.new_agent() for _ in range(3)]
    made = [live.new_session(agents[0], ttl=3600) for _ in range(3)] + [live.new_session(agents[1], ttl=300)]
    idle = live.new_session(agents[1], ttl=3600, constraints={"idleTimeout": 60})
    live.owner.delete(f"/v1/sessions/{made[0]['id']}")
    live.owner.post(f"/v1/sessions/{made[1]['id']}/suspend")
    live.agent(made[2]["token"]).get("/v1/session")
    live.owner.post(f"/v1/agents/{agents[2]}/suspend")
    live.time.advance(59)
    found = scrape(live)
    assert (
        live.anonymous.get("/health").json()["activeSessionCount"]
        == 3
        == found.total("daemon_sessions", status="ACTIVE")
    )
    assert idle["state"] == "READY"
    live.time.advance(240)
    found = scrape(live)
    assert {
        tuple(sorted(dict(labels).values())): value
        for (name, labels), value in found.samples.items()
        if name == "daemon_sessions" and value
    } == {
        ("ACTIVE", "ACTIVE"): 1,
        ("ACTIVE", "SUSPENDED"): 1,
        ("EXPIRED", "READY"): 2,
        ("CLOSED", "REVOKED"): 1,
    }
    assert sum(name == "daemon_sessions" for name, _ in found.samples) == len(STATES) * len(STATUSES)
    counted = {status: found("daemon_agents", status=status) for status in ("ACTIVE", "SUSPENDED", "TERMINATED")}
    assert counted == {"ACTIVE": 2, "SUSPENDED": 1, "TERMINATED": 0}


@both_engines
def test_commits_are_counted_with_the_changes_that_shared_them(launch: Launch) -> None:
    live = launch(**ON)
    before = scrape(live)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(live.new_agent, map(str, range(48))))
    after = scrape(live)

    def grown(name: str) -> float:
        return after(name) - before(name)

    commits = grown("daemon_commit_batch_size_count")
    assert grown("daemon_commit_batch_size_sum") >= 48
    assert commits < grown("daemon_commit_batch_size_sum")
    assert grown("daemon_commit_duration_seconds_count") == commits
    assert after("daemon_commit_batch_size_bucket", le="256.0") == after("daemon_commit_batch_size_count")
    assert grown("daemon_commit_failures_total") == 0


def test_a_commit_takes_as_long_as_it_takes(tmp_path: Path) -> None:
    """By a clock that runs: the one of the other tests stands still."""
    process = DaemonProcess(tmp_path / "home", **ON)
    try:
        found = Scrape(parse_text(httpx.get(f"{process.url}/metrics").text))
        assert 0 < found("daemon_commit_duration_seconds_sum") < 60
        again = Scrape(parse_text(httpx.get(f"{process.url}/metrics").text))
        assert again.samples == found.samples  # within a second

        def answered() -> bool:
            now = Scrape(parse_text(httpx.get(f"{process.url}/metrics").text))
            late = now("daemon_event_loop_lag_seconds_count")
            route = {"route": "/metrics", "method": "GET"}
            return late > 0 and now("daemon_http_request_duration_seconds_sum", **route) > 0

        wait_for(answered)
    finally:
        process.kill9()


@both_engines
def test_a_commit_that_fails_is_counted_and_is_no_other(launch: Launch) -> None:
    live = launch(**ON)
    live.new_agent()
    before = scrape(live)
    with broken(live.database, "agents"):
        assert code(live.owner.post("/v1/agents", json={"name": "x"})) == (503, "STORAGE_UNAVAILABLE")
    after = scrape(live)
    names = ("daemon_commit_failures_total", "daemon_events_total")
    assert [after.total(name) - before.total(name) for name in names] == [1, 0]


@both_engines
def test_the_outbox_is_counted_and_its_oldest_message_has_an_age(launch: Launch) -> None:
    live = launch(**ON)
    names = ("daemon_outbox_pending", "daemon_outbox_failed", "daemon_outbox_oldest_age_seconds")
    assert [scrape(live)(name) for name in names] == [0, 0, 0]
    now = int(live.time.wall)
    for created, attempts, done in ((now - 50, 0, None), (now - 20, 3, None), (now - 90, 1, now - 80)):
        live.query(
            "INSERT INTO notification_outbox (seq, event, level, created_at, attempts, next_attempt_at, done_at)"
            " VALUES (1, 'SESSION_CREATED', 'INFO', ?, ?, ?, ?)",
            created, attempts, now + 9999, done,
        )  # fmt: skip
    found = scrape(live)
    assert [found(name) for name in names] == [2, 1, 51]


def test_events_are_counted_by_type_and_every_type_begins_at_zero(launch: Launch) -> None:
    live = launch(**ON)
    found = scrape(live)
    types = {dict(labels)["type"] for name, labels in found.samples if name == "daemon_events_total"}
    assert types == {kind.type for kind in kinds()}
    live.new_agent()
    again = scrape(live)
    grown = {dict(labels)["type"] for key, value in again.samples.items() if value > found.samples.get(key, 0)
             for name, labels in [key] if name == "daemon_events_total"}  # fmt: skip
    assert grown == {"AGENT_CREATED"}
    assert found("daemon_events_total", type="DAEMON_STARTED") == 1


def test_open_streams_are_counted_by_who_reads_them_and_have_no_duration(launch: Launch) -> None:
    live = launch(**ON)
    made = live.new_session()
    owner = Follower(live.url, X_Master_Password=PASSWORD)
    agent = Follower(live.url, "/v1/session/events", Authorization=f"Bearer {made['token']}")
    found = scrape(live)
    assert (found("daemon_streams", reader="owner"), found("daemon_streams", reader="session")) == (1, 1)
    owner.close()
    agent.close()
    wait_for(lambda: scrape(live).total("daemon_streams") == 0)
    wait_for(lambda: scrape(live).total("daemon_http_requests_total", route="/v1/owner/events") == 1)
    after = scrape(live)
    assert after.total("daemon_http_request_duration_seconds_count", route="/v1/owner/events") == 0


def test_the_session_cache_tells_what_it_was_good_for(launch: Launch) -> None:
    live = launch(**ON)
    made = live.new_session()
    live.restart()
    client = live.agent(made["token"])
    assert [client.get("/v1/session").status_code for _ in range(4)] == [200] * 4
    found = scrape(live)
    names = ("sessions", "hits_total", "misses_total")
    assert [found(f"daemon_session_cache_{name}") for name in names] == [1, 3, 1]


def test_a_blocked_event_loop_shows_as_late(launch: Launch) -> None:
    live = launch(**ON)

    def late(found: Scrape) -> float:
        name = "daemon_event_loop_lag_seconds"
        return found(f"{name}_count") - found(f"{name}_bucket", le="0.1")

    wait_for(lambda: scrape(live)("daemon_event_loop_lag_seconds_count"))
    live.loop.call_soon_threadsafe(time.sleep, 0.6)  # longer than the wait for the next look, by far
    wait_for(lambda: late(scrape(live)))


def test_a_failing_background_task_shows(launch: Launch) -> None:
    live = launch(**ON)
    assert scrape(live).total("daemon_worker_failing") == 0
    live.query("ALTER TABLE idempotency_keys RENAME TO gone")

    async def sweep(daemon: Any) -> None:
        (sweeper,) = (one for one in daemon.parts.workers._workers if one.name == "sweeper")
        sweeper.woken.set()

    live.call(sweep)
    wait_for(lambda: scrape(live)("daemon_worker_failing", worker="sweeper") == 1)
