"""Many at once: what must hold when requests race."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from tests.support.daemon_process import wait_for
from tests.support.engines import both_engines
from tests.support.http import Answer, load, request, spread
from tests.support.live import PASSWORD, LiveDaemon

pytestmark = both_engines

UNLIMITED = {"DAEMON_SERVER_GLOBAL_RPM": "0", "DAEMON_SERVER_SESSION_RPM": "0"}


@pytest.fixture
def live(launch: Callable[..., LiveDaemon]) -> LiveDaemon:
    return launch(**UNLIMITED)


def send(live: LiveDaemon, batches: list[list[bytes]]) -> list[list[Answer]]:
    return uvloop.run(load(int(live.url.rpartition(":")[2]), batches))


def bearer(made: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {made['token']}"}


def owner(method: str, path: str, **body: Any) -> bytes:
    return request(method, path, body=json.dumps(body).encode() if body else b"", X_Master_Password=PASSWORD)


def test_64_parallel_renewals_with_one_token_make_one_generation_and_64_equal_answers(live: LiveDaemon) -> None:
    made = live.new_session(ttl=3600)
    live.time.advance(1800)
    renewal = request("PUT", f"/v1/sessions/{made['id']}/renew", **bearer(made))
    answers = [batch[0] for batch in send(live, [[renewal]] * 64)]
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1
    assert live.query("SELECT generation, renewal_count FROM sessions") == [(2, 1)]
    assert len(live.events(type="SESSION_RENEWED")) == 1


def test_50_parallel_creates_with_limit_5_make_exactly_5(live: LiveDaemon) -> None:
    agent = live.new_agent()
    answers = [batch[0] for batch in send(live, [[owner("POST", "/v1/sessions", agentId=agent)]] * 50)]
    assert sorted(answer.status for answer in answers) == [201] * 5 + [403] * 45
    assert live.query("SELECT count(*) FROM sessions") == [(5,)]


def test_parallel_creates_with_one_idempotency_key_make_one_session(live: LiveDaemon) -> None:
    body = json.dumps({"agentId": live.new_agent()}).encode()
    create = request("POST", "/v1/sessions", body=body, X_Master_Password=PASSWORD, Idempotency_Key="once")
    answers = [batch[0] for batch in send(live, [[create]] * 20)]
    assert sorted(answer.status for answer in answers) == [201] + [409] * 19


def test_10000_requests_over_32_connections_count_exactly_10000(live: LiveDaemon) -> None:
    made = live.new_session()
    answers = send(live, spread([request("GET", "/v1/session", **bearer(made))] * 10_000, 32))
    assert {answer.status for batch in answers for answer in batch} == {200}
    # A read shows what is stored; a server that is slow for a moment gets the rest at the next flush.
    wait_for(lambda: live.owner.get(f"/v1/sessions/{made['id']}").json()["requestCount"] == 10_000, seconds=5)
    live.stop()
    assert live.query("SELECT request_count FROM sessions") == [(10_000,)]


@pytest.mark.parametrize("operation", ["suspend", "revoke"])
def test_a_request_sent_after_the_acknowledgement_is_refused(live: LiveDaemon, operation: str) -> None:
    """Busy connections ask all the time; what was sent after the owner's answer arrived must not pass."""
    made = live.new_session(ttl=3600)
    live.time.advance(1800)
    path = f"/v1/sessions/{made['id']}"
    use, renew = request("GET", "/v1/session", **bearer(made)), request("PUT", f"{path}/renew", **bearer(made))
    stop = owner("POST", f"{path}/suspend") if operation == "suspend" else owner("DELETE", path)

    async def race() -> tuple[Answer, list[Answer]]:
        port = int(live.url.rpartition(":")[2])
        batches = [*([use] * 750 for _ in range(7)), [use] * 50 + [renew] + [use] * 600]
        busy = asyncio.ensure_future(load(port, batches))
        await asyncio.sleep(0.02)
        ended = (await load(port, [[stop]]))[0][0]
        return ended, [answer for batch in await busy for answer in batch]

    ended, answers = uvloop.run(race())
    assert ended.status == 200
    late = [answer for answer in answers if answer.at - answer.seconds > ended.at]
    assert late, "the load ended before the owner's answer"
    assert {answer.status for answer in late} <= {401, 403}


def test_nothing_commits_for_a_session_after_its_revocation(live: LiveDaemon) -> None:
    agent = live.new_agent()
    made = [live.new_session(agent, ttl=3600) for _ in range(5)]
    live.time.advance(1800)
    batches = []
    for one in made:
        path = f"/v1/sessions/{one['id']}"
        batches += [
            [request("PUT", f"{path}/renew", **bearer(one))] * 4,
            [request("GET", "/v1/session", **bearer(one))] * 8,
            [owner("POST", f"{path}/suspend"), owner("POST", f"{path}/resume")] * 3,
            [owner("GET", "/v1/admin/status")] * 2 + [owner("DELETE", path)],
        ]
    send(live, batches)
    for one in made:
        types = [event["type"] for event in live.events(sessionId=one["id"])]
        end = next(at for at, kind in enumerate(types) if kind in {"SESSION_REVOKED", "SESSION_RENEWAL_REJECTED"})
        assert types[end + 1 :] == ["SESSION_CLOSED"]
    assert live.owner.get("/v1/admin/audit/verify").json()["valid"] is True


def test_two_owners_revoke_and_rotate_at_once_and_the_chain_stays_whole(live: LiveDaemon) -> None:
    agent = live.new_agent()
    made = [live.new_session(agent) for _ in range(5)]
    batches = [
        [owner("POST", f"/v1/sessions/{one['id']}/rotate")] * 5 + [owner("DELETE", f"/v1/sessions/{one['id']}")]
        for one in made
        for _ in range(3)
    ]
    answers = [answer for batch in send(live, batches) for answer in batch]
    assert {answer.status for answer in answers} <= {200, 409}
    assert len(live.events(type="SESSION_REVOKED")) == 5
    verified = live.owner.get("/v1/admin/audit/verify").json()
    assert (verified["valid"], verified["firstBad"]) == (True, None)


def test_a_client_that_goes_away_leaves_a_session_with_its_event_or_neither(live: LiveDaemon) -> None:
    agent = live.new_agent()

    async def vanish() -> None:
        port = int(live.url.rpartition(":")[2])
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(owner("POST", "/v1/sessions", agentId=agent).replace(b"PORT", str(port).encode(), 1))
        await writer.drain()
        writer.transport.abort()

    for _ in range(3):
        uvloop.run(vanish())
    live.stop()
    rows = live.query("SELECT count(*) FROM sessions")[0][0]
    assert rows == len(live.query("SELECT id FROM audit_log WHERE event_type = 'SESSION_CREATED'"))
