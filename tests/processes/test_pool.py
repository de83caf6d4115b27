"""The pool: so many processes and no more; one that can go on later makes room for another, and is back when needed."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.daemon_process import wait_for
from tests.support.supervised import BEGIN, CAT, Desk, ScriptedClaude, Supervised, code, ticked

SETTINGS = {"DAEMON_PROCESSES_MAX_PROCESSES": "3", "DAEMON_PROCESSES_MAX_PER_AGENT": "2"}
QUICK: dict[str, Any] = {"quietAfter": 50}


def idle(desk: Desk, agent: str | None = None) -> ScriptedClaude:
    """Return a session with one turn, idle for ten seconds less than the one before."""
    session = desk.claude(agent=agent)
    session.turn("one")
    desk.live.time.advance(10)
    return session


def generic(desk: Desk, count: int) -> list[Supervised]:
    return [desk.run(*CAT, **QUICK) for _ in range(count)]


def is_away(session: Supervised) -> bool:
    """Return whether a session lives without a process."""
    shown = session.show()
    return shown["state"] in {"READY", "IDLE"} and shown["process"]["pid"] is None and not session.pids


def assert_full(desk: Desk, limit: str = "processes.max_processes", most: int = 3, agent: str | None = None) -> None:
    before = desk.live.query("SELECT count(*) FROM sessions"), len(desk.live.events(type="SESSION_CREATED"))
    answer = desk.ask(*CAT, agent=agent)
    assert code(answer) == (429, "PROCESS_LIMIT_EXCEEDED")
    assert (answer.json()["retryable"], answer.json()["details"]) == (True, {"limit": limit, "most": most})
    assert int(answer.headers["retry-after"]) > 0
    after = desk.live.query("SELECT count(*) FROM sessions"), len(desk.live.events(type="SESSION_CREATED"))
    assert after == before


def test_the_longest_idle_one_that_can_go_on_later_makes_room(desk: Desk) -> None:
    first, second, third = idle(desk), idle(desk), idle(desk)
    fourth = desk.run(*CAT)
    wait_for(lambda: is_away(first))
    assert (first.state, first.process["reason"]) == ("IDLE", "pool")
    assert second.pid
    assert third.pid
    assert fourth.pid
    assert first.notes("end") == ["eof"]
    assert first.story() == [*BEGIN, "started", "ACTIVE>IDLE 1 done", "updated process", "updated process"]
    assert {one["sessionId"] for one in desk.live.owner.get("/v1/owner/processes").json()} == {
        second.id,
        third.id,
        fourth.id,
    }


def test_one_that_made_room_comes_back_at_its_next_message_where_it_was(desk: Desk) -> None:
    first, second, _ = idle(desk), idle(desk), idle(desk)
    desk.run(*CAT)
    wait_for(lambda: is_away(first))
    first.turn("two")
    assert first.process["pid"] is not None
    wait_for(lambda: is_away(second))
    (begin, resume) = first.notes("run")
    assert "--session-id" in begin
    assert "--resume" in resume
    assert first.external_ids == [first.external_ids[0]] * 2
    assert first.notes("got") == ["one", "two"]
    assert first.output().count('"result": "echo: ') == 2
    assert first.process["turns"] == 2
    assert [one for one in first.story() if not one.startswith("updated")] == [
        *BEGIN,
        "started",
        "ACTIVE>IDLE 1 done",
        "IDLE>ACTIVE 2",
        "ACTIVE>IDLE 2 done",
    ]


def test_one_without_a_turn_makes_room_too_and_begins_a_conversation_when_it_is_back(desk: Desk) -> None:
    first = desk.claude()
    generic(desk, 2)
    (other,) = generic(desk, 1)
    wait_for(lambda: is_away(first))
    assert first.state == "READY"
    other.do("kill")
    first.turn("one")
    assert ["--resume" in run for run in first.notes("run")] == [False, False]


def test_other_commands_never_make_room(desk: Desk) -> None:
    generic(desk, 3)
    assert_full(desk)


def test_a_busy_one_never_makes_room(desk: Desk) -> None:
    generic(desk, 2)
    session = desk.claude().script(hold="go")
    session.send("work")
    assert_full(desk)
    session.release("go")
    session.wait("IDLE")
    desk.run(*CAT)
    wait_for(lambda: is_away(session))


def test_an_agent_has_places_of_its_own(desk: Desk) -> None:
    one, two = generic(desk, 1)[0], desk.run(*CAT)
    agent = one.agent_id
    desk.run(*CAT, agent=agent)
    two.do("kill")
    assert_full(desk, "processes.max_per_agent", 2, agent)
    assert desk.run(*CAT).state == "READY"


def test_an_agent_makes_room_among_its_own(desk: Desk) -> None:
    other = idle(desk)
    first = idle(desk)
    second = idle(desk, first.agent_id)
    third = desk.run(*CAT, agent=first.agent_id)
    wait_for(lambda: is_away(first))
    assert other.pid
    assert second.pid
    assert third.pid


def test_a_place_is_free_again_when_a_session_is_closed(desk: Desk) -> None:
    first, *_ = generic(desk, 3)
    first.revoke()
    first.wait_closed()
    assert desk.run(*CAT).state == "READY"


def test_a_stopped_process_keeps_its_place(desk: Desk) -> None:
    for session in [*generic(desk, 2), idle(desk)]:
        session.do("suspend")
    assert_full(desk)


def test_one_that_is_about_to_start_again_keeps_its_place(desk: Desk) -> None:
    generic(desk, 2)
    desk.make("sh", "-c", "exit 3", process={"restart": "on-failure"}).wait("ERROR")
    assert_full(desk)


def test_of_two_sessions_for_the_last_place_one_is_made(desk: Desk) -> None:
    generic(desk, 2)
    agents = [desk.live.new_agent() for _ in range(4)]
    with ThreadPoolExecutor(4) as several:
        answers = list(several.map(lambda agent: desk.ask(*CAT, agent=agent), agents))
    made = [Supervised(desk.live, answer.json()) for answer in answers if answer.status_code == 201]
    desk.made += made
    assert len(made) == 1
    assert sorted(code(answer) for answer in answers)[1:] == [(429, "PROCESS_LIMIT_EXCEEDED")] * 3
    made[0].wait("READY")


def test_of_two_messages_for_the_last_place_one_is_taken(desk: Desk) -> None:
    away = [idle(desk), idle(desk)]
    for session in away:
        session.script(hold="go")
    last = idle(desk)
    generic(desk, 2)
    wait_for(lambda: all(map(is_away, away)))
    with ThreadPoolExecutor(2) as several:
        answers = list(several.map(lambda one: one.post("messages", content="two"), away))
    assert sorted(map(code, answers)) == [(202, None), (429, "PROCESS_LIMIT_EXCEEDED")]
    taken, refused = sorted(away, key=lambda one: one.state)
    assert (taken.state, refused.state) == ("ACTIVE", "IDLE")
    wait_for(lambda: is_away(last))
    assert is_away(refused)
    taken.release("go")
    taken.wait("IDLE")
    refused.release("go")
    refused.script().turn("two")
    assert refused.notes("got") == ["one", "two"]


def test_nothing_is_written_where_there_is_no_place_for_a_message_or_a_resumption(desk: Desk) -> None:
    session = idle(desk)
    failed = desk.make("sh", "-c", "exit 3").wait("ERROR")
    generic(desk, 3)
    wait_for(lambda: is_away(session))
    before = session.show(), session.story(), failed.show(), failed.story()
    assert code(session.post("messages", content="two")) == (429, "PROCESS_LIMIT_EXCEEDED")
    assert code(failed.post("resume")) == (429, "PROCESS_LIMIT_EXCEEDED")
    assert (session.show(), session.story(), failed.show(), failed.story()) == before


def test_no_more_run_than_may_while_one_takes_its_time_to_make_room(desk: Desk) -> None:
    slow = desk.claude(start={"stubborn": True})
    generic(desk, 2)
    last = desk.make(*CAT)

    def begun() -> bool:
        running = sum(bool(one.pids) for one in desk.made)  # counted before the question: what is there was there
        assert running <= 3
        return last.state == "READY"

    wait_for(begun)
    assert slow.pids == []
    assert is_away(slow)


def test_one_that_is_ended_takes_a_message_meanwhile_and_is_back(desk: Desk) -> None:
    slow = desk.claude(start={"stubborn": True})
    generic(desk, 1)
    desk.run(*CAT, agent=slow.agent_id)
    desk.make(*CAT, agent=slow.agent_id)
    assert slow.process["pid"] is not None
    slow.script_start()
    assert code(slow.post("messages", content="now")) == (429, "PROCESS_LIMIT_EXCEEDED")
    desk.made[1].do("kill")
    desk.made[2].do("kill")
    slow.turn("now")
    assert slow.notes("got") == ["now"]
    assert len(slow.notes("run")) == 2


def test_one_that_made_room_stays_away_when_the_daemon_starts_again(desk: Desk) -> None:
    session = idle(desk)
    others = generic(desk, 3)
    wait_for(lambda: is_away(session))
    desk.live.restart()
    assert is_away(session)
    others[0].do("kill")
    assert is_away(session)
    session.turn("two")
    assert session.external_ids == [session.external_ids[0]] * 2


def test_nobody_makes_room_for_one_that_stays_away(desk: Desk) -> None:
    session = idle(desk)
    generic(desk, 2)
    other = desk.claude()
    wait_for(lambda: is_away(session))
    session.do("suspend")
    session.do("resume")
    ticked(desk.live)
    assert is_away(session)
    assert other.story() == BEGIN


@pytest.mark.parametrize("kind", ["claude", "generic"])
def test_processes_found_at_the_start_take_their_places(desk: Desk, kind: str) -> None:
    for _ in range(3):
        if kind == "claude":
            desk.claude().script(hold="go").send("work")
        else:
            desk.run(*CAT)
    desk.live.restart()
    assert_full(desk)
