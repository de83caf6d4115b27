"""Live events: whole and in order, for whom they concern, for as long as they may be seen."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from daemon.domain.changes import Outcome, Scope
from daemon.domain.events import SYSTEM, Event
from daemon.domain.facts.agents import AgentReport
from daemon.domain.facts.sessions import SessionUpdated
from daemon.web.open_stream import StreamLimits
from tests.support.daemon_process import PASSWORD, DaemonProcess, wait_for
from tests.support.live import LiveDaemon
from tests.support.streams import Follower

Launch = Callable[..., LiveDaemon]
OWN = "/v1/session/events"
OWNER = {"X-Master-Password": PASSWORD}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveDaemon]:
    """One daemon for the tests that leave nothing behind."""
    started = LiveDaemon(tmp_path_factory.mktemp("streams") / "home")
    yield started
    started.stop()


def follow(live: LiveDaemon, **headers: str) -> Follower:
    """Open the owner's stream."""
    return Follower(live.url, X_Master_Password=PASSWORD, **headers)


def follow_own(live: LiveDaemon, token: str, **headers: str) -> Follower:
    """Open a session's stream."""
    return Follower(live.url, OWN, Authorization=f"Bearer {token}", **headers)


def streams(live: LiveDaemon) -> Any:
    return live.daemon.parts.services.streams


def open_streams(live: LiveDaemon) -> int:
    return sum(map(len, list(streams(live)._readers.values())))


# --- what is shown


def test_the_stream_shows_each_event_as_the_audit_log_lists_it(shared: LiveDaemon) -> None:
    stream = follow(shared)
    session = shared.new_session(metadata={"a": "é\n"})
    shared.owner.post(f"/v1/sessions/{session['id']}/suspend", json={"reason": "a\r\nb\u2028c"})
    stream.wait(lambda: "SESSION_SUSPENDED" in stream.types)
    listed = shared.owner.get("/v1/admin/audit", params={"after": stream.ids[0] - 1})
    assert [seen.event for seen in stream.events] == listed.json()
    assert f"[{','.join(seen.data for seen in stream.events)}]" == listed.text
    assert [(seen.id, seen.type) for seen in stream.events] == [(one["seq"], one["type"]) for one in listed.json()]


def test_a_stream_opens_at_once_and_says_where_it_stands(shared: LiveDaemon) -> None:
    shared.new_agent()
    head = shared.events()[-1]["seq"]
    for where in (shared.url, shared.home.socket_path):
        stream = Follower(where, X_Master_Password=PASSWORD)
        headers = stream.answer.headers
        assert (stream.status, headers["Content-Type"]) == (200, "text/event-stream")
        assert (headers["Cache-Control"], headers["Transfer-Encoding"]) == ("no-store", "chunked")
        stream.wait(lambda one=stream: one.last_id == head)
        assert stream.events == []
        stream.close()


def test_an_agent_sees_the_events_of_its_own_session_alone(shared: LiveDaemon) -> None:
    agent = shared.new_agent()
    mine, other = shared.new_session(agent), shared.new_session(agent)
    stream = follow_own(shared, mine["token"], Last_Event_ID="0")
    shared.owner.patch(f"/v1/sessions/{other['id']}", json={"metadata": {"a": 1}})
    shared.owner.patch(f"/v1/sessions/{mine['id']}", json={"metadata": {"a": 1}})
    stream.wait(lambda: "SESSION_UPDATED" in stream.types)
    assert stream.types == ["SESSION_CREATED", "SESSION_STARTED", "SESSION_UPDATED"]
    assert [seen.event for seen in stream.events] == shared.events(sessionId=mine["id"])


def test_a_silent_stream_is_kept_alive(launch: Launch) -> None:
    live = launch(streams=StreamLimits(keep_alive=0.2))
    stream = follow(live)
    stream.wait(lambda: stream.comments.count("keep-alive") >= 2)
    assert stream.events == []


# --- where it begins


@pytest.mark.parametrize("sent", ["", "x", "-1", "1.0", "+1", "٣", "9" * 17, str(2**53), "1,2"])
def test_a_malformed_position_is_400(shared: LiveDaemon, sent: str) -> None:
    agent = shared.agent(shared.new_session()["token"])
    for client, path in ((shared.owner, "/v1/owner/events"), (agent, OWN)):
        answer = client.get(path, headers=[("Last-Event-ID", sent.encode())])
        assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR")
        assert answer.json()["errors"][0]["path"] == "Last-Event-ID"


def test_a_position_that_is_still_to_come_is_400(shared: LiveDaemon) -> None:
    agent = shared.agent(shared.new_session()["token"])
    agent.get("/v1/session").raise_for_status()
    head = shared.events()[-1]["seq"]
    for client, path in ((shared.owner, "/v1/owner/events"), (agent, OWN)):
        answer = client.get(path, headers={"Last-Event-ID": str(head + 1)})
        assert (answer.status_code, answer.json()["errors"][0]["path"]) == (400, "Last-Event-ID")
    assert follow(shared, Last_Event_ID=str(head)).status == 200


def test_a_position_is_sent_once_and_in_the_header_alone(shared: LiveDaemon) -> None:
    twice = shared.owner.get("/v1/owner/events", headers=[("Last-Event-ID", "1"), ("Last-Event-ID", "1")])
    assert (twice.status_code, twice.json()["errors"][0]["path"]) == (400, "Last-Event-ID")
    query = shared.owner.get("/v1/owner/events?after=1")
    assert (query.status_code, query.json()["errors"][0]["path"]) == (400, "after")


def test_event_streams_are_accepted_where_there_are_some_and_head_is_405(shared: LiveDaemon) -> None:
    asked = {"Accept": "text/event-stream"}
    assert shared.owner.get("/v1/agents", headers=asked).status_code == 406
    assert shared.owner.get("/v1/owner/events/more", headers=asked).status_code == 406
    assert shared.owner.get("/v1/owner/events", headers={"Accept": "text/html"}).status_code == 406
    assert shared.owner.get("/v1/owner/events", headers={"Accept": "text/event-stream;q=0"}).status_code == 406
    assert shared.owner.head("/v1/owner/events", headers=asked).status_code == 405
    refused = shared.anonymous.get("/v1/owner/events", headers=asked)
    assert (refused.status_code, refused.headers["Content-Type"]) == (401, "application/problem+json")


# --- without gap or repeat


def test_a_client_that_comes_back_misses_nothing_and_sees_nothing_twice(tmp_path: Path) -> None:
    daemon = DaemonProcess(tmp_path / "home")
    seen: list[int] = []
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            connection = http.client.HTTPConnection(urlsplit(daemon.url).netloc, timeout=5)
            try:
                connection.request(
                    "POST", "/v1/agents", b'{"name": "a"}', {**OWNER, "Content-Type": "application/json"}
                )
                connection.getresponse()
            except (OSError, http.client.HTTPException):
                stop.wait(0.02)
            finally:
                connection.close()

    def read(count: int) -> None:
        more = {"Last_Event_ID": str(seen[-1])} if seen else {"Last_Event_ID": "0"}
        stream = Follower(daemon.url, X_Master_Password=PASSWORD, **more)
        stream.wait(lambda: len(stream.ids) >= count or stream.ended_at)
        stream.close()
        seen.extend(stream.ids)

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(5):
            read(10)
        daemon.kill9()
        daemon.start()
        for _ in range(3):
            read(20)
        daemon.stop()
        daemon.start()
        read(30)
        stop.set()
        for writer in writers:
            writer.join()
        head = _head(daemon)
        read(head - seen[-1])
    finally:
        stop.set()
        daemon.stop()
    assert seen == list(range(1, head + 1))


def _head(daemon: DaemonProcess) -> int:
    stream = Follower(daemon.url, X_Master_Password=PASSWORD)
    wait_for(lambda: stream.last_id)
    stream.close()
    return stream.last_id


def test_what_the_memory_holds_no_more_is_read_from_the_database(launch: Launch) -> None:
    live = launch(streams=StreamLimits(ring_events=32, ring_bytes=20_000))
    agent = live.new_agent()
    first = follow(live)
    for number in range(150):
        live.owner.patch(f"/v1/agents/{agent}", json={"name": f"n{number}"})
        assert streams(live).kept() <= 20_000
    late = follow(live, Last_Event_ID="0")
    head = live.events()[-1]["seq"]
    late.wait(lambda: late.ids and late.ids[-1] == head)
    first.wait(lambda: first.ids and first.ids[-1] == head)
    assert late.ids == list(range(1, head + 1))
    assert first.ids == late.ids[-150:]


def test_events_that_were_committed_but_never_announced_are_shown_too(live: LiveDaemon) -> None:
    stream, own = follow(live), follow_own(live, (session := live.new_session())["token"])
    listeners = live.daemon._opening.bus._listeners
    listeners.remove(streams(live).publish)
    live.owner.patch(f"/v1/sessions/{session['id']}", json={"metadata": {"n": 1}})
    stream.wait(lambda: "SESSION_UPDATED" in stream.types)
    live.owner.patch(f"/v1/sessions/{session['id']}", json={"metadata": {"n": 2}})
    listeners.append(streams(live).publish)
    live.owner.patch(f"/v1/sessions/{session['id']}", json={"metadata": {"n": 3}})
    for one in (stream, own):
        one.wait(lambda one=one: one.types.count("SESSION_UPDATED") == 3)
        assert [seen.event for seen in one.events] == [event for event in live.events() if event["seq"] in one.ids]
    assert stream.ids == list(range(stream.ids[0], stream.ids[-1] + 1))


def test_a_commit_of_very_many_events_is_answered_first_and_loses_none_of_them(live: LiveDaemon) -> None:
    stream, session = follow(live), live.new_session()["id"]
    fact, announced = SessionUpdated(session_id=session, fields=()), list[Event]()

    async def write(daemon: Any) -> int:
        daemon._opening.bus.listen(announced.append)
        outcome = Outcome(answer=None, facts=(fact,) * 50_000)
        await daemon.parts.store.change(Scope(), lambda _rows, _now: outcome, SYSTEM)
        return len(announced)

    assert live.call(write) < 5_000
    stream.wait(lambda: stream.types.count(fact.type) == 50_000)
    assert stream.ids == list(range(stream.ids[0], stream.ids[-1] + 1))
    live.stop()
    logged = [json.loads(line) for line in live.home.log_file("logs/daemon.log").read_bytes().splitlines()]
    assert sum(line["event"] == "session.updated" for line in logged) == 50_000


# --- a client that does not read


def silent(live: LiveDaemon, before: str = "") -> socket.socket:
    """Open the owner's stream over the unix socket, after another request perhaps, and read nothing of it."""
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(live.home.socket_path))
    client.send(
        f"{before}GET /v1/owner/events HTTP/1.1\r\nHost: localhost\r\nX-Master-Password: {PASSWORD}\r\n"
        f"Last-Event-ID: 0\r\n\r\n".encode()
    )
    return client


def write_much(live: LiveDaemon, count: int = 450) -> None:
    """Write more than the buffers of a connection hold."""
    agent = live.new_agent()
    for number in range(count // 2):
        for verb in ("suspend", "activate"):
            live.owner.post(f"/v1/agents/{agent}/{verb}", json={"reason": f"{number} ".ljust(450, "x")})


def test_of_large_events_no_more_is_held_for_a_client_that_does_not_read_than_of_small_ones(live: LiveDaemon) -> None:
    report = AgentReport(
        session_id=live.new_session()["id"], reference_id=None, title=None, details={"a": "x" * 16_000}
    )
    outcome = Outcome(answer=None, facts=(report,) * 100)
    live.call(lambda daemon: daemon.parts.store.change(Scope(), lambda _rows, _now: outcome, SYSTEM))
    with silent(live):
        wait_for(lambda: open_streams(live) == 1)
        (stream,) = streams(live)._readers[None]
        held = wait_for(lambda: stream._sending and stream._transport.get_write_buffer_size())
        assert held < 256 * 1024
    late = follow(live, Last_Event_ID="0")
    late.wait(lambda: late.types.count(report.type) == 100)
    assert late.ids == list(range(1, late.ids[-1] + 1))


def test_a_client_that_does_not_read_is_cut_off_and_resumes(launch: Launch) -> None:
    limits = StreamLimits(send_seconds=0.3, ring_bytes=65_536)
    live = launch(streams=limits)
    live.owner.get("/v1/agents")
    client = silent(live)
    quick = follow(live, Last_Event_ID="0")
    write_much(live)
    wait_for(lambda: open_streams(live) == 1)
    assert streams(live).kept() <= limits.ring_bytes
    head = live.events()[-1]["seq"]
    quick.wait(lambda: quick.ids[-1] == head)
    received = b""
    while data := client.recv(65_536):
        received += data
    client.close()
    body = received.partition(b"\r\n\r\n")[2]
    got = [int(line[4:]) for line in body.split(b"\n") if line.startswith(b"id: ")][1:-1]
    assert got == list(range(1, len(got) + 1))
    assert len(got) < head
    again = follow(live, Last_Event_ID=str(got[-1]))
    again.wait(lambda: again.ids and again.ids[-1] == head)
    assert again.ids == list(range(got[-1] + 1, head + 1))


def test_a_client_that_leaves_an_answer_before_the_stream_unread_is_cut_off(launch: Launch) -> None:
    live = launch(streams=StreamLimits(send_seconds=0.3))
    live.owner.get("/v1/agents")
    client = silent(live, before="GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
    wait_for(lambda: open_streams(live) == 1)
    wait_for(lambda: open_streams(live) == 0, 3)
    client.close()


def test_a_client_that_does_not_read_does_not_hold_up_the_stop(live: LiveDaemon) -> None:
    live.owner.get("/v1/agents")
    client = silent(live)
    write_much(live)
    wait_for(lambda: open_streams(live) == 1)
    started = time.monotonic()
    live.stop()
    assert time.monotonic() - started < 3
    client.close()


def test_a_client_that_hangs_up_is_forgotten_at_once(live: LiveDaemon) -> None:
    stream = follow(live)
    assert open_streams(live) == 1
    stream.close()
    wait_for(lambda: open_streams(live) == 0, 1)
    live.new_agent()
    assert streams(live).kept() == 0


# --- when it ends


def revoke(live: LiveDaemon, session: dict[str, Any]) -> None:
    live.owner.delete(f"/v1/sessions/{session['id']}").raise_for_status()


def end_own(live: LiveDaemon, session: dict[str, Any]) -> None:
    live.agent(session["token"]).delete("/v1/session").raise_for_status()


def suspend(live: LiveDaemon, session: dict[str, Any]) -> None:
    live.owner.post(f"/v1/sessions/{session['id']}/suspend").raise_for_status()


def suspend_agent(live: LiveDaemon, session: dict[str, Any]) -> None:
    live.owner.post(f"/v1/agents/{session['agentId']}/suspend").raise_for_status()


def terminate_agent(live: LiveDaemon, session: dict[str, Any]) -> None:
    live.owner.delete(f"/v1/agents/{session['agentId']}").raise_for_status()


def expire(live: LiveDaemon, session: dict[str, Any]) -> None:
    live.time.advance(session["expiresAt"] - live.time.wall)


def idle(live: LiveDaemon, session: dict[str, Any]) -> None:
    live.time.advance(60)


def forbid(live: LiveDaemon, session: dict[str, Any]) -> None:
    changed = {"constraints": {"allowedOperations": ["session.read"]}}
    live.owner.patch(f"/v1/sessions/{session['id']}", json=changed).raise_for_status()


@pytest.mark.parametrize(
    ("end", "last"),
    [
        (revoke, "SESSION_CLOSED"), (end_own, "SESSION_CLOSED"), (suspend, "SESSION_SUSPENDED"),
        (suspend_agent, None), (terminate_agent, "SESSION_CLOSED"), (expire, None), (idle, None),
        (forbid, "SESSION_UPDATED"),
    ],
)  # fmt: skip
def test_a_stream_ends_with_what_lets_it_be_seen_and_shows_the_last_event(
    shared: LiveDaemon, end: Callable[..., None], last: str | None
) -> None:
    agent = shared.new_agent()
    constraints = {"idleTimeout": 60} if end is idle else None
    session, other = shared.new_session(agent, ttl=300, constraints=constraints), shared.new_session()
    stream, others, owners = follow_own(shared, session["token"]), follow_own(shared, other["token"]), follow(shared)
    end(shared, session)
    ended = time.monotonic()
    assert stream.wait_end() - ended < 1
    if last is not None:
        assert stream.types[-1] == last
        assert stream.ids[-1] == shared.events(sessionId=session["id"])[-1]["seq"]
    assert stream.comments == ["connected", "no longer admitted"]
    if end is not expire:
        assert others.ended_at is None
    assert owners.ended_at is None


def test_the_stream_of_a_renewed_session_goes_on(shared: LiveDaemon) -> None:
    session = shared.new_session(ttl=600)
    stream = follow_own(shared, session["token"])
    shared.time.advance(300)
    shared.agent(session["token"]).put(f"/v1/sessions/{session['id']}/renew").raise_for_status()
    shared.time.advance(300)
    shared.owner.patch(f"/v1/sessions/{session['id']}", json={"metadata": {"a": 1}})
    stream.wait(lambda: "SESSION_UPDATED" in stream.types)
    assert "SESSION_RENEWED" in stream.types


def test_whoever_holds_a_token_that_the_owner_replaced_sees_no_more(shared: LiveDaemon) -> None:
    session = shared.new_session(ttl=600)
    stolen = follow_own(shared, session["token"])
    shared.time.advance(300)
    renewed = shared.agent(session["token"]).put(f"/v1/sessions/{session['id']}/renew").json()["token"]
    streams = [stolen, follow_own(shared, renewed)]
    token = shared.owner.post(f"/v1/sessions/{session['id']}/rotate").raise_for_status().json()["token"]
    for stream in streams:
        stream.wait_end(1)
        assert stream.types[-1] == "SESSION_ROTATED"
    own = follow_own(shared, token)
    shared.owner.patch(f"/v1/sessions/{session['id']}", json={"metadata": {"a": 1}})
    own.wait(lambda: "SESSION_UPDATED" in own.types)


def test_all_agents_streams_can_be_ended_at_once_and_the_owners_go_on(live: LiveDaemon) -> None:
    agents, owners = [follow_own(live, live.new_session()["token"]) for _ in range(3)], follow(live)

    async def end(daemon: Any) -> None:
        daemon.parts.services.streams.end_sessions()

    live.call(end)
    for stream in agents:
        stream.wait_end(1)
    assert owners.ended_at is None


def test_a_stream_that_a_ticket_opened_ends_with_the_ticket(shared: LiveDaemon) -> None:
    ticket = shared.owner.post("/v1/owner/login").json()["ticket"]
    stream = Follower(shared.url, Authorization=f"Bearer {ticket}")
    shared.client(Authorization=f"Bearer {ticket}").post("/v1/owner/logout").raise_for_status()
    stream.wait_end(1)


def test_a_change_of_the_password_ends_the_owners_streams_and_no_others(live: LiveDaemon) -> None:
    ticket = live.owner.post("/v1/owner/login").json()["ticket"]
    by_agent, owners = follow_own(live, live.new_session()["token"]), [follow(live)]
    owners.append(Follower(live.url, Authorization=f"Bearer {ticket}"))
    changed = live.owner.post("/v1/admin/password", json={"newPassword": "another horse battery"})
    changed.raise_for_status()
    for stream in owners:
        stream.wait_end(1)
        assert stream.types[-1] == "PASSWORD_CHANGED"
    assert by_agent.ended_at is None


def test_a_stop_ends_every_stream_at_once(launch: Launch) -> None:
    live = launch()
    followed = [follow(live) for _ in range(3)] + [follow_own(live, live.new_session()["token"])]
    started = time.monotonic()
    live.stop()
    assert time.monotonic() - started < 2
    for stream in followed:
        stream.wait_end(1)
        assert stream.comments[-1] == "shutting down"


# --- how many, and what else the daemon says


def test_too_many_streams_are_429_until_one_is_closed(launch: Launch) -> None:
    live = launch(streams=StreamLimits(owner_streams=2, session_streams=1))
    session = live.new_session()
    first, _, own = follow(live), follow(live), follow_own(live, session["token"])
    for refused in (follow(live), follow_own(live, session["token"])):
        assert refused.status == 429
        assert int(refused.answer.headers["Retry-After"]) > 0
        assert json.loads(refused.answer.read())["code"] == "RATE_LIMIT_EXCEEDED"
    assert follow_own(live, live.new_session()["token"]).status == 200
    first.close()
    own.close()
    wait_for(lambda: open_streams(live) == 2)
    assert (follow(live).status, follow_own(live, session["token"]).status) == (200, 200)


def test_opening_a_stream_needs_the_operation_and_counts_one_request(launch: Launch) -> None:
    live = launch(DAEMON_SERVER_SESSION_RPM="2")
    refused = follow_own(live, live.new_session(constraints={"allowedOperations": ["session.read"]})["token"])
    assert (refused.status, json.loads(refused.answer.read())["code"]) == (403, "CONSTRAINT_VIOLATED")
    session = live.new_session(constraints={"allowedOperations": ["session.*"]})
    stream = follow_own(live, session["token"])
    assert stream.answer.headers["RateLimit-Remaining"] == "1"
    for number in range(5):
        live.owner.patch(f"/v1/sessions/{session['id']}", json={"metadata": {"n": number}})
    stream.wait(lambda: stream.types.count("SESSION_UPDATED") == 5)
    answer = live.agent(session["token"]).get("/v1/session")
    assert (answer.status_code, answer.json()["requestCount"]) == (200, 2)


def test_the_log_has_one_line_for_a_stream_when_it_ends(live: LiveDaemon) -> None:
    def lines() -> list[dict[str, Any]]:
        live.daemon.log.flush(5)
        file = live.home.log_file("logs/daemon.log")
        read = [json.loads(line) for line in file.read_text().splitlines()]
        return [line for line in read if line.get("route") == "/v1/owner/events"]

    stream = follow(live)
    assert lines() == []
    stream.close()
    (line,) = wait_for(lines)
    assert (line["event"], line["method"], line["status"], line["actor"]) == ("http.request", "GET", 200, "owner")
