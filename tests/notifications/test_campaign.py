"""At least once: services that fail in every way, a daemon that is killed again and again, and no message lost."""

import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from daemon.domain.notifications import EVENTS
from daemon.notify.deliver import IN_FLIGHT
from tests.support.daemon_process import PASSWORD, DaemonProcess, wait_for
from tests.support.owner import CHANNELS, WEBHOOK_SECRET, discord, ntfy, telegram, webhook
from tests.support.services.base import ANY_FAULT, Drop, FakeService, Garbage, Timeout
from tests.support.services.discord import FakeDiscord
from tests.support.services.ntfy import FakeNtfy
from tests.support.services.telegram import FakeTelegram
from tests.support.services.webhook import FakeWebhook

LIMITS = {
    "DAEMON_SERVER_GLOBAL_RPM": "0",
    "DAEMON_SERVER_SESSION_RPM": "0",
    "DAEMON_SECURITY_MAX_SESSIONS_PER_AGENT": "1000",
    "DAEMON_SECURITY_AUTO_STOP_THRESHOLD": "1",
}
OWNER = {"X-Master-Password": PASSWORD}
A_SESSION = 25
"""Events of one session: below what it may publish in a minute."""
FAULTS = (*ANY_FAULT, Timeout(0.3), Timeout(0.2, before=True))
OF_WEBHOOKS = [fault for fault in FAULTS if fault != Garbage()]
"""A receiver that answers 2xx has taken the message, whatever the body says (Standard Webhooks)."""
TITLES = {
    "Report of an agent": "AGENT_REPORT",
    "Session created": "SESSION_CREATED",
    "Constraint violated": "CONSTRAINT_VIOLATED",
    "Agent stopped automatically": "AUTO_STOP_TRIGGERED",
}

Key = tuple[str, str]
"""An event's type and what is unique about it: its reference, its agent's name or its session."""


class Services:
    """The four services, and how often each event arrived at which."""

    def __init__(self) -> None:
        self.telegram, self.discord = FakeTelegram(), FakeDiscord(bucket=False)
        self.ntfy, self.webhook = FakeNtfy(), FakeWebhook(WEBHOOK_SECRET)
        self.all: list[FakeService] = [self.telegram, self.discord, self.ntfy, self.webhook]

    def sent(self) -> int:
        """Count the messages that the fast services have."""
        return len(self.telegram.messages) + len(self.webhook.messages)

    def arrived(self) -> list[Counter[Key]]:
        """Count what arrived, a counter for each service in the order of `all`."""
        texts = [
            [message.sent.plain.partition(" ")[2] for message in self.telegram.messages.values()],
            [f"{one['embeds'][0]['title']}\n{one['embeds'][0]['description']}" for one in self.discord.messages],
            [f"{one['title']}\n{one['message']}" for one in self.ntfy.messages["alerts-x1"]],
        ]
        found = [Counter(_key_of_text(text.replace("\\", "")) for text in said) for said in texts]
        posted = [one.body for one in (*self.webhook.messages, *self.webhook.duplicates)]
        return [*found, Counter(_key(one["type"], one["data"]) for one in posted if one["type"] != "ping")]

    def processed_and_failed(self) -> int:
        """How many messages were processed, although the daemon was told otherwise or nothing."""
        faults = [fault for fake in self.all for fault in fake.drawn]
        return sum(
            fault == Drop(before=False) or (isinstance(fault, Timeout) and fault.seconds > 10) for fault in faults
        )


def _key(kind: str, data: dict[str, Any]) -> Key:
    name = {"AGENT_REPORT": "referenceId", "AUTO_STOP_TRIGGERED": "agentName"}.get(kind, "sessionId")
    return kind, str(data[name])


def _key_of_text(text: str) -> Key:
    title, *lines = text.strip().split("\n")
    said = dict(line.split(": ", 1) for line in lines)
    data = {"referenceId": said.get("Reference"), "agentName": said.get("Agent"), "sessionId": said.get("Session")}
    return _key(TITLES[title], data)


class Busy:
    """Agents that publish, and some that are stopped for what they try, until enough was acknowledged.

    Args:
        daemon: may be down at any time.
        events: to be published.
        criticals: agents to be stopped.
    """

    def __init__(self, daemon: DaemonProcess, events: int, criticals: int) -> None:
        self.daemon = daemon
        self.acknowledged: list[int] = []
        self.stopped: list[str] = []
        self._events = events
        self._every = events // criticals
        self._numbers: Iterator[int] = iter(range(10**9))
        self._threads = [threading.Thread(target=self._work) for _ in range(4)]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait for the end."""
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while len(self.acknowledged) < self._events:
            # It may be down, and is soon up at another address.
            with (
                suppress(httpx.HTTPError),
                httpx.Client(base_url=self.daemon.url, headers=OWNER, trust_env=False, timeout=10) as owner,
            ):
                self._publish(owner)
            time.sleep(0.01)

    def _publish(self, owner: httpx.Client) -> None:
        agent = owner.post("/v1/agents", json={"name": "busy"}).raise_for_status().json()["id"]
        made = owner.post("/v1/sessions", json={"agentId": agent}).raise_for_status().json()
        headers = {"Authorization": f"Bearer {made['token']}"}
        for _ in range(A_SESSION):
            if len(self.acknowledged) >= self._events:
                return
            number = next(self._numbers)
            if number % self._every == 0:
                self._stop_one(owner, f"stopped{number}")
            kind = {"type": "AGENT_REPORT", "referenceId": f"ref{number}"}
            answer = owner.post("/v1/session/events", json=kind, headers=headers).raise_for_status()
            self.acknowledged.append(answer.json()["seq"])

    def _stop_one(self, owner: httpx.Client, name: str) -> None:
        """Let an agent do what it must not: a warning, and a critical event."""
        agent = owner.post("/v1/agents", json={"name": name}).raise_for_status().json()["id"]
        body = {"agentId": agent, "constraints": {"allowedOperations": ["session.read"]}}
        made = owner.post("/v1/sessions", json=body).raise_for_status().json()
        headers = {"Authorization": f"Bearer {made['token']}"}
        if owner.put(f"/v1/sessions/{made['id']}/renew", headers=headers).status_code == 403:
            self.stopped.append(name)


def _query(daemon: DaemonProcess, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"{(daemon.home / 'daemon.db').as_uri()}?mode=ro", uri=True)) as database:
        return database.execute(sql).fetchall()


def _told(daemon: DaemonProcess) -> dict[int, tuple[Key, bool]]:
    """What the owner is to be told by the audit log: each event's key and whether it is critical, by its number."""
    names = dict(_query(daemon, "SELECT id, name FROM agents"))
    kinds = ", ".join(f"'{one}'" for one in EVENTS)
    rows = _query(
        daemon,
        "SELECT id, event_type, agent_id, session_id, details ->> 'referenceId' FROM audit_log"
        f" WHERE event_type IN ({kinds})",
    )
    return {
        seq: (
            _key(kind, {"referenceId": ref, "agentName": names.get(agent), "sessionId": session}),
            kind.startswith("AUTO"),
        )
        for seq, kind, agent, session, ref in rows
    }


@pytest.mark.timeout(900)
def test_no_message_is_lost_whatever_services_do_and_however_often_the_daemon_is_killed(
    tmp_path: Path, campaign: bool
) -> None:
    events, criticals, kills, rate = (2000, 40, 10, 0.15) if campaign else (60, 3, 2, 0.15)
    seed = int(time.time())
    rng = random.Random(seed)
    services = Services()
    began = time.monotonic()
    with services.telegram, services.discord, services.ntfy, services.webhook:
        daemon = DaemonProcess(tmp_path / "home", **LIMITS)
        _add_channels(daemon, services)
        for fake in services.all:
            fake.random_faults(rng, rate, OF_WEBHOOKS if fake is services.webhook else FAULTS)
        if campaign:
            services.webhook.script(*[Timeout(10.5)] * 3)
        busy = Busy(daemon, events, criticals)
        for number in range(1, kills + 1):
            goal = number * events // (kills + 1) + rng.randrange(5)
            wait_for(lambda goal=goal: services.sent() >= goal, 300)
            daemon.kill9()
            daemon.lines.clear()
            daemon.start()
        busy.join()
        wait_for(lambda: services.sent() >= events * 0.95, 300)
        for fake in services.all:
            fake.random_faults(rng, 0.0)
        wait_for(lambda: not _query(daemon, "SELECT 1 FROM notification_outbox WHERE done_at IS NULL LIMIT 1"), 300)
        took = time.monotonic() - began
        verified = httpx.get(f"{daemon.url}/v1/admin/audit/verify", headers=OWNER, trust_env=False).json()
        daemon.stop()
    assert verified["valid"], f"seed {seed}: {verified}"
    told, arrived = _told(daemon), services.arrived()
    assert set(busy.acknowledged) <= told.keys(), f"seed {seed}: an acknowledged event is lost"
    lost = [
        key for key, critical in told.values() if not (all if critical else any)(counter[key] for counter in arrived)
    ]
    assert not lost, f"seed {seed}: {lost}"
    assert {key for counter in arrived for key in counter} == {key for key, _ in told.values()}
    expected = sum(len(services.all) if critical else 1 for _, critical in told.values())
    duplicates = sum(counter.total() for counter in arrived) - expected
    answered_wrongly, in_flight = services.processed_and_failed(), kills * 2 * IN_FLIGHT
    assert duplicates <= answered_wrongly + in_flight, f"seed {seed}: {duplicates} duplicates"
    statuses = dict(_query(daemon, "SELECT status, count(*) FROM notification_log GROUP BY status"))
    assert "ALL_FAILED" not in statuses
    drawn = Counter(type(fault).__name__ for fake in services.all for fault in fake.drawn)
    print(
        f"notification campaign: {len(told)} events ({len(busy.stopped)} critical) through 4 services, {kills} kills,"
        f" {drawn.total()} faults {dict(drawn)}, log {statuses}: none lost, {duplicates} duplicates"
        f" ({answered_wrongly} processed but not answered), {took:.0f} s"
    )


def _add_channels(daemon: DaemonProcess, services: Services) -> None:
    """Let most go through the fast services; the slow ones by their buckets get what is critical alone."""
    bodies = [
        webhook(services.webhook, priority=9),
        telegram(services.telegram, priority=5),
        discord(services.discord, minLevel="CRITICAL"),
        ntfy(services.ntfy, minLevel="CRITICAL"),
    ]
    for body in bodies:
        httpx.post(f"{daemon.url}{CHANNELS}", json=body, headers=OWNER, trust_env=False).raise_for_status()
