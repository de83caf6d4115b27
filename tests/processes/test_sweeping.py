"""What is kept of sessions with processes, for how long, and how they are shown meanwhile."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

from daemon.running import Daemon
from tests.support.daemon_process import wait_for
from tests.support.live import LiveDaemon
from tests.support.supervised import CAT, Desk, Supervised, code

RETENTION = 86_400
OF_PROCESS = {"command", "pid", "startedAt", "exitCode", "signal", "reason", "restarts", "turns", "usage"}
OF_USAGE = {"turns", "inputTokens", "outputTokens", "cacheReadTokens", "cacheCreationTokens", "costUsd"}
OF_LIST = {"sessionId", "agentId", "command", "pid", "processes", "rss", "cpu", "state", "since", "turns", "costUsd"}


def sweep(live: LiveDaemon) -> None:
    """Sweep as the daemon does every minute and every hour."""

    async def both(daemon: Daemon) -> None:
        await daemon.parts.services.admin.sweep()
        await daemon.parts.supervisor.tidy()

    live.call(both)


def closed(desk: Desk) -> Supervised:
    """Return a session that is over; nothing is to be done with it after the test."""
    session = desk.sh("echo out; read -r line").says("out")
    session.do("kill")
    return desk.made.pop(desk.made.index(session))


# --- what is shown


def test_a_session_s_process_has_exactly_these_fields(desk: Desk) -> None:
    session = desk.run(*CAT)
    own = desk.live.agent(session.token).get("/v1/session").json()
    assert session.process.keys() == own["process"].keys() == OF_PROCESS
    assert session.process == own["process"]
    assert session.process["usage"].keys() == OF_USAGE
    assert session.process == {
        "command": [*CAT],
        "pid": session.pid,
        "startedAt": int(desk.live.time.wall),
        "exitCode": None,
        "signal": None,
        "reason": None,
        "restarts": 0,
        "turns": 0,
        "usage": {**dict.fromkeys(OF_USAGE, 0), "costUsd": 0.0},
    }


def test_a_session_that_is_over_shows_how_its_process_ended(desk: Desk) -> None:
    session = desk.run(*CAT)
    session.do("kill")
    shown = session.process
    assert shown.keys() == OF_PROCESS
    assert (shown["pid"], shown["exitCode"], shown["signal"], shown["reason"]) == (None, None, 9, "killed")


def test_lists_of_sessions_show_no_process(desk: Desk) -> None:
    session = desk.run(*CAT)
    for path, query in (("/v1/sessions", {"agentId": session.agent_id}), ("/v1/owner/sessions", {})):
        (listed,) = [one for one in desk.live.owner.get(path, params=query).json() if one["id"] == session.id]
        assert "process" not in listed


def test_what_runs_is_listed_the_newest_first(desk: Desk) -> None:
    first = desk.sh("sleep 300 & sleep 300 & wait")
    desk.live.time.advance(1)
    second = desk.run(*CAT)
    closed(desk)
    desk.make("sh", "-c", "exit 3").wait("ERROR")
    wait_for(lambda: len(first.tree) == 3)
    listed = desk.live.owner.get("/v1/owner/processes").json()
    assert [one["sessionId"] for one in listed] == [second.id, first.id]
    assert {frozenset(one) for one in listed} == {frozenset(OF_LIST)}
    assert (listed[1]["processes"], listed[1]["pid"], listed[1]["state"]) == (3, first.pid, "READY")
    assert listed[1]["rss"] > 0
    assert listed[0]["command"] == [*CAT]


# --- what is kept


def test_a_session_that_is_over_is_kept_with_its_output_until_its_time_has_passed(desk: Desk) -> None:
    session = closed(desk)
    desk.live.time.advance(RETENTION - 1)
    sweep(desk.live)
    assert session.output() == "out\n"
    desk.live.time.advance(1)
    sweep(desk.live)
    assert code(desk.live.owner.get(session.path)) == (404, "SESSION_NOT_FOUND")
    assert code(desk.live.owner.get(f"{session.path}/output", params={"follow": "false"})) == (404, "SESSION_NOT_FOUND")
    assert not session.directory.exists()
    assert desk.live.query("SELECT count(*) FROM processes WHERE session_id = ?", session.id) == [(0,)]
    assert desk.live.query("SELECT count(*) FROM turns WHERE session_id = ?", session.id) == [(0,)]


def test_a_session_that_has_expired_is_kept_and_swept_like_any_other(desk: Desk) -> None:
    session = desk.make(*CAT, ttl=300, constraints={"maxRenewals": 0}).wait("READY")
    desk.made.remove(session)
    desk.live.time.advance(300)
    session.wait_closed()
    desk.live.time.advance(RETENTION)
    sweep(desk.live)
    assert code(desk.live.owner.get(session.path)) == (404, "SESSION_NOT_FOUND")
    wait_for(lambda: gone(session))


def gone(session: Supervised) -> bool:
    """Sweep once more, and return whether nothing is left: what just closed may be minded a moment longer."""
    sweep(session.live)
    return not session.directory.exists()


def test_what_lives_is_never_swept(desk: Desk) -> None:
    how = {"idleTimeout": 0, "maxDuration": 0}
    running = desk.make(*CAT, ttl=604_800, process=how).wait("READY")
    failed = desk.make("sh", "-c", "echo out; exit 3", ttl=604_800, process=how).wait("ERROR")
    held = desk.make(*CAT, ttl=604_800, process=how).wait("READY")
    held.do("suspend")
    desk.live.time.advance(3 * RETENTION)
    sweep(desk.live)
    assert [one.state for one in (running, failed, held)] == ["READY", "ERROR", "SUSPENDED"]
    assert failed.output() == "out\n"
    assert running.token_in_file == running.token
    assert running.pids


def test_directories_of_nobody_are_removed_and_nothing_else(desk: Desk) -> None:
    root = desk.live.home.processes
    lost = root / str(uuid.uuid4())
    lost.mkdir()
    (lost / "stdout").write_text("out\n")
    (root / "mine").mkdir(exist_ok=True)
    session = desk.run(*CAT)
    sweep(desk.live)
    assert not lost.exists()
    assert (root / "mine").is_dir()
    assert (root / "home-id").is_file()
    assert session.directory.is_dir()


def test_a_session_that_is_refused_leaves_no_directory(desk: Desk) -> None:
    agent = desk.live.new_agent()
    desk.live.owner.post(f"/v1/agents/{agent}/suspend").raise_for_status()
    before = set(desk.live.home.processes.iterdir())
    assert code(desk.ask(*CAT, agent=agent)) == (409, "AGENT_SUSPENDED")
    assert set(desk.live.home.processes.iterdir()) == before


def test_tidying_takes_no_directory_from_a_session_that_is_being_made(desk: Desk) -> None:
    over = threading.Event()

    def tidy() -> None:
        while not over.is_set():
            desk.live.call(lambda daemon: daemon.parts.supervisor.tidy())

    tidying = threading.Thread(target=tidy)
    tidying.start()
    try:
        agents = [desk.live.new_agent() for _ in range(4)]
        with ThreadPoolExecutor(4) as several:
            answers = list(several.map(lambda number: desk.ask(*CAT, agent=agents[number % 4]), range(40)))
    finally:
        over.set()
        tidying.join()
    made = [Supervised(desk.live, answer.json()) for answer in answers if answer.status_code == 201]
    robbed = [one for one in made if not one.directory.is_dir()]
    desk.made += [one for one in made if one not in robbed]
    for one in robbed:  # which may never be CLOSED
        one.post("kill")
    assert [answer.status_code for answer in answers] == [201] * len(answers)
    assert robbed == []
    for session in made:
        session.wait("READY")
        assert session.token_in_file == session.token
