"""A suspended session's process stands still, all of it, until it is resumed; its token is refused meanwhile."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.support.daemon_process import wait_for
from tests.support.supervised import BEGIN, CAT, Desk, Supervised, code, kill9, pass_time

SETTINGS = {"DAEMON_SECURITY_AUTO_STOP_THRESHOLD": "1"}

FAMILY = """
sh -c 'sleep 300 & echo child; wait' &
setsid sh -c 'sleep 300 & echo away; wait' &
(setsid sh -c 'echo orphan; exec sleep 300' &)
while :; do echo tick; sleep 0.02; done
"""
"""A child, one in a session of its own, one that init has adopted, and a parent that works."""


def family(desk: Desk, **more: Any) -> Supervised:
    session = desk.sh(FAMILY, **more)
    for one in ("child", "away", "orphan"):
        session.says(one)
    return session


def works(session: Supervised) -> bool:
    """Return whether its process writes more than it has written."""
    before = len(session.output())
    wait_for(lambda: len(session.output()) > before)
    return True


def asks(session: Supervised) -> tuple[int, str | None]:
    """Return what the session's token gets."""
    return code(session.live.agent(session.token).get("/v1/session"))


def agent(session: Supervised, action: str) -> None:
    session.live.owner.post(f"/v1/agents/{session.agent_id}/{action}").raise_for_status()


def test_suspending_stops_the_whole_tree_and_resuming_lets_it_go_on(desk: Desk) -> None:
    session = family(desk)
    before = sorted(session.tree)
    assert len(before) >= 6
    session.do("suspend")
    wait_for(session.stopped)
    written = session.output()
    assert session.state == "SUSPENDED"
    assert session.pid in session.tree
    assert session.output() == written
    session.do("resume")
    wait_for(session.goes_on)
    assert works(session)
    assert session.story() == [*BEGIN, "suspended by owner", "resumed"]


def test_a_suspended_session_s_token_is_refused_and_accepted_again_afterwards(desk: Desk) -> None:
    session = desk.run(*CAT)
    assert asks(session) == (200, None)
    session.do("suspend")
    assert asks(session) == (403, "SESSION_SUSPENDED")
    session.do("resume")
    assert asks(session) == (200, None)


def test_requests_with_its_token_never_change_a_supervised_session_s_state(desk: Desk) -> None:
    session = desk.claude().script(hold="go")
    assert [asks(session) for _ in range(3)] == [(200, None)] * 3
    assert (session.state, session.story()) == ("READY", BEGIN)
    session.send("work")
    assert asks(session) == (200, None)
    desk.live.time.advance(1000)  # with no request: a session without a process would be IDLE
    assert desk.live.call(lambda daemon: daemon.parts.services.admin.mark_idle()) == 0
    assert (session.state, session.story()) == ("ACTIVE", [*BEGIN, "started"])
    session.release("go")
    session.wait("IDLE")
    assert asks(session) == (200, None)
    assert session.story() == [*BEGIN, "started", "ACTIVE>IDLE 1 done"]
    assert session.show()["requestCount"] >= 4


def test_suspending_an_agent_stops_its_sessions_and_activating_it_resumes_those_alone(desk: Desk) -> None:
    one = family(desk)
    held = desk.run(*CAT, agent=one.agent_id)
    other = desk.run(*CAT)
    held.do("suspend")
    agent(one, "suspend")
    wait_for(lambda: one.stopped() and held.stopped())
    one.wait("SUSPENDED")
    assert other.goes_on()
    assert asks(one) == asks(held) == (403, "AGENT_SUSPENDED")
    agent(one, "activate")
    one.wait("READY")
    wait_for(one.goes_on)
    assert works(one)
    assert held.state == "SUSPENDED"
    assert held.stopped()
    assert one.story() == [*BEGIN, "suspended by agent", "resumed"]
    assert held.story() == [*BEGIN, "suspended by owner"]
    assert other.story() == BEGIN


def test_a_turn_that_an_agent_s_suspension_interrupts_goes_on_when_it_is_activated(desk: Desk) -> None:
    session = desk.claude().script(hold="go")
    session.send("work")
    agent(session, "suspend")
    session.wait("SUSPENDED")
    session.release("go")
    agent(session, "activate")
    session.wait("IDLE")
    assert session.story()[3:] == [
        "started",
        "suspended by agent",
        "resumed",
        "READY>ACTIVE 1",
        "ACTIVE>IDLE 1 done",
    ]


def test_nothing_of_a_suspended_agent_can_be_resumed_or_spoken_to(desk: Desk) -> None:
    session = desk.run(*CAT)
    agent(session, "suspend")
    session.wait("SUSPENDED")
    assert code(session.post("resume")) == (409, "AGENT_SUSPENDED")
    assert code(session.post("suspend")) == (409, "INVALID_STATE_TRANSITION")
    assert code(session.post("messages", content="hello", queue=True)) == (409, "AGENT_SUSPENDED")
    assert code(desk.ask(*CAT, agent=session.agent_id)) == (409, "AGENT_SUSPENDED")
    assert session.story() == [*BEGIN, "suspended by agent"]


def test_however_often_it_is_suspended_and_resumed_at_once_the_last_word_holds(desk: Desk) -> None:
    session = family(desk)
    with ThreadPoolExecutor(4) as several:
        answers = list(several.map(lambda number: session.post(("suspend", "resume")[number % 2]), range(40)))
    assert {code(answer) for answer in answers} <= {(200, None), (409, "INVALID_STATE_TRANSITION")}
    session.post("suspend")
    wait_for(session.stopped)
    session.do("resume")
    wait_for(session.goes_on)
    assert works(session)


def test_however_fast_an_agent_is_suspended_and_activated_the_last_word_holds(desk: Desk) -> None:
    session = family(desk)
    for _ in range(10):
        agent(session, "suspend")
        agent(session, "activate")
    session.wait("READY")
    wait_for(session.goes_on)
    assert works(session)
    for _ in range(10):
        agent(session, "activate")
        agent(session, "suspend")
    session.wait("SUSPENDED")
    wait_for(session.stopped)
    agent(session, "activate")
    session.wait("READY")
    assert works(session)


def test_a_failed_session_of_a_suspended_agent_is_not_started_again(desk: Desk) -> None:
    session = desk.sh("read line; exit 3", restart="on-failure")
    agent(session, "suspend")
    session.wait("SUSPENDED")
    agent(session, "activate")
    session.wait("READY")
    session.send("now")
    session.wait("ERROR")
    agent(session, "suspend")
    pass_time(desk.live, 60)
    other = desk.run(*CAT)  # whatever was to happen at that moment has happened by now
    assert other.state == "READY"
    assert session.state == "ERROR"
    agent(session, "activate")
    session.wait("READY")


def test_auto_stop_stops_the_processes_of_its_agent(desk: Desk) -> None:
    session = desk.make("sh", "-c", FAMILY, constraints={"allowedOperations": ["session.read"]}).says("orphan")
    assert code(desk.live.agent(session.token).delete("/v1/session")) == (403, "CONSTRAINT_VIOLATED")
    wait_for(session.stopped)
    session.wait("SUSPENDED")
    assert desk.live.owner.get(f"/v1/agents/{session.agent_id}").json()["suspensionReason"] == "auto_stop"
    assert [one for one in session.story() if one.startswith("suspended")] == ["suspended by agent"]


def test_what_was_stopped_stays_stopped_when_the_daemon_starts_again(desk: Desk) -> None:
    session, other = family(desk), family(desk)
    session.do("suspend")
    wait_for(session.stopped)
    pids = session.pid, other.pid
    desk.live.restart()
    assert session.stopped()
    assert works(other)
    assert (session.pid, other.pid) == pids
    session.do("resume")
    assert works(session)
    assert session.story() == [*BEGIN, "suspended by owner", "resumed"]
    assert other.story() == BEGIN


def test_a_stopped_process_that_is_killed_from_outside_does_not_run_again_before_its_owner_says_so(desk: Desk) -> None:
    session = desk.run(*CAT, restart="on-failure")
    session.do("suspend")
    wait_for(session.stopped)
    kill9(session.pid)
    session.wait("ERROR")
    pass_time(desk.live, 60)
    desk.run(*CAT)  # whatever was to happen at that moment has happened by now
    assert session.state in {"ERROR", "SUSPENDED"}
