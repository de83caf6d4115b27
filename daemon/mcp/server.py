"""The server itself: MCP on standard input and output, each call with the agent's own session."""

import asyncio
import logging
import signal
import sys
from typing import Any

import msgspec
from mcp import types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPError

from daemon import __version__
from daemon.client import ClientError
from daemon.domain.errors import DaemonError
from daemon.domain.reading import read
from daemon.mcp import problems
from daemon.mcp.sessions import Sessions
from daemon.mcp.tools import TOOLS, Tool, schema
from daemon.mcp.views import plain

_INSTRUCTIONS = (
    "You work as an agent with a session of the daemon on this machine. Your owner sees what the session does, and can "
    "suspend or end it at any time. Call session_status to learn who you are. A tool that fails answers JSON with "
    "`code`, `detail`, `hint`, `retryable` and, where it is known, `retryAfter` in seconds: do what the hint says. "
    "Stop working and ask the owner on SESSION_REVOKED, TOKEN_REUSED, TOKEN_EXPIRED and SYSTEM_LOCKED. Wait on "
    "SESSION_SUSPENDED and AGENT_SUSPENDED."
)

_log = logging.getLogger("daemon.mcp")
_BY_NAME = {tool.name: tool for tool in TOOLS}


def run(sessions: Sessions) -> None:
    """Answer a client until it closes standard input; what is to be said besides goes to standard error.

    Args:
        sessions: where the agent's session is.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(name)s: %(message)s")
    # The thread that reads standard input cannot be woken, and nothing here need be put in order.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        asyncio.run(_serve(sessions))
    except* BrokenPipeError:
        _log.warning("nobody reads the answers any more")


async def _serve(sessions: Sessions) -> None:
    server = make(sessions)
    async with sessions, stdio_server() as (received, sent):
        await server.run(received, sent, server.create_initialization_options())


def make(sessions: Sessions) -> Server[Any]:
    """Return the server, which speaks through no transport yet."""

    async def list_tools(_context: Any, _params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[_listed(tool) for tool in TOOLS])

    async def call_tool(_context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        tool = _BY_NAME.get(params.name)
        if tool is None:
            raise MCPError(code=types.INVALID_PARAMS, message=f"There is no tool {params.name}; see tools/list")
        return await _called(tool, params.arguments or {}, sessions)

    return Server(
        "daemon",
        version=__version__,
        title="Session authority for agents",
        description="Your session with the daemon on this machine: status, renewal, conversations, word to the owner.",
        instructions=_INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def _listed(tool: Tool) -> types.Tool:
    return types.Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=schema(tool.takes),
        output_schema=schema(tool.gives),
        annotations=types.ToolAnnotations(
            read_only_hint=tool.reads,
            destructive_hint=tool.replaces,
            idempotent_hint=tool.reads or tool.repeats,
            open_world_hint=tool.reaches_out,
        ),
    )


async def _called(tool: Tool, arguments: dict[str, Any], sessions: Sessions) -> types.CallToolResult:
    try:
        asked = read(arguments, tool.takes)
        answer = plain(await tool.call(sessions.current(), asked))
    except Exception as error:  # noqa: BLE001 (whatever it is, the model is told of it and the server goes on)
        if not isinstance(error, ClientError | DaemonError):
            _log.exception("%s failed", tool.name)
        return types.CallToolResult(content=[_text(problems.of(error))], is_error=True)
    return types.CallToolResult(content=[_text(answer)], structured_content=answer)


def _text(content: object) -> types.TextContent:
    """Return what clients show that know no structured content (MCP 2025-11-25, Tools)."""
    return types.TextContent(type="text", text=msgspec.json.encode(content).decode())
