"""`daemon db copy` of many sessions: 100,000 in a campaign."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

from daemon.home import Home
from tests.bench.prepare import add_conversations, make_home
from tests.maintenance.test_copy import address, rows
from tests.support import postgres
from tests.support.daemon_process import REPOSITORY, cli, environment
from tests.support.live import FakeTime, LiveDaemon
from tests.support.terminal import at_terminal


def test_many_sessions_go_there_and_back_row_by_row_also_after_an_interruption(
    tmp_path: Path, database_url: str, campaign: bool
) -> None:
    many, root = 100_000 if campaign else 1_000, tmp_path / "home"
    made = make_home(root, many, many)
    bound = dict(add_conversations(root, made, many))
    started = LiveDaemon(root, FakeTime(int(time.time())))
    started.new_session()
    started.stop()
    source, returned = Home.resolve(root, {}).database, tmp_path / "back.db"
    before = rows(source)
    assert len(before["sessions"]) == len(before["conversations"]) + 1 == many + 1
    there = ["db", "copy", "--from", address(source), "--to", database_url]
    _kill_midway([sys.executable, "-m", "daemon", *there], root)
    assert postgres.ask(database_url, "SELECT count(*) FROM sessions")[0][0] in {0, many + 1}
    code, screen = at_terminal([sys.executable, "-m", "daemon", *there], environment(root, TERM="xterm"), {})
    assert (code, "100%" in screen or "nothing to do" in screen) == (0, True), screen
    assert rows(database_url) == before
    assert json.loads(cli(root, *there, "--json").out)["changed"] is False
    head = postgres.ask(database_url, "SELECT id, hash FROM audit_head")
    assert head == [before["audit_log"][-1][:1] + before["audit_log"][-1][-1:]]
    back = cli(root, "db", "copy", "--from", database_url, "--to", address(returned), timeout=120)
    assert (back.code, rows(returned)) == (0, before), back.err
    live = LiveDaemon(root, FakeTime(int(time.time())), DAEMON_DATABASE_URL=database_url)
    try:
        for _, token in random.Random(1).sample(made.sessions, 50):
            agent = live.agent(token)
            assert agent.get("/v1/session").status_code == 200
            assert agent.get(f"/v1/conversations/{bound[token]}").json()["provider"] == "anthropic"
    finally:
        live.stop()


def _kill_midway(command: list[str], root: Path) -> None:
    """Kill a copy when it says that it writes to the target."""
    with subprocess.Popen(
        command, env=environment(root), cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert any("copying to the target" in line for line in process.stderr)
        process.kill()
