"""Turns: messages to a supervised session, one at a time, whoever sends them and however its process reads them."""

import sys
import time as wall
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from daemon.domain.errors import DaemonError
from daemon.domain.events import Origin
from daemon.domain.requests import Message
from daemon.running import Daemon
from tests.support.daemon_process import wait_for
from tests.support.supervised import BEGIN, CAT, Desk, ScriptedClaude, Supervised, code, pass_time

QUICK: dict[str, Any] = {"quietAfter": 50}


def held(desk: Desk, **more: Any) -> ScriptedClaude:
    """Return a session in the middle of its first turn, which goes on when `go` is there."""
    session = desk.claude(**more).script(hold="go")
    session.send("1")
    return session


def by_token(session: Supervised, content: str, to: Supervised | None = None, **body: Any) -> httpx.Response:
    """Send a message with a session's own token."""
    path = (to or session).path
    return session.live.agent(session.token).post(f"{path}/messages", json={"content": content, **body})


# --- one at a time


def test_turns_have_increasing_numbers(desk: Desk) -> None:
    session = desk.claude()
    for number in (1, 2, 3):
        assert session.post("messages", content="hello").json() == {"turn": number}
        session.wait("IDLE")
    assert session.process["turns"] == 3
    assert session.notes("got") == ["hello"] * 3


def test_a_busy_session_refuses_a_message_that_may_not_wait(desk: Desk) -> None:
    session = held(desk)
    answer = session.post("messages", content="2")
    assert code(answer) == (409, "SESSION_BUSY")
    assert (answer.json()["retryable"], answer.json()["details"]) == (True, {"state": "ACTIVE", "queued": 0})
    assert answer.headers["retry-after"] == "1"
    assert session.story() == [*BEGIN, "started"]
    session.release("go")
    session.wait("IDLE")
    assert session.send("3") == 2


def test_of_messages_that_come_at_once_one_is_taken(desk: Desk) -> None:
    session = desk.claude().script(hold="go")
    with ThreadPoolExecutor(8) as several:
        answers = list(several.map(lambda number: session.post("messages", content=str(number)), range(8)))
    assert sorted(code(answer) for answer in answers) == [(202, None)] + [(409, "SESSION_BUSY")] * 7
    session.release("go")
    session.wait("IDLE")
    assert len(session.notes("got")) == 1


def test_messages_that_wait_are_bounded_and_taken_in_order(desk: Desk) -> None:
    session = held(desk)
    for number in range(2, 18):
        assert session.send(str(number), queue=True) == number
    refused = session.post("messages", content="too many", queue=True)
    assert code(refused) == (409, "SESSION_BUSY")
    assert refused.json()["details"] == {"state": "ACTIVE", "queued": 16}
    session.release("go")
    wait_for(lambda: session.process["turns"] == 17)
    session.wait("IDLE")
    assert session.notes("got") == [str(number) for number in range(1, 18)]
    turns = [one for one in session.story()[len(BEGIN) :] if one != "updated turns"]
    expected = ["started", "ACTIVE>IDLE 1 done"]
    for number in range(2, 18):
        expected += [f"IDLE>ACTIVE {number}", f"ACTIVE>IDLE {number} done"]
    assert turns == expected


def test_a_message_that_waits_is_told_before_it_begins(desk: Desk) -> None:
    session = held(desk)
    session.send("2", queue=True)
    session.release("go")
    wait_for(lambda: session.process["turns"] == 2)
    session.tells(*BEGIN, "started", "updated turns", "ACTIVE>IDLE 1 done", "IDLE>ACTIVE 2", "ACTIVE>IDLE 2 done")


def test_messages_may_wait_for_a_session_that_is_about_to_run(desk: Desk) -> None:
    session = desk.make_claude()
    session.send("1", queue=True)
    session.send("2", queue=True)
    wait_for(lambda: session.process["turns"] == 2)
    assert session.notes("got") == ["1", "2"]


def test_messages_may_wait_for_a_suspended_session(desk: Desk) -> None:
    session = desk.claude()
    session.do("suspend")
    assert session.send("1", queue=True) == 1
    assert session.state == "SUSPENDED"
    session.do("resume")
    wait_for(lambda: session.process["turns"] == 1)
    assert session.story() == [
        *BEGIN,
        "suspended by owner",
        "updated turns",
        "resumed",
        "started",
        "ACTIVE>IDLE 1 done",
    ]


def test_a_turn_that_fails_is_over_and_the_next_begins(desk: Desk) -> None:
    session = desk.claude().script(fail=True)
    session.send("1")
    session.tells(*BEGIN, "started", "ACTIVE>IDLE 1 failed")
    session.script()
    session.turn("2")
    assert session.process["turns"] == 2


def test_a_turn_whose_process_is_gone_is_not_begun_twice(desk: Desk) -> None:
    session = desk.claude().script(signal=9)
    session.send("1")
    session.wait("ERROR")
    session.script().do("resume")
    session.wait("READY")
    session.turn("2")
    assert session.notes("got") == ["1", "2"]
    assert [state for _, state in turns_of(session)] == ["UNKNOWN", "DONE"]


def turns_of(session: Supervised) -> list[tuple[int, str]]:
    found = session.live.query("SELECT turn, state, content FROM turns WHERE session_id = ? ORDER BY turn", session.id)
    assert {content for _, state, content in found if state not in {"QUEUED", "RUNNING"}} <= {None}
    return [(number, state) for number, state, _ in found]


def test_what_waits_when_a_session_is_closed_is_never_begun(desk: Desk) -> None:
    session = held(desk)
    session.send("2", queue=True)
    session.do("kill")
    assert turns_of(session) == [(1, "UNKNOWN"), (2, "INTERRUPTED")]
    assert session.notes("got") == ["1"]


def test_an_expired_session_takes_no_message_even_before_anybody_has_seen_that_it_expired(desk: Desk) -> None:
    session = desk.make(*CAT, ttl=300).wait("READY")

    async def send(daemon: Daemon) -> str:
        desk.live.time.advance(300)  # nothing else runs between this and the transaction
        asked = Message(content="hello", queue=True)
        try:
            await daemon.parts.services.processes.send(session.id, asked, Origin("owner"), by_agent=False)
        except DaemonError as refusal:
            return refusal.code
        return "taken"

    assert desk.live.call(send) == "INVALID_STATE_TRANSITION"


# --- by the session's own token


def test_a_session_s_own_token_sends_and_reads_its_own_session(desk: Desk) -> None:
    session = desk.run(*CAT, **QUICK)
    answer = by_token(session, "hello")
    assert (answer.status_code, answer.json()) == (202, {"turn": 1})
    session.says("hello\n").wait("IDLE")
    mine = desk.live.agent(session.token).get(f"{session.path}/output", params={"follow": "false"})
    assert (mine.status_code, mine.text) == (200, "hello\n")
    assert [one["actor"] for one in session.events() if one["type"] == "SESSION_STARTED"] == [
        f"agent:{session.agent_id}"
    ]


def test_a_session_s_own_token_knows_nothing_of_another_session(desk: Desk) -> None:
    session = desk.run(*CAT)
    sibling, stranger = desk.run(*CAT, agent=session.agent_id), desk.run(*CAT)
    client = desk.live.agent(session.token)
    for other in (sibling, stranger):
        assert code(by_token(session, "hello", other)) == (404, "SESSION_NOT_FOUND")
        assert code(client.get(f"{other.path}/output", params={"follow": "false"})) == (404, "SESSION_NOT_FOUND")
        assert code(client.get(f"{other.path}/output")) == (404, "SESSION_NOT_FOUND")
        assert code(client.get(other.path)) == (401, "INVALID_MASTER_PASSWORD")
        assert code(client.post(f"{other.path}/kill")) == (401, "INVALID_MASTER_PASSWORD")
        assert other.story() == BEGIN
    assert code(client.post(f"{session.path}/kill")) == (401, "INVALID_MASTER_PASSWORD")


@pytest.mark.parametrize(
    ("allowed", "sends", "reads"),
    [(["session.*"], 403, 403), (["messages.*"], 202, 403), (["output.read"], 403, 200), (["*"], 202, 200)],
)
def test_allowed_operations_are_those_of_messages_and_output_too(
    desk: Desk, allowed: list[str], sends: int, reads: int
) -> None:
    session = desk.make(*CAT, constraints={"allowedOperations": allowed}, process=QUICK).wait("READY")
    sent = by_token(session, "hello")
    read = desk.live.agent(session.token).get(f"{session.path}/output", params={"follow": "false"})
    assert (sent.status_code, read.status_code) == (sends, reads)
    for answer in (sent, read):
        assert answer.status_code < 300 or answer.json()["code"] == "CONSTRAINT_VIOLATED"
    assert session.post("messages", content="hello", queue=True).status_code == 202  # its owner is not bound by them


def test_a_suspended_session_s_own_token_sends_nothing(desk: Desk) -> None:
    session = desk.run(*CAT)
    session.do("suspend")
    assert code(by_token(session, "hello", queue=True)) == (403, "SESSION_SUSPENDED")
    assert session.story() == [*BEGIN, "suspended by owner"]


# --- for idleness


@pytest.mark.parametrize("kind", ["claude", "generic"])
def test_a_message_to_a_session_that_is_suspended_for_idleness_resumes_it(desk: Desk, kind: str) -> None:
    session = desk.claude(idleTimeout=60) if kind == "claude" else desk.run(*CAT, idleTimeout=60, **QUICK)
    session.turn("1")
    first = session.pid
    pass_time(desk.live, 59)
    assert session.state == "IDLE"
    pass_time(desk.live, 1)
    session.wait("SUSPENDED")
    if kind == "claude":  # it can go on later where it was, and is ended meanwhile
        wait_for(lambda: session.pids == [])
        assert session.process["pid"] is None
    else:
        wait_for(session.stopped)
    assert session.send("2") == 2
    wait_for(lambda: session.process["turns"] == 2)
    assert (session.pid == first) == (kind == "generic")
    story = [one for one in session.story() if not one.startswith("updated")]
    resumed = ["suspended by idle", "resumed", "READY>ACTIVE 2", "ACTIVE>IDLE 2 done"]
    assert story == [*BEGIN, "started", "ACTIVE>IDLE 1 done", *resumed]
    if isinstance(session, ScriptedClaude):
        assert session.external_ids == [session.external_ids[0]] * 2
        assert "--resume" in session.notes("run")[1]


def test_an_idle_session_is_never_suspended_where_that_is_asked_for(desk: Desk) -> None:
    session = desk.run(*CAT, idleTimeout=0)
    other = desk.run(*CAT)
    pass_time(desk.live, 1800)
    other.wait("SUSPENDED")
    assert session.state == "READY"


def test_a_session_in_the_middle_of_a_turn_is_not_idle(desk: Desk) -> None:
    session = held(desk, idleTimeout=60)
    pass_time(desk.live, 1000)
    assert session.state == "ACTIVE"


# --- what is in a message, and who reads it


def test_a_message_is_one_line_for_a_command_that_knows_nothing_of_turns(desk: Desk) -> None:
    session = desk.run(*CAT, **QUICK)
    session.turn("one\ntwo\r\nthree\u2028four\n\nfive")
    assert session.output() == "one two three four  five\n"


TEXT = 'häßlich 日本語 🙂 "quoted" \\ \t\u202e end'


def test_a_message_may_have_any_character(desk: Desk) -> None:
    session, claude = desk.run(*CAT, **QUICK).turn(TEXT), desk.claude().turn(f"{TEXT}\n{TEXT}")
    assert session.output() == f"{TEXT}\n"
    assert claude.notes("got") == [f"{TEXT}\n{TEXT}"]
    assert session.post("messages", content="nul\0").status_code == 400
    half = desk.live.owner.post(
        f"{session.path}/messages", content=b'{"content": "\\ud800"}', headers={"Content-Type": "application/json"}
    )
    assert half.status_code == 400
    assert session.post("messages", content="").status_code == 400


LONGEST = "x" * 262_144


def test_a_large_message_reaches_a_process_that_reads_slowly(desk: Desk) -> None:
    slow = "import os\nwhile data := os.read(0, 64): os.write(1, b'.' * len(data) if b'\\n' not in data else b'end\\n')"
    session = desk.run(sys.executable, "-IS", "-c", slow, **QUICK)
    began = wall.monotonic()
    session.send(LONGEST)
    assert wall.monotonic() - began < 5
    session.says("end")
    assert session.output().startswith("." * (262_144 - 64))
    session.wait("IDLE")
    assert session.post("messages", content=f"{LONGEST}x").status_code == 400


def test_a_process_that_never_reads_blocks_neither_the_daemon_nor_its_own_end(desk: Desk) -> None:
    session = desk.run("sleep", "300", **QUICK)
    session.send(LONGEST)
    for _ in range(7):  # a pipe has a mebibyte at most
        session.send(LONGEST, queue=True)
    wait_for(lambda: session.process["turns"] >= 3)
    assert session.state == "ACTIVE"
    began = wall.monotonic()
    assert desk.run(*CAT, **QUICK).turn("hello").output() == "hello\n"
    assert code(session.post("messages", content="hello")) == (409, "SESSION_BUSY")
    session.revoke()
    session.wait_closed()
    assert wall.monotonic() - began < 15


def test_silence_ends_a_turn_after_the_time_that_was_asked_for(desk: Desk) -> None:
    script = "while read -r line; do for n in 1 2 3; do echo $n; sleep 0.1; done; done"
    session = desk.sh(script, quietAfter=500)
    began = wall.monotonic()
    session.turn("count")
    assert wall.monotonic() - began > 0.7
    assert session.output().split() == ["1", "2", "3"]
