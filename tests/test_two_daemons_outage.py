"""Two daemons whose PostgreSQL server is stopped, killed or frozen under load."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from tests.support.daemon_process import wait_for
from tests.support.pair import Pair, Site
from tests.support.postgres import Cluster

ANSWERED_WITHIN = 1.3
"""Seconds: one for the daemon, and what a machine that is busy with tests takes."""
RECOVERED_WITHIN = 5.0


class Try(NamedTuple):
    """One creation of an agent: its name, when it was asked for (monotonic), how long the answer took, and that."""

    name: str
    at: float
    seconds: float
    answer: httpx.Response


class Load:
    """Creates agents, asks for a session and binds conversations, on one daemon, until it is stopped."""

    def __init__(self, site: Site, token: str) -> None:
        self.tries: list[Try] = []
        self.checks: list[Try] = []
        self.binds: list[Try] = []
        self._first = time.monotonic_ns()
        self._stopped = threading.Event()
        owner, agent = site.client(**dict(site.owner.headers)), site.agent(token)
        self._threads = [
            threading.Thread(target=self._run, args=(lambda: self._create(owner, site.home.name), self.tries)),
            threading.Thread(target=self._run, args=(lambda: ("", agent.get("/v1/session")), self.checks)),
            threading.Thread(target=self._run, args=(lambda: self._bind(agent, site.home.name), self.binds)),
        ]
        for thread in self._threads:
            thread.start()

    def _create(self, owner: httpx.Client, site: str) -> tuple[str, httpx.Response]:
        name = f"{site} {len(self.tries)}"
        return name, owner.post("/v1/agents", json={"name": name})

    def _bind(self, agent: httpx.Client, site: str) -> tuple[str, httpx.Response]:
        """Bind a new conversation, then use it, then the next new one."""
        name = f"{site}-{self._first + len(self.binds) // 2}"
        return name, agent.put(f"/v1/conversations/{name}", json={"provider": site, "model": f"{len(self.binds)}"})

    def _run(self, ask: Callable[[], tuple[str, httpx.Response]], kept: list[Try]) -> None:
        while not self._stopped.is_set():
            began = time.monotonic()
            name, answer = ask()
            kept.append(Try(name, began, time.monotonic() - began, answer))

    def stop(self) -> list[Try]:
        """Stop and return every creation that was tried."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(10)
        return self.tries


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, own_cluster: Cluster) -> Iterator[Pair]:
    """Two daemons on a server that may be stopped."""
    made = Pair(tmp_path_factory.mktemp("outage"), own_cluster.url)
    yield made
    made.stop()


def _away_and_back(cluster: Cluster, how: str) -> tuple[Callable[[], None], Callable[[], None]]:
    return {
        "stopped": (cluster.stop, cluster.start),
        "killed": (cluster.kill, cluster.start),
        "frozen": (cluster.freeze, cluster.thaw),
    }[how]


@pytest.mark.parametrize("how", ["stopped", "killed", "frozen"])
def test_while_the_server_is_away_answers_are_503_and_nothing_is_lost_or_half_done(
    pair: Pair, own_cluster: Cluster, how: str
) -> None:
    token = pair.a.new_session()["token"]
    away, back = _away_and_back(own_cluster, how)
    loads = [Load(site, token) for site in (pair.a, pair.b)]
    wait_for(lambda: all(len(load.tries) > 20 for load in loads))
    left = time.monotonic()
    away()
    wait_for(lambda: all(sum(one.at > left + 0.5 for one in load.tries) >= 2 for load in loads))
    back()
    came = time.monotonic()
    for load in loads:
        wait_for(lambda one=load: one.tries[-1].answer.status_code == 201 and one.tries[-1].at > came)
        wait_for(lambda one=load: one.checks[-1].answer.status_code == 200 and one.checks[-1].at > came)
        assert time.monotonic() - came < RECOVERED_WITHIN
    tries = [one for load in loads for one in load.stop()]
    checks = [one for load in loads for one in load.checks]
    binds = [one for load in loads for one in load.binds]
    refused = [one for one in (*tries, *checks, *binds) if one.answer.status_code not in {200, 201}]
    assert refused
    for one in refused:
        assert one.answer.status_code == 503, one.answer.text
        assert one.answer.json()["code"] == "STORAGE_UNAVAILABLE"
        assert int(one.answer.headers["Retry-After"]) > 0
    assert max(one.seconds for one in refused) < ANSWERED_WITHIN
    _nothing_lost(pair, [one.name for one in tries if one.answer.status_code == 201])
    _no_binding_lost(pair, [one for one in binds if one.answer.status_code in {200, 201}])
    wait_for(lambda: _current(pair), RECOVERED_WITHIN)
    assert pair.a.process.poll() is None
    assert pair.b.process.poll() is None


def _nothing_lost(pair: Pair, acknowledged: list[str]) -> None:
    rows = {name for (name,) in pair.ask("SELECT name FROM agents")}
    told = [
        name
        for (name,) in pair.ask("SELECT details::json ->> 'name' FROM audit_log WHERE event_type = 'AGENT_CREATED'")
    ]
    assert set(acknowledged) <= rows
    assert len(told) == pair.ask("SELECT count(*) FROM agents")[0][0]
    assert set(told) == rows
    for site in (pair.a, pair.b):
        assert site.owner.get("/v1/admin/audit/verify").json()["valid"] is True


def _no_binding_lost(pair: Pair, answered: list[Try]) -> None:
    """Prove that everybody was told the binding that is stored, and that it was made once."""
    rows = dict(pair.ask("SELECT conversation_id, model FROM conversations"))
    events = pair.ask(
        "SELECT details::json ->> 'conversationId' FROM audit_log WHERE event_type = 'CONVERSATION_BOUND'"
    )
    assert {(one.name, one.answer.json()["model"]) for one in answered} <= rows.items()
    assert sorted(events) == sorted((name,) for name in rows)


def _current(pair: Pair) -> Any:
    """Return whether each daemon hears the other again, and its log holds every event once."""
    session = pair.a.new_session()
    agent = pair.b.agent(session["token"])
    assert agent.get("/v1/session").status_code == 200
    pair.a.owner.delete(f"/v1/sessions/{session['id']}").raise_for_status()
    wait_for(lambda: agent.get("/v1/session").status_code == 401, 1)
    last = pair.ask("SELECT max(id) FROM audit_log")[0][0]
    for site in (pair.a, pair.b):
        seqs = [line["seq"] for line in site.logged() if "seq" in line and "timestamp" in line]
        if seqs != list(range(seqs[0], last + 1)):
            assert seqs == sorted(set(seqs)), "an event is twice in the log, or out of order"
            return False
    return True


def test_a_daemon_stops_although_its_server_hangs(pair: Pair, own_cluster: Cluster) -> None:
    own_cluster.freeze()
    try:
        began = time.monotonic()
        assert pair.b.stop() == 0
        assert time.monotonic() - began < 10
    finally:
        own_cluster.thaw()
