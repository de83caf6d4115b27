"""The end of a process: how it is asked for, how it is forced, and that CLOSED means that nothing is left."""

from collections.abc import Iterator

import pytest

from tests.support.daemon_process import wait_for
from tests.support.live import LiveDaemon
from tests.support.oauth import Service
from tests.support.supervised import BEGIN, CAT, Desk, Supervised, code, kill9

SWITCH = "/v1/admin/kill-switch"

STUBBORN = """
trap '' TERM HUP INT
(trap '' TERM HUP INT; while :; do sleep 0.05; done) &
setsid sh -c 'trap "" TERM HUP INT; echo away; while :; do sleep 0.05; done' &
echo up
while :; do sleep 0.05; done
"""
"""Nothing of it ends because it is asked to."""


def stubborn(desk: Desk) -> Supervised:
    return desk.sh(STUBBORN).says("away").says("up")


def stopped(desk: Desk) -> Supervised:
    session = stubborn(desk)
    session.do("suspend")
    wait_for(session.stopped)
    return session


@pytest.fixture
def switch(live: LiveDaemon) -> Iterator[str]:
    """The kill switch, which is off again after the test."""
    yield SWITCH
    live.owner.post("/v1/admin/recover").raise_for_status()


# --- without grace


@pytest.mark.parametrize("make", [stubborn, stopped])
def test_a_kill_answers_when_nothing_is_left(desk: Desk, make: object) -> None:
    session: Supervised = make(desk)  # type: ignore[operator]
    assert len(session.tree) >= 3
    answer = session.do("kill", reason="enough")
    assert session.pids == []
    assert answer == {"id": session.id, "state": "CLOSED", "exitCode": None, "signal": 9, "processesLeft": 0}
    assert session.story()[-2:] == ["killed enough", "closed killed signal 9"]
    assert session.process["reason"] == "killed"


def test_a_failed_session_is_killed_at_once(desk: Desk) -> None:
    session = desk.make("sh", "-c", "exit 3").wait("ERROR")
    assert session.do("kill")["state"] == "CLOSED"
    assert session.story() == [*BEGIN, "error crashed exit 3", "killed", "closed killed exit 3"]


def test_the_kill_switch_answers_when_nothing_is_left_of_any_process(desk: Desk, switch: str) -> None:
    sessions = [stubborn(desk), stopped(desk), desk.run(*CAT), desk.claude(), desk.make("sh", "-c", "exit 3")]
    sessions[-1].wait("ERROR")
    alive = sum(len(one.tree) for one in sessions[:-1])
    answer = desk.live.owner.post(switch, json={"reason": "it went mad"}).json()
    assert [one.pids for one in sessions] == [[]] * len(sessions)
    assert (answer["state"], answer["sessionsRevoked"]) == ("ACTIVATED", len(sessions))
    # What sleeps for a moment is another process every time, and some of it has ended before it was counted.
    assert len(sessions) <= answer["processesKilled"] <= alive + len(sessions)
    assert answer["processesLeft"] == 0
    assert desk.live.owner.get(switch).json() == answer
    for one in sessions:
        assert one.state == "CLOSED"
        assert one.story()[-2] == "revoked kill_switch"
        assert one.process["reason"] == "kill_switch"


# --- in good order


def test_a_session_that_a_verifier_revokes_is_ended_with_its_process_as_by_its_owner(desk: Desk) -> None:
    session = desk.run(*CAT)
    service = Service(desk.live, mayRevoke=True)
    told = service.told(session.token)
    assert (told["sub"], told["session_state"]) == (session.id, "READY")
    service.revoke(session.token).raise_for_status()
    session.wait_closed()
    assert session.pids == []
    assert session.story() == [*BEGIN, "revoked revoked_by_verifier", "closed revoked exit 0"]
    assert not service.is_active(session.token)


RECORDS = """
at() { echo "$1 $(date +%s.%N)"; }
trap 'at term; CODE' TERM
at up
while read -r line; do :; done
at eof
while :; do sleep 0.02; done
"""


def recorded(session: Supervised) -> dict[str, float]:
    return {name: float(at) for name, at in (line.split() for line in session.output().splitlines())}


def test_a_revoked_session_s_process_sees_the_end_of_its_input_then_sigterm_then_is_killed(desk: Desk) -> None:
    session = desk.sh(RECORDS.replace("CODE", ":")).says("up")
    session.revoke()
    session.wait_closed()
    seen = recorded(session)
    assert list(seen) == ["up", "eof", "term"]
    assert seen["term"] - seen["eof"] > 0.3  # of the 0.4 that it is given
    assert session.story() == [*BEGIN, "revoked manual_revoke", "closed revoked signal 9"]


def test_a_process_that_ends_when_it_is_asked_to_is_not_killed(desk: Desk) -> None:
    session = desk.sh(RECORDS.replace("CODE", "exit 5")).says("up")
    session.revoke()
    session.wait_closed()
    assert list(recorded(session)) == ["up", "eof", "term"]
    assert session.story() == [*BEGIN, "revoked manual_revoke", "closed revoked exit 5"]
    shown = session.process
    assert (shown["pid"], shown["exitCode"], shown["signal"], shown["reason"]) == (None, 5, None, "revoked")


def test_a_process_that_ends_with_its_input_is_not_asked_to(desk: Desk) -> None:
    session = desk.sh(RECORDS.replace("at eof", "at eof; exit 0").replace("CODE", ":")).says("up")
    session.revoke()
    session.wait_closed()
    assert list(recorded(session)) == ["up", "eof"]
    assert session.story() == [*BEGIN, "revoked manual_revoke", "closed revoked exit 0"]


def test_a_stopped_process_is_let_go_on_in_order_to_end(desk: Desk) -> None:
    session = desk.sh(RECORDS.replace("CODE", "exit 5")).says("up")
    session.do("suspend")
    wait_for(session.stopped)
    session.revoke()
    session.wait_closed()
    assert list(recorded(session)) == ["up", "eof", "term"]
    assert session.story()[-1] == "closed revoked exit 5"


def test_the_whole_tree_is_asked_to_end(desk: Desk) -> None:
    child = "trap 'echo child; exit' TERM; echo ready; while :; do sleep 0.02; done"
    session = desk.sh(f"setsid sh -c \"{child}\" & trap 'echo parent' TERM; wait $!; wait $!; exit 5")
    session.says("ready").revoke()
    session.wait_closed()
    assert sorted(session.output().split()) == ["child", "parent", "ready"]
    assert session.story()[-1] == "closed revoked exit 5"


# --- nothing is left

LEAVES = "setsid sh -c 'trap \"\" TERM HUP; echo away; while :; do sleep 0.05; done' & read -r line; "


def test_what_a_process_leaves_behind_is_ended_before_its_session_is_closed(desk: Desk) -> None:
    session = desk.sh(LEAVES + "exit 0").says("away")
    session.revoke()
    session.wait_closed()
    assert session.story() == [*BEGIN, "revoked manual_revoke", "closed revoked exit 0"]


def test_what_a_process_leaves_behind_that_has_done_its_work_is_ended(desk: Desk) -> None:
    session = desk.sh(LEAVES + "exit 0").says("away")
    session.send("go")
    session.wait_closed()
    assert session.story()[-2:] == ["revoked process_exited", "closed exited exit 0"]


def test_what_a_process_leaves_behind_that_has_failed_is_ended(desk: Desk) -> None:
    session = desk.sh(LEAVES + "exit 3").says("away")
    session.send("go")
    session.wait("ERROR")
    assert session.pids == []
    assert session.story()[-1] == "error crashed exit 3"


def test_the_end_of_a_process_whose_wrapper_was_killed_is_lost_but_nothing_is_left_of_it(desk: Desk) -> None:
    session = stubborn(desk)
    kill9(int((session.directory / "wrapper").read_text().split()[1]))
    session.wait("ERROR")
    assert session.story() == [*BEGIN, "error lost"]
    try:
        assert session.pids == []
    finally:
        for pid in session.pids:
            kill9(pid)


def test_a_closed_session_s_output_can_still_be_read(desk: Desk) -> None:
    session = desk.sh("echo out; echo err >&2; read -r line").says("out")
    session.revoke()
    session.wait_closed()
    assert (session.output(), session.output("stderr")) == ("out\n", "err\n")


def test_what_a_process_delegated_ends_with_its_session(desk: Desk) -> None:
    session = desk.run(*CAT)
    made = desk.live.agent(session.token).post("/v1/session/children", json={}).raise_for_status().json()
    child = desk.live.agent(made["token"])
    assert child.get("/v1/session").status_code == 200
    session.do("kill")
    assert code(child.get("/v1/session")) == (401, "SESSION_REVOKED")
