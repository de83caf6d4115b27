"""`daemon doctor` on notification channels."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from daemon.home import Home
from daemon.maintenance.channel_checks import check_channels
from daemon.maintenance.findings import Finding, Patient
from tests.support.live import CHEAP, LiveDaemon
from tests.support.owner import CHANNELS, WEBHOOK_SECRET, add, telegram, webhook
from tests.support.services.telegram import FakeTelegram
from tests.support.services.webhook import FakeWebhook


def found(live: LiveDaemon) -> dict[str, Finding]:
    patient = Patient.of(Home.resolve(live.root, {}), {**os.environ, **CHEAP}, int(live.time.wall))
    return {finding.name: finding for finding in asyncio.run(check_channels(patient))}


def test_channels_that_answer_are_well_and_those_that_do_not_are_named_with_a_cure(live: LiveDaemon) -> None:
    assert found(live)["channels"].status == "ok"
    with FakeTelegram() as phone, FakeWebhook(WEBHOOK_SECRET, clock=lambda: live.time.wall) as hook:
        add(live, telegram(phone))
        gone = add(live, webhook(hook))
        live.stop()
        assert {one.status for one in found(live).values()} == {"ok"}
        before = len(phone.messages)
    fallen = found(live)
    assert before == len(phone.messages) == 0
    assert {name: one.status for name, one in fallen.items()} == {"channel phone": "failed", "channel hook": "failed"}
    assert "refused" in fallen["channel phone"].detail
    assert "daemon channel" in (fallen["channel phone"].cure or "")
    assert "TEST-token" not in str(fallen)
    live.start()
    live.owner.delete(f"{CHANNELS}/{gone['id']}")
    live.stop()
    assert set(found(live)) == {"channel phone"}


def test_a_missing_seal_key_is_named(launch: Callable[..., LiveDaemon], tmp_path: Path) -> None:
    live = launch()
    with FakeTelegram() as phone:
        add(live, telegram(phone))
        live.stop()
        live.home.seal_key_file.rename(tmp_path / "elsewhere")
        (finding,) = found(live).values()
        assert finding.status == "failed"
        assert "seal.key" in (finding.cure or "")
        (tmp_path / "elsewhere").rename(live.home.seal_key_file)
        (finding,) = found(live).values()
        assert finding.status == "ok"
