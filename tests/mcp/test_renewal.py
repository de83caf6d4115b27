"""The server keeps its session alive, and leaves a token alone that others hold."""

import time
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from tests.mcp.conftest import Connect, write
from tests.support.daemon_process import wait_for
from tests.support.live import FakeTime, LiveDaemon

TERM, LEFT = 300, 4
"""Seconds of a session's term, and how many of them are left: after 0.55 to 0.65 of these it would be renewed."""


@pytest.fixture
def live(launch: Callable[..., LiveDaemon]) -> LiveDaemon:
    """A daemon whose sessions of `TERM` seconds are near their end by this machine's clock."""
    return launch(time=FakeTime(int(time.time()) - TERM + LEFT))


async def test_a_token_in_a_file_is_renewed_while_nobody_calls_and_one_in_the_environment_never(
    live: LiveDaemon, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lent, filed = live.new_session(ttl=TERM), live.new_session(ttl=TERM + LEFT // 2)  # so that it is due later
    token_file = write(tmp_path / "token", filed["token"])
    live.time.advance(TERM - LEFT)
    monkeypatch.setenv("DAEMON_SESSION_TOKEN", lent["token"])
    async with connect(None) as of_environment, connect(token_file) as of_file:
        await anyio.to_thread.run_sync(wait_for, lambda: token_file.read_text().strip() != filed["token"])
        status = await of_environment("session_status")
        assert (status["id"], status["renewalCount"]) == (lent["id"], 0)
        refused = await of_environment.refused("renew_session")
        assert (refused["code"], refused["retryable"]) == ("TOKEN_NOT_RENEWABLE", False)
        assert "--token-file" in refused["hint"]
        assert (await of_file("session_status"))["renewalCount"] == 1
    assert live.owner.get(f"/v1/sessions/{lent['id']}").json()["generation"] == 1
