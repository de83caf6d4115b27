"""`kill -9` at random moments: what was acknowledged is there after the restart."""

import asyncio
import json
import random
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.support.daemon_process import PASSWORD, UNTRACED, DaemonProcess

LIMITS = {
    **UNTRACED,
    "DAEMON_SERVER_GLOBAL_RPM": "0",
    "DAEMON_SERVER_SESSION_RPM": "0",
    "DAEMON_SECURITY_MAX_SESSIONS_PER_AGENT": "1000",
}
OWNER = {"X-Master-Password": PASSWORD}


class Acknowledged(NamedTuple):
    """What the daemon answered with success before it was killed."""

    created: dict[str, str]
    renewed: dict[str, int]
    revoked: set[str]
    suspended: set[str]


def _make_old(home: Path) -> None:
    """Let every session be over half of its term, so that it can be renewed: the daemon is down, the file is ours."""
    with closing(sqlite3.connect(home / "daemon.db")) as database:
        database.execute("UPDATE sessions SET created_at = created_at - 50000 WHERE last_renewed_at IS NULL")
        database.execute("UPDATE sessions SET last_renewed_at = last_renewed_at - 50000 WHERE last_renewed_at > 0")
        database.commit()


async def _work(url: str, agent: str, ready: list[tuple[str, str]], seen: Acknowledged, rng: random.Random) -> None:
    """Create, use, renew, suspend and revoke until the daemon dies."""
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=5) as client:
        try:
            while True:
                made = (await client.post("/v1/sessions", json={"agentId": agent}, headers=OWNER)).raise_for_status()
                session = made.json()
                seen.created[session["id"]] = session["token"]
                choice = rng.random()
                if choice < 0.3:
                    await client.get("/v1/session", headers={"Authorization": f"Bearer {session['token']}"})
                elif choice < 0.6:
                    (await client.delete(f"/v1/sessions/{session['id']}", headers=OWNER)).raise_for_status()
                    seen.revoked.add(session["id"])
                elif choice < 0.8:
                    path = f"/v1/sessions/{session['id']}/suspend"
                    (await client.post(path, headers=OWNER)).raise_for_status()
                    seen.suspended.add(session["id"])
                elif ready:
                    one, token = ready.pop()
                    headers = {"Authorization": f"Bearer {token}"}
                    answer = await client.put(f"/v1/sessions/{one}/renew", headers=headers)
                    if answer.status_code == 200:
                        seen.renewed[one] = answer.json()["renewalCount"]
                        seen.created[one] = answer.json()["token"]
        except (httpx.TransportError, json.JSONDecodeError):
            return


async def _round(daemon: DaemonProcess, ready: list[tuple[str, str]], seen: Acknowledged, rng: random.Random) -> None:
    async with httpx.AsyncClient(base_url=daemon.url, trust_env=False) as client:
        agent = (await client.post("/v1/agents", json={"name": "busy"}, headers=OWNER)).json()["id"]
    tasks = [asyncio.create_task(_work(daemon.url, agent, ready, seen, rng)) for _ in range(8)]
    await asyncio.sleep(rng.uniform(0.1, 0.6))
    daemon.process.kill()
    await asyncio.gather(*tasks)


def _check(home: Path, seen: Acknowledged) -> None:
    with closing(sqlite3.connect(f"{(home / 'daemon.db').as_uri()}?mode=ro", uri=True)) as database:
        columns = "id, renewal_count, revoked_at, state"
        rows: dict[str, Any] = {row[0]: row for row in database.execute(f"SELECT {columns} FROM sessions")}
    assert seen.created.keys() <= rows.keys(), "an acknowledged session is lost"
    assert all(rows[one][1] >= count for one, count in seen.renewed.items()), "an acknowledged renewal is lost"
    assert all(rows[one][2] is not None for one in seen.revoked), "an acknowledged revocation is lost"
    assert all(rows[one][3] == "SUSPENDED" for one in seen.suspended), "an acknowledged suspension is lost"


@pytest.mark.timeout(900)
def test_what_was_acknowledged_survives_kill_9(tmp_path: Path, campaign: bool) -> None:
    rounds, seed = (50 if campaign else 4), int(time.time())
    rng = random.Random(seed)
    seen = Acknowledged({}, {}, set(), set())
    daemon = DaemonProcess(tmp_path / "home", **LIMITS)
    slowest = 0.0
    for number in range(rounds):
        untouched = [(one, token) for one, token in seen.created.items() if one not in seen.revoked | seen.suspended]
        asyncio.run(_round(daemon, untouched, seen, rng))
        daemon.kill9()
        _check(daemon.home, seen)
        _make_old(daemon.home)
        daemon.lines.clear()
        daemon.start()
        slowest = max(slowest, daemon.seconds_to_ready)
        assert daemon.seconds_to_ready < 2, f"round {number} of seed {seed}"
        verified = httpx.get(f"{daemon.url}/v1/admin/audit/verify", headers=OWNER, trust_env=False).json()
        assert verified["valid"], f"round {number} of seed {seed}: {verified}"
    assert seen.created
    assert seen.revoked
    daemon.stop()
    print(
        f"crash campaign: {rounds} rounds, {len(seen.created)} sessions, {len(seen.renewed)} renewals, "
        f"{len(seen.revoked)} revocations, {len(seen.suspended)} suspensions acknowledged, none lost; "
        f"ready after {slowest:.2f} s at most"
    )
