"""Two real daemons on one PostgreSQL database behave as one."""

import asyncio
import json
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon_process import PASSWORD, cli, wait_for
from tests.support.http import Answer, load, request, spread
from tests.support.live import FakeTime, LiveDaemon
from tests.support.oauth import INTROSPECT, Service
from tests.support.owner import CHANNELS, WEBHOOK_SECRET, telegram, webhook
from tests.support.pair import Pair, Site, refused_after
from tests.support.postgres import fresh_database
from tests.support.proxy import Proxy
from tests.support.services.telegram import FakeTelegram
from tests.support.services.webhook import FakeWebhook
from tests.support.streams import Follower

WITHIN = 1.0
"""Seconds after which nothing that was taken back may be accepted by any daemon."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two daemons that the tests of the module share; a test leaves them running and unlocked."""
    with fresh_database() as url:
        made = Pair(tmp_path_factory.mktemp("pair"), url)
        yield made
        made.stop()


@pytest.fixture
def own_pair(tmp_path: Path) -> Iterator[Callable[..., Pair]]:
    """Make two daemons of the test's own."""
    started: list[Pair] = []
    with fresh_database() as url:

        def start(url_of_b: str | None = None, **env: str) -> Pair:
            started.append(Pair(tmp_path, url, url_of_b, **env))
            return started[-1]

        start.url = url  # type: ignore[attr-defined]
        yield start
        for one in started:
            one.stop()


def over_both(pair: Pair, requests: list[bytes], connections: int = 32) -> list[Answer]:
    """Send requests at once, every second one to the other daemon."""

    async def both() -> list[list[list[Answer]]]:
        shares = ((pair.a, requests[::2]), (pair.b, requests[1::2]))
        return list(await asyncio.gather(*(load(site.port, spread(share, connections)) for site, share in shares)))

    return [answer for answers in asyncio.run(both()) for batch in answers for answer in batch]


def ripe(pair: Pair, session: dict[str, Any]) -> None:
    """Let half of a session's term be over."""
    pair.ask(
        "UPDATE sessions SET created_at = created_at - (ttl_seconds / 2 + 1) * interval '1 second' WHERE id = $1",
        session["id"],
    )


def is_accepted(site: Site, token: str) -> Callable[[], bool]:
    """Return what asks a daemon, over one connection, whether it accepts a token; it was used there before."""
    client = site.agent(token)

    def ask() -> bool:
        return client.get("/v1/session").status_code == 200

    assert ask()
    assert ask()
    return ask


def test_64_renewals_of_one_token_over_both_make_one_generation_and_64_equal_answers(pair: Pair) -> None:
    session = pair.a.new_session(ttl=300)
    ripe(pair, session)
    renewal = request("PUT", f"/v1/sessions/{session['id']}/renew", Authorization=f"Bearer {session['token']}")
    answers = over_both(pair, [renewal] * 64)
    assert [answer.status for answer in answers] == [200] * 64
    assert len({answer.body for answer in answers}) == 1
    assert pair.ask("SELECT generation, renewal_count FROM sessions WHERE id = $1", session["id"]) == [(2, 1)]


def test_50_creations_over_both_stop_at_the_limit(pair: Pair) -> None:
    agent = pair.a.new_agent()
    body = json.dumps({"agentId": agent}).encode()
    answers = over_both(pair, [request("POST", "/v1/sessions", body=body, X_Master_Password=PASSWORD)] * 50)
    assert Counter(answer.status for answer in answers) == {201: 5, 403: 45}
    assert pair.ask("SELECT count(*) FROM sessions WHERE agent_id = $1", agent) == [(5,)]


def test_an_idempotency_key_over_both_makes_one_session(pair: Pair) -> None:
    body = json.dumps({"agentId": pair.a.new_agent()}).encode()
    creation = request("POST", "/v1/sessions", body=body, X_Master_Password=PASSWORD, Idempotency_Key="once-0001")
    answers = over_both(pair, [creation] * 20)
    assert Counter(answer.status for answer in answers)[201] == 1
    assert pair.ask("SELECT count(*) FROM sessions WHERE agent_id = $1", json.loads(body)["agentId"]) == [(1,)]


def test_a_revocation_on_one_is_refused_by_the_other_at_once(pair: Pair, campaign: bool) -> None:
    delays = []
    for _ in range(100 if campaign else 25):
        session = pair.a.new_session()
        accepted = is_accepted(pair.b, session["token"])
        pair.a.owner.delete(f"/v1/sessions/{session['id']}").raise_for_status()
        delays.append(refused_after(accepted, time.monotonic()))
    delays.sort()
    print(f"refused on the other daemon: p50 {delays[len(delays) // 2] * 1000:.1f} ms, max {delays[-1] * 1000:.1f} ms")
    assert delays[-1] < WITHIN


def _suspend_session(pair: Pair, session: dict[str, Any]) -> None:
    pair.a.owner.post(f"/v1/sessions/{session['id']}/suspend", json={"reason": "t"}).raise_for_status()


def _suspend_agent(pair: Pair, session: dict[str, Any]) -> None:
    pair.a.owner.post(f"/v1/agents/{session['agentId']}/suspend", json={"reason": "t"}).raise_for_status()


def _terminate_agent(pair: Pair, session: dict[str, Any]) -> None:
    pair.a.owner.delete(f"/v1/agents/{session['agentId']}").raise_for_status()


def _rotate_token(pair: Pair, session: dict[str, Any]) -> None:
    pair.a.owner.post(f"/v1/sessions/{session['id']}/rotate").raise_for_status()


def _stop_everything(pair: Pair, _: dict[str, Any]) -> None:
    pair.a.owner.post("/v1/admin/kill-switch", json={"reason": "t"}).raise_for_status()


TAKEN_BACK = [_suspend_session, _suspend_agent, _terminate_agent, _rotate_token, _stop_everything]


@pytest.mark.parametrize("take_back", TAKEN_BACK, ids=lambda one: one.__name__.strip("_"))
def test_what_is_taken_back_on_one_is_refused_by_the_other(
    pair: Pair, take_back: Callable[[Pair, dict[str, Any]], None]
) -> None:
    session = pair.b.new_session()
    accepted = is_accepted(pair.b, session["token"])
    take_back(pair, session)
    assert refused_after(accepted, time.monotonic()) < WITHIN
    if take_back is _stop_everything:
        wait_for(lambda: pair.b.owner.post("/v1/agents", json={"name": "x"}).status_code == 503, WITHIN)
        pair.b.owner.post("/v1/admin/recover").raise_for_status()
        wait_for(lambda: pair.a.owner.post("/v1/agents", json={"name": "x"}).status_code == 201, WITHIN)


def test_what_is_taken_back_on_one_is_inactive_on_the_other(pair: Pair) -> None:
    at_b = Service(pair.a).at(pair.b)
    for take_back in (_revoke, _suspend_session, _suspend_agent, _rotate_token):
        token = (session := pair.a.new_session())["token"]

        def active(token: str = token) -> bool:
            return bool(at_b.post(INTROSPECT, data={"token": token}).raise_for_status().json()["active"])

        assert active(), "a verifier that one adds is known to the other"
        take_back(pair, session)
        assert refused_after(active, time.monotonic()) < WITHIN


def test_what_a_verifier_revokes_on_one_is_refused_by_the_other(pair: Pair) -> None:
    session = pair.a.new_session()
    accepted = is_accepted(pair.b, session["token"])
    Service(pair.a, mayRevoke=True).revoke(session["token"]).raise_for_status()
    assert refused_after(accepted, time.monotonic()) < WITHIN


def test_a_verifier_that_one_revokes_is_refused_by_the_other(pair: Pair) -> None:
    service = Service(pair.a)
    at_b = service.at(pair.b)

    def accepted() -> bool:
        return at_b.post(INTROSPECT, data={"token": "x"}).status_code == 200

    assert accepted()
    pair.a.owner.delete(f"/v1/owner/verifiers/{service.id}").raise_for_status()
    assert refused_after(accepted, time.monotonic()) < WITHIN


def test_secrets_that_one_rotates_classify_on_the_other(pair: Pair) -> None:
    session = pair.b.new_session(ttl=300)
    ripe(pair, session)
    rotated = pair.a.owner.post("/v1/admin/rotate-secret", json={"revokeSessions": False})
    rotated.raise_for_status()
    wait_for(lambda: any(line["seq"] for line in pair.b.logged("secret.rotated")))
    # Signed by A with the new secret, superseded twice: only a signature tells B that it was one of ours.
    first = pair.a.agent(session["token"]).put(f"/v1/sessions/{session['id']}/renew").raise_for_status().json()
    for _ in range(2):
        pair.ask(
            "UPDATE sessions SET last_renewed_at = last_renewed_at - interval '160 s' WHERE id = $1", session["id"]
        )
        last = pair.a.owner.post(f"/v1/sessions/{session['id']}/rotate").raise_for_status().json()
    refused = pair.b.agent(first["token"]).get("/v1/session").json()
    assert refused["code"] == "TOKEN_ROTATED", refused
    assert pair.b.agent(last["token"]).get("/v1/session").status_code == 200


def test_a_password_that_one_changes_ends_what_the_other_remembers(own_pair: Callable[..., Pair]) -> None:
    pair = own_pair()
    ticket = pair.b.owner.post("/v1/owner/login", json={}).raise_for_status().json()["ticket"]
    with_ticket = pair.b.client(Authorization=f"Bearer {ticket}")
    assert with_ticket.get("/v1/agents").status_code == 200
    follower = Follower(pair.b.url, X_Master_Password=PASSWORD)
    new = "another correct horse battery"
    pair.a.owner.post("/v1/admin/password", json={"newPassword": new}).raise_for_status()
    changed = time.monotonic()
    assert refused_after(lambda: pair.b.owner.get("/v1/agents").status_code == 200, changed) < WITHIN
    assert refused_after(lambda: with_ticket.get("/v1/agents").status_code == 200, changed) < WITHIN
    assert follower.wait_end() - changed < WITHIN + 0.5
    assert pair.b.client(**{"X-Master-Password": new}).get("/v1/agents").status_code == 200


@pytest.fixture
def deaf(own_pair: Callable[..., Pair]) -> Iterator[tuple[Pair, Proxy]]:
    """Two daemons; what is told to B goes through a proxy that can swallow it."""
    proxy = Proxy(own_pair.url)  # type: ignore[attr-defined]
    yield own_pair(proxy.url), proxy
    proxy.close()


def test_a_daemon_that_hears_nothing_accepts_nothing_that_was_taken_back(deaf: tuple[Pair, Proxy]) -> None:
    pair, proxy = deaf
    revoked, suspended, kept = (pair.b.new_session() for _ in range(3))
    asked = [is_accepted(pair.b, one["token"]) for one in (revoked, suspended, kept)]
    ticket = pair.b.owner.post("/v1/owner/login", json={}).raise_for_status().json()["ticket"]
    with_ticket = pair.b.client(Authorization=f"Bearer {ticket}")
    follower = Follower(pair.b.url, X_Master_Password=PASSWORD)
    service = Service(pair.b)
    assert service.is_active(kept["token"])
    proxy.deaf = True
    # At any moment after it stopped hearing: while it still trusts its memory, and when it does not any more.
    for number, take_back in enumerate((_revoke, _suspend_agent)):
        session = (revoked, suspended)[number]
        take_back(pair, session)
        assert refused_after(asked[number], time.monotonic()) < WITHIN
        wait_for(lambda: pair.b.logged("storage.lost"), 5)
    assert asked[2]()
    assert not service.is_active(suspended["token"])
    pair.a.owner.delete(f"/v1/owner/verifiers/{service.id}").raise_for_status()
    assert service.introspect("x").status_code == 401, "without word of the others, every look is at the rows"
    assert pair.b.agent(pair.b.new_session()["token"]).get("/v1/session").status_code == 200
    pair.a.owner.post("/v1/admin/password", json={"newPassword": "another correct horse"}).raise_for_status()
    changed = time.monotonic()
    assert refused_after(lambda: pair.b.owner.get("/v1/agents").status_code == 200, changed) < WITHIN
    assert refused_after(lambda: with_ticket.get("/v1/agents").status_code == 200, changed) < WITHIN
    assert follower.wait_end() - changed < WITHIN + 0.5
    owner = pair.a.client(**{"X-Master-Password": "another correct horse"})
    owner.post("/v1/admin/kill-switch", json={"reason": "t"}).raise_for_status()
    assert refused_after(asked[2], time.monotonic()) < WITHIN
    proxy.deaf = False
    wait_for(lambda: pair.b.logged("storage.recovered"), 10)
    last = pair.ask("SELECT max(id) FROM audit_log")[0][0]
    wait_for(lambda: _events_of(pair.b)[-1] >= last)
    assert _is_whole(_events_of(pair.b))


def _revoke(pair: Pair, session: dict[str, Any]) -> None:
    pair.a.owner.delete(f"/v1/sessions/{session['id']}").raise_for_status()


def test_a_listener_that_is_killed_again_and_again_lets_nothing_through(pair: Pair) -> None:
    session = pair.b.new_session()
    accepted = is_accepted(pair.b, session["token"])
    killed, until = 0, time.monotonic() + 1.0
    while time.monotonic() < until:
        killed += len(
            pair.ask(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND query ILIKE '%pg_notify%' AND pid <> pg_backend_pid()"
            )
        )
    _revoke(pair, session)
    assert refused_after(accepted, time.monotonic()) < WITHIN
    assert killed > 2


def _events_of(site: Site) -> list[int]:
    """Return the numbers of the audit events in a daemon's log."""
    return [line["seq"] for line in site.logged() if "seq" in line and "timestamp" in line]


def _is_whole(seqs: list[int]) -> bool:
    return seqs == list(range(seqs[0], seqs[-1] + 1))


def test_with_both_writing_at_full_speed_the_chain_is_whole_and_each_log_and_stream_has_every_event_once(
    pair: Pair, campaign: bool
) -> None:
    followers = [Follower(site.url, X_Master_Password=PASSWORD) for site in (pair.a, pair.b)]
    first = pair.ask("SELECT max(id) FROM audit_log")[0][0]
    bodies = [json.dumps({"name": f"agent {number}"}).encode() for number in range(2000 if campaign else 400)]
    answers = over_both(pair, [request("POST", "/v1/agents", body=one, X_Master_Password=PASSWORD) for one in bodies])
    assert {answer.status for answer in answers} == {201}
    last = pair.ask("SELECT max(id) FROM audit_log")[0][0]
    assert last - first >= len(bodies)
    for follower in followers:
        follower.wait(lambda one=follower: one.ids and one.ids[-1] >= last)
        assert _is_whole(follower.ids)
        follower.close()
    for site in (pair.a, pair.b):
        wait_for(lambda one=site: _events_of(one)[-1] >= last)
        assert _is_whole(_events_of(site))
        assert site.owner.get("/v1/admin/audit/verify").json()["valid"] is True


def test_200_binds_of_a_new_conversation_over_both_have_one_creator(pair: Pair) -> None:
    session = pair.a.new_session()
    bodies = [json.dumps({"provider": f"p{number % 7}", "model": "m"}).encode() for number in range(200)]
    answers = over_both(
        pair,
        [
            request("PUT", "/v1/conversations/c1", body=body, Authorization=f"Bearer {session['token']}")
            for body in bodies
        ],
    )
    assert Counter(answer.status for answer in answers) == {201: 1, 200: 199}
    assert len({json.loads(answer.body)["provider"] for answer in answers}) == 1


def test_a_conversation_that_is_bound_anew_on_one_is_seen_on_the_other(pair: Pair) -> None:
    session = pair.a.new_session()
    at_a, at_b = pair.a.agent(session["token"]), pair.b.agent(session["token"])
    for client in (at_a, at_b):
        client.put("/v1/conversations/c2", json={"provider": "one", "model": "m"}).raise_for_status()
    change = {"expected": {"provider": "one", "model": "m"}, "provider": "two", "model": "m", "reason": "failed"}
    at_a.post("/v1/conversations/c2/rebind", json=change).raise_for_status()
    wait_for(lambda: at_b.get("/v1/conversations/c2").json()["provider"] == "two", WITHIN)
    at_b.delete("/v1/conversations/c2").raise_for_status()
    wait_for(lambda: at_a.get("/v1/conversations/c2").status_code == 404, WITHIN)


def test_a_conversation_that_is_used_on_one_is_seen_so_on_the_other(pair: Pair) -> None:
    session = pair.a.new_session()
    at_a, at_b = pair.a.agent(session["token"]), pair.b.agent(session["token"])
    for client in (at_a, at_b):
        client.put("/v1/conversations/c3", json={"provider": "one", "model": "m"}).raise_for_status()
    for number in range(3, 13):
        assert at_a.post("/v1/conversations/c3/touch").status_code == 200
        if number == 7:
            wait_for(lambda: at_b.get("/v1/conversations/c3").json()["requestCount"] == 7, 2 * WITHIN)
    wait_for(lambda: at_b.get("/v1/conversations/c3").json()["requestCount"] == 12, 2 * WITHIN)
    for _ in range(10):
        at_a.post("/v1/conversations/c3/touch").raise_for_status()
    uses = []

    def is_known_to_the_other() -> bool:
        bound = at_b.put("/v1/conversations/c3", json={"provider": "one", "model": "m"}).json()
        uses.append(bound["requestCount"])
        return bool(uses[-1] == 22 + len(uses))

    wait_for(is_known_to_the_other, 3 * WITHIN)
    wait_for(lambda: at_a.get("/v1/conversations/c3").json()["requestCount"] == uses[-1], 2 * WITHIN)
    assert at_b.get("/v1/conversations/c3").json() == at_a.get("/v1/conversations/c3").json()


def test_bindings_that_one_answered_outlive_its_kill_and_are_the_other_ones_too(
    own_pair: Callable[..., Pair],
) -> None:
    pair = own_pair()
    session = pair.a.new_session()
    at_a, at_b = pair.a.agent(session["token"]), pair.b.agent(session["token"])
    for number in range(20):
        bound = at_a.put(f"/v1/conversations/c{number}", json={"provider": "one", "model": f"{number}"})
        assert bound.status_code == 201
    change = {"expected": {"provider": "one", "model": "19"}, "provider": "two", "model": "m", "reason": "failed"}
    at_a.post("/v1/conversations/c19/rebind", json=change).raise_for_status()
    pair.a.kill9()
    for number in range(20):
        found = at_b.put(f"/v1/conversations/c{number}", json={"provider": "other", "model": "m"})
        assert (found.status_code, found.json()["provider"]) == (200, "two" if number == 19 else "one")
    assert pair.ask("SELECT count(*) FROM audit_log WHERE event_type LIKE 'CONVERSATION_%'") == [(21,)]


def test_requests_that_were_counted_on_both_are_all_counted(pair: Pair) -> None:
    session = pair.a.new_session()
    asked = request("GET", "/v1/session", Authorization=f"Bearer {session['token']}")
    assert {answer.status for answer in over_both(pair, [asked] * 200)} == {200}
    wait_for(lambda: pair.ask("SELECT request_count FROM sessions WHERE id = $1", session["id"]) == [(200,)])


def test_a_message_is_delivered_once_and_after_a_kill_the_other_daemon_takes_over(
    own_pair: Callable[..., Pair],
) -> None:
    pair = own_pair()
    with FakeWebhook(WEBHOOK_SECRET) as hook:
        body = {**webhook(hook), "events": ["SESSION_REVOKED"], "minLevel": "INFO"}
        assert pair.b.owner.post(CHANNELS, json=body).status_code == 201
        for site in (pair.a, pair.b) * 5:
            site.owner.delete(f"/v1/sessions/{site.new_session()['id']}").raise_for_status()
        wait_for(lambda: _told(hook) == 10)
        assert _led(pair.a) == EXCLUSIVE
        assert _led(pair.b) == set()
        pair.a.kill9()
        killed = time.monotonic()
        wait_for(lambda: _led(pair.b) == EXCLUSIVE)
        assert time.monotonic() - killed < 3
        pair.b.owner.delete(f"/v1/sessions/{pair.b.new_session()['id']}").raise_for_status()
        wait_for(lambda: _told(hook) == 11)
        assert not hook.duplicates
    assert pair.b.owner.get("/v1/admin/audit/verify").json()["valid"] is True


def _told(hook: FakeWebhook) -> int:
    """Return how many messages of revocations came; a health check is one too, but of no event."""
    return sum(one.body["type"] == "SESSION_REVOKED" for one in hook.messages)


EXCLUSIVE = {"sweeper", "idle", "notifications", "answers", "channels", "daily-summary", "retention"}


def _led(site: Site) -> set[str]:
    workers = site.owner.get("/v1/admin/status").json()["workers"]
    return {one["name"] for one in workers if one["lastRun"] is not None} & EXCLUSIVE


def test_a_home_without_the_key_of_the_others_is_refused_in_one_line(pair: Pair, tmp_path: Path) -> None:
    for key in (None, "0" * 64):
        home = tmp_path / f"home {key}"
        home.mkdir(mode=0o700)
        if key is not None:
            (home / "seal.key").write_text(f"{key}\n")
            (home / "seal.key").chmod(0o600)
        refused = cli(home, "start", DAEMON_DATABASE_URL=pair.url)
        assert refused.code == 2, refused
        assert "copy seal.key from the home of one" in refused.err
        assert "Traceback" not in refused.err
        assert (home / "seal.key").exists() == (key is not None)


def test_a_daemon_that_was_frozen_does_not_trust_what_it_remembers(pair: Pair) -> None:
    session = pair.b.new_session()
    client = pair.b.agent(session["token"])
    assert client.get("/v1/session").status_code == 200
    pair.b.process.send_signal(signal.SIGSTOP)
    try:
        _revoke(pair, session)
        waited = time.monotonic()
        wait_for(lambda: time.monotonic() - waited > WITHIN)
    finally:
        pair.b.process.send_signal(signal.SIGCONT)
    assert client.get("/v1/session").json()["code"] == "SESSION_REVOKED"


def test_after_a_commit_whose_outcome_is_unknown_nothing_remembered_is_served(deaf: tuple[Pair, Proxy]) -> None:
    pair, proxy = deaf
    session = pair.b.new_session()
    accepted = is_accepted(pair.b, session["token"])
    proxy.uncertain = True
    answer = pair.b.owner.delete(f"/v1/sessions/{session['id']}")
    assert answer.status_code == 503, answer.text
    assert refused_after(accepted, time.monotonic()) < WITHIN
    proxy.uncertain = False
    pair.b.new_session()
    last = pair.ask("SELECT max(id) FROM audit_log")[0][0]
    for site in (pair.a, pair.b):
        wait_for(lambda one=site: _events_of(one)[-1] >= last)
        assert _is_whole(_events_of(site))
        assert len(site.logged("session.revoked")) == 1


@pytest.fixture
def timed(tmp_path: Path) -> Iterator[tuple[LiveDaemon, LiveDaemon, FakeTime]]:
    """Two daemons in one time that the test moves."""
    moved = FakeTime()
    with fresh_database() as url:
        a = LiveDaemon(tmp_path / "a", moved, DAEMON_DATABASE_URL=url)
        (tmp_path / "b").mkdir(mode=0o700)
        shutil.copy(a.home.seal_key_file, tmp_path / "b" / "seal.key")
        b = LiveDaemon(tmp_path / "b", moved, DAEMON_DATABASE_URL=url)
        yield a, b, moved
        b.stop()
        a.stop()


def test_a_session_that_is_used_on_one_is_not_idle_on_the_other(
    timed: tuple[LiveDaemon, LiveDaemon, FakeTime],
) -> None:
    a, b, moved = timed
    session = a.new_session(constraints={"idleTimeout": 60})
    at_a, at_b = a.agent(session["token"]), b.agent(session["token"])
    assert at_b.get("/v1/session").status_code == 200
    for _ in range(3):
        moved.advance(40)
        assert at_a.get("/v1/session").status_code == 200
    a.call(lambda daemon: daemon.parts.store.flush())
    answer = at_b.get("/v1/session")
    assert answer.status_code == 200, answer.text
    # What the other daemon has not stored yet cannot be known: the sweeper leaves it two seconds.
    b.call(lambda daemon: daemon.parts.store.flush())
    moved.advance(61)
    b.call(lambda daemon: daemon.parts.services.admin.sweep())
    assert not b.events(type="SESSION_EXPIRED")
    moved.advance(1)
    b.call(lambda daemon: daemon.parts.services.admin.sweep())
    assert [one["details"]["reason"] for one in b.events(type="SESSION_EXPIRED")] == ["idle"]


def test_a_token_that_is_used_on_one_is_active_on_the_other(timed: tuple[LiveDaemon, LiveDaemon, FakeTime]) -> None:
    a, b, moved = timed
    token = a.new_session(constraints={"idleTimeout": 60})["token"]
    service = Service(b)
    assert service.is_active(token)
    moved.advance(40)
    a.agent(token).get("/v1/session").raise_for_status()
    a.call(lambda daemon: daemon.parts.store.flush())
    moved.advance(40)
    assert service.is_active(token)
    moved.advance(20)
    assert not service.is_active(token)


def test_a_token_that_was_superseded_and_used_on_one_is_reused_on_the_other(
    timed: tuple[LiveDaemon, LiveDaemon, FakeTime],
) -> None:
    a, b, moved = timed
    session = a.new_session(ttl=300)
    old = b.agent(session["token"])
    assert old.get("/v1/session").status_code == 200
    moved.advance(150)
    renewed = a.agent(session["token"]).put(f"/v1/sessions/{session['id']}/renew").raise_for_status()
    moved.advance(31)
    assert old.put(f"/v1/sessions/{session['id']}/renew").json() == renewed.json()
    assert a.agent(renewed.json()["token"]).get("/v1/session").status_code == 200
    a.call(lambda daemon: daemon.parts.store.flush())
    assert old.put(f"/v1/sessions/{session['id']}/renew").json()["code"] == "TOKEN_REUSED"
    wait_for(lambda: a.agent(renewed.json()["token"]).get("/v1/session").status_code == 401, WITHIN)


def test_answers_are_awaited_by_one_daemon_and_by_the_other_once_that_is_gone(own_pair: Callable[..., Pair]) -> None:
    pair = own_pair()
    with FakeTelegram() as phone:
        assert pair.b.owner.post(CHANNELS, json=telegram(phone, events=["SESSION_REVOKED"])).status_code == 201
        pair.b.owner.delete(f"/v1/sessions/{pair.b.new_session()['id']}").raise_for_status()
        phone.wait(lambda: _polls(phone) > 0)
        # The server ends the connection with A's locks: whoever takes them, the other one stops listening.
        pair.ask(
            "SELECT pg_terminate_backend(l.pid) FROM pg_locks AS l WHERE locktype = 'advisory' AND database ="
            " (SELECT oid FROM pg_database WHERE datname = current_database()) AND classid <> 0 AND objsubid = 2"
        )
        wait_for(lambda: {frozenset(_led(site)) for site in (pair.a, pair.b)} == {frozenset(), frozenset(EXCLUSIVE)})
        leading, other = (pair.a, pair.b) if _led(pair.a) else (pair.b, pair.a)
        polled = _polls(phone)
        leading.kill9()
        phone.wait(lambda: _polls(phone) > polled, 5)
        wait_for(lambda: _led(other) == EXCLUSIVE)


def _polls(phone: FakeTelegram) -> int:
    return sum(one.path.endswith("/getUpdates") for one in phone.requests)


def test_a_parent_that_ends_on_one_ends_its_children_on_the_other_at_once(pair: Pair) -> None:
    delays = []
    for _ in range(10):
        parent = pair.a.new_session()
        made = pair.a.agent(parent["token"]).post("/v1/session/children", json={}).raise_for_status().json()
        accepted = is_accepted(pair.b, made["token"])
        pair.a.owner.delete(f"/v1/sessions/{parent['id']}").raise_for_status()
        delays.append(refused_after(accepted, time.monotonic()))
    assert max(delays) < WITHIN


def test_a_parent_that_is_suspended_on_one_suspends_its_children_on_the_other(pair: Pair) -> None:
    parent = pair.a.new_session()
    made = pair.a.agent(parent["token"]).post("/v1/session/children", json={}).raise_for_status().json()
    accepted = is_accepted(pair.b, made["token"])
    _suspend_session(pair, parent)
    assert refused_after(accepted, time.monotonic()) < WITHIN


def test_300_children_over_both_stop_at_200_and_none_outlives_its_parent(pair: Pair) -> None:
    parent = pair.a.new_session()
    creation = request("POST", "/v1/session/children", body=b"{}", Authorization=f"Bearer {parent['token']}")
    answers = over_both(pair, [creation] * 300)
    assert Counter(answer.status for answer in answers) == {201: 200, 403: 100}
    pair.b.owner.delete(f"/v1/sessions/{parent['id']}").raise_for_status()
    agent = parent["agentId"]
    assert pair.ask("SELECT count(*) FROM sessions WHERE agent_id = $1 AND revoked_at IS NULL", agent) == [(0,)]
