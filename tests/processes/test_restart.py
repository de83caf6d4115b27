"""A process that fails is started again, later each time, and at last not any more; what its owner says counts."""

from typing import Any

from tests.support.daemon_process import wait_for
from tests.support.services.webhook import FakeWebhook
from tests.support.supervised import BEGIN, CAT, Desk, Supervised, heard, pass_time, ticked

AGAIN: dict[str, Any] = {"restart": "on-failure", "idleTimeout": 0}


def failures(session: Supervised) -> list[dict[str, Any]]:
    """Return what is told of each failure, and after how many seconds it is to be started again."""
    found = [one for one in session.events() if one["type"] == "SESSION_ERROR"]
    return [
        {**one["details"], "after": (one["details"]["restartAt"] or one["timestamp"]) - one["timestamp"]}
        for one in found
    ]


def failed(session: Supervised, times: int) -> Supervised:
    """Return once it has failed so many times, and nothing of it runs."""
    wait_for(lambda: len(failures(session)) >= times)
    assert len(failures(session)) == times
    return session.wait("ERROR")


def fail_for_good(desk: Desk, session: Supervised, so_far: int = 0) -> None:
    for number, backoff in enumerate((1, 2, 4, 8, 16), so_far + 1):
        failed(session, number)
        if backoff > 1:
            pass_time(desk.live, backoff - 1)
            assert len(failures(session)) == number
        pass_time(desk.live, 1)
    failed(session, so_far + 6)


def test_a_crash_loop_is_slowed_down_and_ends_for_good(desk: Desk, hook: FakeWebhook) -> None:
    session = desk.make("sh", "-c", "exit 3", process=AGAIN)
    fail_for_good(desk, session)
    told = failures(session)
    assert [one["after"] for one in told] == [1, 2, 4, 8, 16, 0]
    assert [one["restarts"] for one in told] == [0, 1, 2, 3, 4, 5]
    assert [one["restartAt"] is None for one in told] == [False] * 5 + [True]
    assert {(one["reason"], one["exitCode"], one["signal"]) for one in told} == {("crashed", 3, None)}
    assert session.process["restarts"] == 5
    once = ["ERROR>INITIALIZING", "INITIALIZING>READY", "error crashed exit 3"]
    assert session.story() == [*BEGIN, once[-1], *once * 5]
    for _ in range(2):
        messages = [one for one in heard(desk.live, hook, session) if one["type"] == "SESSION_ERROR"]
        assert [(one["reason"], one["exitCode"], one["restarts"]) for one in messages] == [("crashed", 3, 5)]
        pass_time(desk.live, 10_000)
        assert session.state == "ERROR"


def test_what_cannot_be_started_is_tried_again_as_well(desk: Desk) -> None:
    session = desk.make("./not-yet", process=AGAIN)
    failed(session, 1)
    pass_time(desk.live, 1)
    failed(session, 2)
    program = desk.workspace / "not-yet"
    program.write_text("#!/bin/sh\nexec cat\n")
    program.chmod(0o755)
    pass_time(desk.live, 2)
    session.wait("READY")
    assert [(one["reason"], one["after"]) for one in failures(session)] == [("spawn", 1), ("spawn", 2)]
    assert session.process["restarts"] == 2


def test_a_session_that_is_never_to_be_started_again_is_not_and_the_owner_told_at_once(
    desk: Desk, hook: FakeWebhook
) -> None:
    sessions = [desk.make("sh", "-c", "exit 3", process=how) for how in ({}, {"restart": "never"})]
    for session in sessions:
        failed(session, 1)
    pass_time(desk.live, 600)
    for session in sessions:
        assert session.story() == [*BEGIN, "error crashed exit 3"]
        assert failures(session)[0]["restartAt"] is None
        assert [one["type"] for one in heard(desk.live, hook, session)].count("SESSION_ERROR") == 1


def test_a_run_of_ten_minutes_makes_the_failures_before_it_forgotten(desk: Desk) -> None:
    session = desk.sh("read -r line; exit 3", **AGAIN)
    for number, lasted in enumerate((0, 0, 599, 600, 0), 1):
        session.wait("READY")
        pass_time(desk.live, lasted)
        session.send("crash")
        failed(session, number)
        pass_time(desk.live, failures(session)[-1]["after"])
    session.wait("READY")
    assert [one["after"] for one in failures(session)] == [1, 2, 4, 1, 2]


def test_a_message_that_a_process_never_got_is_for_its_next_run(desk: Desk) -> None:
    place = desk.workspace / "place"
    place.mkdir()
    session = desk.claude(idleTimeout=60, workingDir=str(place))
    session.turn("one")
    pass_time(desk.live, 60)
    wait_for(lambda: session.state == "SUSPENDED" and not session.pids)
    place.rmdir()
    session.send("two")
    session.wait("ERROR")
    place.mkdir()
    session.do("resume")
    wait_for(lambda: session.process["turns"] == 2)
    assert session.notes("got") == ["one", "two"]
    assert session.external_ids == [session.external_ids[0]] * 2
    assert [one for one in session.story() if not one.startswith("updated")][5:] == [
        "suspended by idle",
        "resumed",
        "READY>ACTIVE 2",
        "error spawn",
        "ERROR>INITIALIZING",
        "INITIALIZING>READY",
        "READY>ACTIVE 2",
        "ACTIVE>IDLE 2 done",
    ]


def test_its_owner_lets_it_begin_again_as_if_it_never_had_failed(desk: Desk) -> None:
    session = desk.make("sh", "-c", "exit 3", process=AGAIN)
    fail_for_good(desk, session)
    session.do("resume", reason="once more")
    failed(session, 7)
    assert [one["after"] for one in failures(session)][6:] == [1]
    fail_for_good(desk, session, so_far=6)
    assert [one["after"] for one in failures(session)] == [1, 2, 4, 8, 16, 0] * 2
    assert session.process["restarts"] == 11


def test_the_owner_is_told_again_when_what_he_resumed_fails_again(desk: Desk, hook: FakeWebhook) -> None:
    session = desk.make("sh", "-c", "exit 3")
    failed(session, 1)
    session.do("resume")
    failed(session, 2)
    assert [one["type"] for one in heard(desk.live, hook, session)].count("SESSION_ERROR") == 2


def test_a_restart_that_its_owner_asks_for_does_not_wait_for_its_time(desk: Desk) -> None:
    session = desk.make("sh", "-c", "exit 3", process=AGAIN)
    failed(session, 1)
    session.patch(process={"command": [*CAT]}).raise_for_status()
    session.do("resume")
    session.wait("READY")
    pass_time(desk.live, 60)
    assert session.story().count("ERROR>INITIALIZING") == 1


def test_a_session_that_ends_while_it_waits_is_not_started_again(desk: Desk) -> None:
    session = desk.make("sh", "-c", "exit 3", process=AGAIN)
    failed(session, 1)
    session.revoke()
    session.wait("CLOSED")
    pass_time(desk.live, 60)
    assert session.story() == [*BEGIN, "error crashed exit 3", "revoked manual_revoke", "closed revoked exit 3"]


def test_a_restart_that_came_due_while_no_daemon_ran_is_made_up_for(desk: Desk) -> None:
    session = desk.make("sh", "-c", "exit 3", process=AGAIN)
    failed(session, 1)
    desk.live.stop()
    desk.live.time.advance(60)
    desk.live.start()
    ticked(desk.live)
    failed(session, 2)
    assert failures(session)[1]["after"] == 2


def test_a_restart_resumes_the_conversation(desk: Desk) -> None:
    session = desk.claude(**AGAIN)
    session.turn("one")
    session.script(exit=3).send("two")
    failed(session, 1)
    session.script()
    pass_time(desk.live, 1)
    session.wait("READY").turn("three")
    assert ["--resume" in run for run in session.notes("run")] == [False, True]
    assert session.external_ids == [session.external_ids[0]] * 2
    assert session.notes("got") == ["one", "two", "three"]


def test_a_conversation_is_not_forgotten_because_its_process_fails_again(desk: Desk) -> None:
    session = desk.claude(**AGAIN)
    session.turn("one")
    session.script(exit=3).send("two")
    failed(session, 1)
    session.script(exit=1)
    pass_time(desk.live, 1)
    session.wait("READY").send("three")
    failed(session, 2)
    session.script()
    pass_time(desk.live, 2)
    session.wait("READY").turn("four")
    assert session.external_ids == [session.external_ids[0]] * 3


def test_a_conversation_that_cannot_be_resumed_begins_anew(desk: Desk) -> None:
    session = desk.claude(**AGAIN)
    session.turn("one")
    kept = session.external_ids[0]
    session.script(exit=3).send("two")
    failed(session, 1)
    session.script().forget(kept)
    pass_time(desk.live, 1)
    failed(session, 2)
    pass_time(desk.live, 2)
    session.wait("READY").turn("three")
    assert ["--resume" in run for run in session.notes("run")] == [False, True, False]
    assert session.external_ids[2] != kept
