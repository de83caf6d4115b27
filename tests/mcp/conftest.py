"""A live daemon, a session's token in a file, and the SDK's own client to speak with the server."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.types import TextContent

from daemon.mcp.server import make
from daemon.mcp.sessions import Sessions
from tests.support.live import LiveDaemon


class Caller:
    """Calls tools as a model does, and remembers which.

    Args:
        client: connected to the server.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.called: set[str] = set()
        self.heard: list[str] = []

    async def __call__(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool that succeeds, and return its answer."""
        done = await self.client.call_tool(tool, arguments)
        (content,) = done.content
        assert isinstance(content, TextContent)
        self.heard.append(content.text)
        assert not done.is_error, content.text
        assert json.loads(content.text) == done.structured_content
        self.called.add(tool)
        answer: dict[str, Any] = done.structured_content
        return answer

    async def refused(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool that fails, and return the problem."""
        done = await self.client.call_tool(tool, arguments)
        (content,) = done.content
        assert isinstance(content, TextContent)
        self.heard.append(content.text)
        assert done.is_error, content.text
        assert done.structured_content is None  # an answer of the tool's schema it is not
        problem: dict[str, Any] = json.loads(content.text)
        assert {"code", "detail", "hint", "retryable"} <= problem.keys()
        return problem


Connect = Callable[..., AbstractAsyncContextManager[Caller]]


@pytest.fixture
def token_file(tmp_path: Path, live: LiveDaemon) -> Path:
    """The token of a session of the agent `researcher`."""
    return write(tmp_path / "token", live.new_session(live.new_agent("researcher"))["token"])


@pytest.fixture
def connect(live: LiveDaemon, monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Serve the live daemon's session of a token file to the SDK's client, in this process."""
    for name in ("DAEMON_TOKEN_FILE", "DAEMON_SESSION_TOKEN", "DAEMON_URL"):
        monkeypatch.delenv(name, raising=False)

    @asynccontextmanager
    async def connected(token_file: Path | None, timeout: float = 5.0) -> AsyncIterator[Caller]:
        async with Sessions(token_file, home=live.root, timeout=timeout) as sessions, Client(make(sessions)) as client:
            yield Caller(client)

    return connected


def write(path: Path, token: str) -> Path:
    """Put a token into a file as its owner does."""
    path.write_text(f"{token}\n")
    path.chmod(0o600)
    return path
