"""The life of a supervised session: every edge of the table along which its process, its owner or its time can take it.

A session with a process is CLOSED through CLOSING alone, and fails only once it was to be started: nothing leads from
CREATED to CLOSED or ERROR, from INITIALIZING or ERROR to CLOSED, from READY to IDLE, or from CLOSING to ERROR.
"""

import signal
from collections.abc import Callable
from typing import Any

import pytest

from daemon.domain.states import TRANSITIONS, State
from tests.support.daemon_process import wait_for
from tests.support.held_start import HeldStart
from tests.support.stories import steps
from tests.support.supervised import BEGIN, CAT, Desk, ScriptedClaude, Supervised, code, kill9, pass_time

SETTINGS = {"DAEMON_PROCESSES_MAX_PROCESSES": "2"}

Story = tuple[Supervised, list[str]]
"""A session, and what must be told of it."""

FAILED = [*BEGIN, "error crashed exit 3"]
USED = [*BEGIN, "started", "ACTIVE>IDLE 1 done"]
QUICK: dict[str, Any] = {"quietAfter": 50}


def failing(desk: Desk, **process: object) -> Supervised:
    return desk.make("sh", "-c", "exit 3", process=process).wait("ERROR")


def busy(desk: Desk) -> ScriptedClaude:
    """Return a session in the middle of its first turn, which goes on when `go` is there."""
    session = desk.claude().script(hold="go")
    session.send("work")
    wait_for(lambda: session.notes("got"))
    return session


def idle(desk: Desk) -> Supervised:
    return desk.run(*CAT, **QUICK).turn("hello")


def waiting(desk: Desk) -> Supervised:
    """Return a session that waits for a place: what makes room for it takes its time to end."""
    desk.run(*CAT)
    desk.claude(start={"stubborn": True})
    made = desk.make(*CAT)
    assert made.state == "CREATED"
    return made


def is_started(desk: Desk) -> Story:
    return desk.run(*CAT), BEGIN


def is_revoked_before_it_starts(desk: Desk) -> Story:
    session = waiting(desk)
    session.revoke()
    return session.wait("CLOSED"), ["created", "revoked manual_revoke", "closed revoked"]


def is_revoked_while_it_starts(desk: Desk) -> Story:
    session = failing(desk)
    with HeldStart(session) as start:
        session.do("resume")
        start.wait()
        session.revoke()
        session.wait("CLOSED")
    return session, [*FAILED, "updated process", "ERROR>INITIALIZING", "revoked manual_revoke", "closed revoked"]


def has_no_command(desk: Desk) -> Story:
    session = desk.make("no-such-command").wait("ERROR")
    assert session.process["reason"] == "spawn"
    return session, [*BEGIN[:2], "error spawn"]


def takes_its_first_turn(desk: Desk) -> Story:
    return busy(desk), [*BEGIN, "started"]


def is_suspended_ready(desk: Desk) -> Story:
    session = desk.run(*CAT)
    session.do("suspend")
    return session, [*BEGIN, "suspended by owner"]


def is_revoked_ready(desk: Desk) -> Story:
    session = desk.run(*CAT)
    session.revoke()
    return session.wait("CLOSED"), [*BEGIN, "revoked manual_revoke", "closed revoked exit 0"]


def crashes_ready(desk: Desk) -> Story:
    return failing(desk), FAILED


def ends_its_turn(desk: Desk) -> Story:
    return idle(desk), USED


def is_suspended_active(desk: Desk) -> Story:
    session = busy(desk)
    session.do("suspend")
    return session, [*BEGIN, "started", "suspended by owner"]


def is_revoked_active(desk: Desk) -> Story:
    session = busy(desk)
    session.revoke()
    return session.wait("CLOSED"), [*BEGIN, "started", "revoked manual_revoke", "closed revoked signal 15"]


def crashes_active(desk: Desk) -> Story:
    session = desk.claude().script(exit=3)
    session.send("crash")
    return session.wait("ERROR"), [*BEGIN, "started", "error crashed exit 3"]


def takes_another_turn(desk: Desk) -> Story:
    return idle(desk).turn("again"), [*USED, "IDLE>ACTIVE 2", "ACTIVE>IDLE 2 done"]


def is_suspended_idle(desk: Desk) -> Story:
    session = idle(desk)
    session.do("suspend")
    return session, [*USED, "suspended by owner"]


def is_revoked_idle(desk: Desk) -> Story:
    session = idle(desk)
    session.revoke()
    return session.wait("CLOSED"), [*USED, "revoked manual_revoke", "closed revoked exit 0"]


def crashes_idle(desk: Desk) -> Story:
    session = idle(desk)
    kill9(session.pid)
    return session.wait("ERROR"), [*USED, "error crashed signal 9"]


def is_resumed(desk: Desk) -> Story:
    session, story = is_suspended_ready(desk)
    session.do("resume")
    return session, [*story, "resumed"]


def is_revoked_suspended(desk: Desk) -> Story:
    session, story = is_suspended_idle(desk)
    session.revoke()
    return session.wait("CLOSED"), [*story, "revoked manual_revoke", "closed revoked exit 0"]


def dies_suspended(desk: Desk) -> Story:
    session, story = is_suspended_ready(desk)
    pid = session.pid
    kill9(pid)
    return session.wait("ERROR"), [*story, "error crashed signal 9"]


def is_started_again_by_its_owner(desk: Desk) -> Story:
    session = failing(desk)
    assert session.patch(process={"command": [*CAT]}).status_code == 200
    session.do("resume")
    return session.wait("READY"), [
        *FAILED,
        "updated process",
        "updated process",
        "ERROR>INITIALIZING",
        "INITIALIZING>READY",
    ]


def is_revoked_failed(desk: Desk) -> Story:
    session = failing(desk)
    session.revoke()
    return session.wait("CLOSED"), [*FAILED, "revoked manual_revoke", "closed revoked exit 3"]


TAKEN: dict[tuple[State, State], Callable[[Desk], Story]] = {
    ("CREATED", "INITIALIZING"): is_started,
    ("CREATED", "CLOSING"): is_revoked_before_it_starts,
    ("INITIALIZING", "READY"): is_started,
    ("INITIALIZING", "CLOSING"): is_revoked_while_it_starts,
    ("INITIALIZING", "ERROR"): has_no_command,
    ("READY", "ACTIVE"): takes_its_first_turn,
    ("READY", "SUSPENDED"): is_suspended_ready,
    ("READY", "CLOSING"): is_revoked_ready,
    ("READY", "ERROR"): crashes_ready,
    ("ACTIVE", "IDLE"): ends_its_turn,
    ("ACTIVE", "SUSPENDED"): is_suspended_active,
    ("ACTIVE", "CLOSING"): is_revoked_active,
    ("ACTIVE", "ERROR"): crashes_active,
    ("IDLE", "ACTIVE"): takes_another_turn,
    ("IDLE", "SUSPENDED"): is_suspended_idle,
    ("IDLE", "CLOSING"): is_revoked_idle,
    ("IDLE", "ERROR"): crashes_idle,
    ("SUSPENDED", "READY"): is_resumed,
    ("SUSPENDED", "CLOSING"): is_revoked_suspended,
    ("SUSPENDED", "ERROR"): dies_suspended,
    ("CLOSING", "CLOSED"): is_revoked_ready,
    ("ERROR", "INITIALIZING"): is_started_again_by_its_owner,
    ("ERROR", "CLOSING"): is_revoked_failed,
}
NEVER_TAKEN = {
    ("CREATED", "CLOSED"),
    ("CREATED", "ERROR"),
    ("INITIALIZING", "CLOSED"),
    ("READY", "IDLE"),
    ("CLOSING", "ERROR"),
    ("ERROR", "CLOSED"),
}


def test_every_edge_of_the_table_is_looked_at() -> None:
    edges = {(source, to) for source, allowed in TRANSITIONS.items() for to in allowed}
    assert TAKEN.keys() | NEVER_TAKEN == edges
    assert not TAKEN.keys() & NEVER_TAKEN


@pytest.mark.parametrize("edge", TAKEN, ids="-".join)
def test_a_step_of_a_supervised_session_has_exactly_one_event(desk: Desk, edge: tuple[State, State]) -> None:
    session, story = TAKEN[edge](desk)
    assert session.story() == story
    assert edge in steps(session.events())
    assert steps(session.events())[-1][1] == session.state


def test_an_interrupted_turn_goes_on_after_the_session_is_resumed(desk: Desk) -> None:
    session = busy(desk)
    session.do("suspend")
    wait_for(session.stopped)
    session.release("go")
    session.do("resume")
    session.wait("IDLE")
    assert session.story() == [
        *BEGIN,
        "started",
        "suspended by owner",
        "resumed",
        "READY>ACTIVE 1",
        "ACTIVE>IDLE 1 done",
    ]
    assert session.notes("got") == ["work"]


def test_a_session_of_a_suspended_agent_does_not_start_before_that_is_activated(desk: Desk) -> None:
    session = waiting(desk)
    path = f"/v1/agents/{session.agent_id}"
    desk.live.owner.post(f"{path}/suspend").raise_for_status()
    for other in desk.made[:-1]:
        other.do("kill")
    desk.run(*CAT).do("kill")  # whatever was to start has started by now
    assert session.story() == ["created"]
    desk.live.owner.post(f"{path}/activate").raise_for_status()
    session.wait("READY")
    assert session.story() == BEGIN


# --- what leads to CLOSING


def test_an_agent_ends_its_own_session(desk: Desk) -> None:
    session = desk.run(*CAT)
    desk.live.agent(session.token).delete("/v1/session").raise_for_status()
    session.wait_closed()
    assert session.story() == [*BEGIN, "revoked ended_by_agent", "closed revoked exit 0"]
    assert session.process["reason"] == "revoked"


def test_a_terminated_agent_s_sessions_end(desk: Desk) -> None:
    session = desk.run(*CAT)
    answer = desk.live.owner.delete(f"/v1/agents/{session.agent_id}")
    assert answer.json()["sessionsRevoked"] == 1
    session.wait_closed()
    assert session.story() == [*BEGIN, "revoked agent_terminated", "closed revoked exit 0"]


def test_a_session_ends_when_its_time_is_up(desk: Desk) -> None:
    session = desk.make(*CAT, ttl=300).wait("READY")
    pass_time(desk.live, 300)
    session.wait_closed()
    assert session.story() == [*BEGIN, "expired ttl", "closed expired exit 0"]
    assert (session.process["reason"], session.show()["status"]) == ("expired", "EXPIRED")


def test_a_session_ends_when_its_process_has_run_for_its_maximum(desk: Desk) -> None:
    session = desk.run(*CAT, maxDuration=60)
    pass_time(desk.live, 59)
    assert session.state == "READY"
    pass_time(desk.live, 1)
    session.wait_closed()
    assert session.story() == [*BEGIN, "revoked duration", "closed duration exit 0"]
    assert session.process["reason"] == "duration"


def test_a_session_ends_when_its_command_says_that_it_has_done_its_work(desk: Desk) -> None:
    session = desk.make("true")
    session.wait_closed()
    assert session.story() == [*BEGIN, "revoked process_exited", "closed exited exit 0"]
    shown = session.process
    assert (shown["exitCode"], shown["signal"], shown["reason"]) == (0, None, "exited")


# --- what leads to ERROR


def test_a_working_directory_that_is_gone_meanwhile_is_an_error(desk: Desk) -> None:
    place = desk.workspace / "place"
    place.mkdir()
    session = failing(desk, workingDir=str(place))
    place.rmdir()
    session.do("resume")
    session.tells(*FAILED, "updated process", "ERROR>INITIALIZING", "error spawn")


def test_a_command_that_is_gone_before_it_began_is_an_error(desk: Desk) -> None:
    session = failing(desk)
    with HeldStart(session) as start:
        session.do("resume")
        start.wait()
        (inner,) = session.tree
        kill9(inner)
        session.wait("ERROR")
    assert session.story() == [*FAILED, "updated process", "ERROR>INITIALIZING", "error spawn"]
    assert session.pids == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_signal_is_an_error_that_names_it(desk: Desk, number: signal.Signals) -> None:
    session = desk.make("sh", "-c", f"kill -{number.name[3:]} $$").wait("ERROR")
    assert session.story() == [*BEGIN, f"error crashed signal {number}"]
    shown = session.process
    assert (shown["exitCode"], shown["signal"], shown["reason"]) == (None, number, "crashed")


# --- what is refused

SUSPEND, RESUME, MESSAGE, KILL = "suspend", "resume", "messages", "kill"
WRONG = (409, "INVALID_STATE_TRANSITION")
BUSY = (409, "SESSION_BUSY")
REFUSED: dict[str, tuple[Callable[[Desk], Supervised], dict[str, tuple[int, str]]]] = {
    "CREATED": (waiting, {SUSPEND: WRONG, RESUME: WRONG, MESSAGE: BUSY}),
    "READY": (lambda desk: desk.run(*CAT), {RESUME: WRONG}),
    "ACTIVE": (busy, {RESUME: WRONG, MESSAGE: BUSY}),
    "IDLE": (idle, {RESUME: WRONG}),
    "SUSPENDED": (lambda desk: is_suspended_idle(desk)[0], {SUSPEND: WRONG, MESSAGE: BUSY}),
    "ERROR": (failing, {SUSPEND: WRONG, MESSAGE: WRONG}),
    "CLOSED": (
        lambda desk: desk.make("true").wait("CLOSED"),
        {SUSPEND: WRONG, RESUME: WRONG, MESSAGE: WRONG, KILL: WRONG, "rotate": WRONG, "extend": WRONG},
    ),
}
BODIES = {MESSAGE: {"content": "hello"}, "extend": {"seconds": 60}}


def assert_refused(session: Supervised, refusals: dict[str, tuple[int, str]]) -> None:
    before = session.show(), session.story()
    for action, refusal in refusals.items():
        answer = session.live.owner.post(f"{session.path}/{action}", json=BODIES.get(action))
        assert code(answer) == refusal, action
        assert answer.json()["retryable"] == (refusal == BUSY)
    assert (session.show(), session.story()) == before


@pytest.mark.parametrize("state", REFUSED)
def test_what_a_state_does_not_allow_is_refused_and_writes_nothing(desk: Desk, state: str) -> None:
    make, refusals = REFUSED[state]
    session = make(desk)
    assert session.state == state
    assert_refused(session, refusals)


def test_a_session_that_starts_can_neither_be_suspended_nor_take_a_message(desk: Desk) -> None:
    session = failing(desk)
    with HeldStart(session) as start:
        session.do("resume")
        start.wait()
        assert_refused(session, {SUSPEND: WRONG, RESUME: WRONG, MESSAGE: BUSY})
        start.let_go()
        session.wait("ERROR")


def test_a_session_that_closes_allows_nothing_but_its_end(desk: Desk) -> None:
    session = desk.sh("trap '' TERM; echo up; while :; do sleep 0.05; done").says("up")
    session.revoke()
    assert session.state == "CLOSING"
    assert_refused(session, {SUSPEND: WRONG, RESUME: WRONG, MESSAGE: WRONG, "rotate": WRONG, "extend": WRONG})
    assert session.patch(process={"restart": "never"}).status_code == 409
    assert session.do("kill")["state"] == "CLOSED"


def test_a_session_without_a_process_has_none_to_speak_with(desk: Desk) -> None:
    plain = desk.live.new_session()
    path = f"/v1/sessions/{plain['id']}"
    owner = desk.live.owner
    for answer in (
        owner.post(f"{path}/messages", json={"content": "hello"}),
        owner.get(f"{path}/output", params={"follow": "false"}),
        owner.get(f"{path}/output"),
        owner.post(f"{path}/kill"),
        owner.patch(path, json={"process": {"restart": "never"}}),
    ):
        assert code(answer) == WRONG
    assert owner.get(path).json()["process"] is None
    unknown = path.replace(plain["id"], "01900000-0000-7000-8000-000000000000")
    assert code(owner.post(f"{unknown}/messages", json={"content": "hello"})) == (404, "SESSION_NOT_FOUND")
    assert code(owner.post(f"{unknown}/kill")) == (404, "SESSION_NOT_FOUND")
