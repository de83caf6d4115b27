"""What somebody does to a session's directory harms that session alone, and is told."""

import json
import random
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

from tests.support.daemon_process import wait_for
from tests.support.supervised import CAT, Desk, Supervised, code, ticked

FAMILY = "sleep 100 & sleep 200 & setsid sleep 300 & wait"


def test_sessions_that_are_killed_while_they_start_leave_nothing(desk: Desk) -> None:
    agent, chance = desk.live.new_agent(), random.Random(7)
    delays = [chance.random() * 0.4 for _ in range(16)]

    def start_and_kill(delay: float) -> tuple[Supervised, dict[str, object]]:
        session = desk.make("sh", "-c", FAMILY, agent=agent)
        threading.Event().wait(delay)  # any moment of a start may be the one
        return session, session.do("kill")

    with ThreadPoolExecutor(8) as several:
        ended = list(several.map(start_and_kill, delays))
    for session, answer in ended:
        assert (answer["state"], answer["processesLeft"]) == ("CLOSED", 0)
        assert session.pids == []


def test_a_directory_in_the_place_of_a_token_keeps_no_daemon_from_starting(desk: Desk) -> None:
    odd, other = desk.run(*CAT), desk.run(*CAT)
    (odd.directory / "token").unlink()
    (odd.directory / "token").mkdir()
    desk.live.restart()
    assert other.turn("hello").output() == "hello\n"
    odd.do("kill")
    odd.wait_closed()


def test_output_that_is_no_file_is_503_and_keeps_no_daemon_from_stopping(desk: Desk) -> None:
    odd, other = desk.run(*CAT), desk.run(*CAT)
    (odd.directory / "stdout").rename(odd.directory / "elsewhere")
    (odd.directory / "stdout").symlink_to("/etc/passwd")
    for follow in ("true", "false"):
        answer = odd.live.owner.get(f"{odd.path}/output", params={"follow": follow})
        assert code(answer) == (503, "STORAGE_UNAVAILABLE")
    ticked(desk.live)
    desk.live.restart()
    assert other.turn("hello").output() == "hello\n"
    odd.do("kill")


def test_a_process_that_cannot_be_spoken_with_any_more_is_ended_as_lost(desk: Desk) -> None:
    session = desk.run(*CAT)
    (session.directory / "stdin").unlink()
    (session.directory / "stdin").symlink_to("/dev/null")
    session.send("hello")
    session.wait("ERROR")
    assert session.process["reason"] == "lost"
    lines = map(json.loads, (desk.live.home.logs / "daemon.log").read_text().splitlines())
    assert any(line["event"] == "process.failed" and line["sessionId"] == session.id for line in lines)


def test_a_session_whose_directory_is_gone_can_still_be_ended(desk: Desk) -> None:
    session = desk.run(*CAT)
    shutil.rmtree(session.directory)
    session.do("kill")
    wait_for(lambda: session.state == "CLOSED")
