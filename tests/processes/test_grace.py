"""The owner does not wait for a process that is being given time to end."""

import time as wall

from daemon.running import Daemon
from daemon.supervision.house import Grace
from tests.support.held_start import HeldStart
from tests.support.supervised import BEGIN, Desk, Supervised

GRACE = Grace(end_of_input=30, terminate=30)


def closing(desk: Desk) -> Supervised:
    """Return a session whose process has a minute to end, and does not care."""
    session = desk.sh("trap '' TERM; echo up; while :; do sleep 0.05; done").says("up")
    session.revoke()
    assert session.state == "CLOSING"
    return session


def test_a_kill_cuts_a_good_order_short(desk: Desk) -> None:
    session = closing(desk)
    began = wall.monotonic()
    assert session.do("kill")["state"] == "CLOSED"
    assert wall.monotonic() - began < 5
    assert session.pids == []
    assert session.story() == [*BEGIN, "revoked manual_revoke", "killed", "closed killed signal 9"]


def test_a_session_of_whose_process_something_is_left_is_never_swept(desk: Desk) -> None:
    session = closing(desk)
    desk.live.time.advance(10_000_000)
    desk.live.call(lambda daemon: daemon.parts.services.admin.sweep())
    desk.live.call(lambda daemon: daemon.parts.supervisor.tidy())
    assert session.state == "CLOSING"
    assert session.output() == "up\n"
    session.do("kill")


def test_a_kill_cuts_a_start_short(desk: Desk) -> None:
    session = desk.make("sh", "-c", "exit 3").wait("ERROR")
    with HeldStart(session) as start:
        session.do("resume")
        start.wait()
        answer = session.do("kill")
        left = session.tree
        if left:
            start.let_go()
        session.wait("CLOSED")
    assert left == []
    assert answer["state"] == "CLOSED"


def test_the_kill_switch_cuts_a_good_order_short(desk: Desk) -> None:
    session = closing(desk)
    answer = desk.live.owner.post("/v1/admin/kill-switch", json={"reason": "it went mad"}).json()
    try:
        assert session.pids == []
        assert session.state == "CLOSED"
        assert answer["processesLeft"] == 0
        assert answer["processesKilled"] >= 1
    finally:
        desk.live.owner.post("/v1/admin/recover").raise_for_status()


def test_a_stop_that_ends_processes_cuts_a_good_order_short(desk: Desk) -> None:
    session = closing(desk)

    async def stop(daemon: Daemon) -> None:
        daemon.stop_soon("test", kill_processes=True)

    desk.live.call(stop)
    desk.live.stop()
    try:
        assert session.pids == []
    finally:
        desk.live.start()
    session.wait("CLOSED")
