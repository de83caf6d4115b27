"""The daily summary: once a day, at the owner's time, with what happened since the one before."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from tests.support.engines import both_engines, one_engine
from tests.support.live import FakeTime, LiveDaemon
from tests.support.owner import add, telegram
from tests.support.services.telegram import FakeTelegram

pytestmark = both_engines


def at(hour: int, minute: int = 0, day: int = 20) -> FakeTime:
    return FakeTime(int(datetime(2030, 5, day, hour, minute).astimezone().timestamp()))


def tell(live: LiveDaemon) -> bool:
    return bool(live.call(lambda daemon: daemon.parts.services.summary.tell()))


def test_it_is_told_once_a_day_at_its_time_and_counts_since_the_one_before(launch: Callable[..., LiveDaemon]) -> None:
    live = launch(time=at(8, 59), DAEMON_NOTIFICATIONS_DAILY_SUMMARY="09:00")
    live.new_session()
    assert not tell(live)
    live.time.advance(60)
    assert tell(live)
    assert not tell(live)
    (first,) = live.events(type="DAILY_SUMMARY")
    assert first["details"] == {
        "date": "2030-05-20",
        "activeSessions": 1,
        "created": 1,
        "renewed": 0,
        "rejected": 0,
        "revoked": 0,
        "expired": 0,
        "warnings": 0,
        "criticals": 0,
    }
    session = live.new_session()
    live.owner.delete(f"/v1/sessions/{session['id']}")
    live.client(**{"X-Master-Password": "not the password"}).get("/v1/agents")
    live.time.advance(86_400)
    assert tell(live)
    second = live.events(type="DAILY_SUMMARY")[1]["details"]
    assert (second["date"], second["created"], second["revoked"], second["warnings"]) == ("2030-05-21", 1, 1, 1)


def test_a_daemon_that_was_down_at_the_time_tells_it_when_it_is_up_again(launch: Callable[..., LiveDaemon]) -> None:
    time = at(8)
    live = launch(time=time, DAEMON_NOTIFICATIONS_DAILY_SUMMARY="09:00")
    live.stop()
    time.advance(7200)
    live.start()
    assert tell(live) or live.events(type="DAILY_SUMMARY")
    live.restart()
    assert not tell(live)
    assert len(live.events(type="DAILY_SUMMARY")) == 1


@one_engine
def test_without_a_time_there_is_none(live: LiveDaemon) -> None:
    live.time.advance(86_400)
    assert not tell(live)


def test_it_is_told_also_while_the_kill_switch_is_on(launch: Callable[..., LiveDaemon], tmp_path: Path) -> None:
    live = launch(tmp_path / "home", at(9), DAEMON_NOTIFICATIONS_DAILY_SUMMARY="10:00")
    with FakeTelegram() as phone:
        add(live, telegram(phone, events=["DAILY_SUMMARY"]))
        live.owner.post("/v1/admin/kill-switch", json={"reason": "x"})
        live.time.advance(3600)
        assert tell(live)
        phone.wait(lambda: phone.messages)
        (message,) = phone.messages.values()
        assert message.sent.plain.splitlines()[:2] == ["📊 Daily summary", "Date: 2030-05-20"]
