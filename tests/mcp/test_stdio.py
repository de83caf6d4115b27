"""The process: nothing but the protocol on standard output, whatever comes in, and an end in good order."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.mcp.tools import TOOLS, schema
from tests.support.daemon_process import REPOSITORY, UNTRACED, cli, environment

HELLO = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}
Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start servers, which end with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(**env: str | None) -> "subprocess.Popen[bytes]":
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "daemon", "mcp"],
                env=environment(tmp_path / "none", **env),
                cwd=REPOSITORY,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def say(process: "subprocess.Popen[bytes]", line: bytes) -> None:
    """Write a line to a server."""
    assert process.stdin is not None
    process.stdin.write(line + b"\n")
    process.stdin.flush()


def ask(process: "subprocess.Popen[bytes]", number: int, method: str, **params: Any) -> dict[str, Any]:
    """Send a request and return what is answered to it; every line before it is one of the protocol, too."""
    say(process, json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode())
    assert process.stdout is not None
    for line in process.stdout:
        message: dict[str, Any] = json.loads(line)
        assert message["jsonrpc"] == "2.0"
        if message.get("id") == number:
            return message
    raise AssertionError("the server has ended")


GARBAGE = [
    b"",
    b"hello",
    b"\xff\xfe\x00",
    b"[" * 100_000,
    b'{"jsonrpc":"2.0","id":50,"method":"tools/call","params":{"name":"publish_report","arguments":{"title":"\\ud800"}}}',
    b'{"jsonrpc":"2.0","id":51,"method":"tools/call","params":{"name":"publish_report","arguments":{"title":"t","details":'
    + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}}}",
    b'{"jsonrpc":"2.0","id":52,"method":"tools/call","params":{"name":7}}',
    b'{"jsonrpc":"2.0","id":53,"method":"tools/call","params":{"name":"session_status","arguments":[]}}',
    b'{"jsonrpc":"2.0","id":54,"method":"nonsense"}',
    b'{"jsonrpc":"2.0","id":55,"method":"tools/call","params":{"name":"publish_report","arguments":{"title":"'
    + b"x" * 2_000_000 + b'"}}}',
]  # fmt: skip


def test_nothing_but_the_protocol_is_written_whatever_is_sent(start: Start) -> None:
    server = start()
    greeted = ask(server, 1, "initialize", **HELLO)["result"]
    assert (greeted["serverInfo"]["name"], greeted["protocolVersion"]) == ("daemon", HELLO["protocolVersion"])
    say(server, b'{"jsonrpc":"2.0","method":"notifications/initialized"}')
    listed = ask(server, 2, "tools/list")["result"]["tools"]
    assert [(tool["name"], tool["inputSchema"]) for tool in listed] == [(one.name, schema(one.takes)) for one in TOOLS]
    for garbage in GARBAGE:
        say(server, garbage)
    answer = ask(server, 3, "tools/call", name="session_status", arguments={})
    assert answer["result"]["isError"] is True
    assert json.loads(answer["result"]["content"][0]["text"])["code"] == "NO_SESSION"
    out, err = server.communicate(timeout=20)
    assert (server.returncode, out) == (0, b"")
    assert b"Traceback" not in err


def test_an_interrupt_ends_it_at_once_and_without_a_word(start: Start) -> None:
    server = start(**UNTRACED)
    ask(server, 1, "initialize", **HELLO)
    server.send_signal(signal.SIGINT)
    assert server.wait(10) == -signal.SIGINT
    assert server.communicate() == (b"", b"")


def test_a_client_that_reads_no_more_ends_it_without_a_traceback(start: Start) -> None:
    server = start()
    ask(server, 1, "initialize", **HELLO)
    assert server.stdout is not None
    assert server.stdin is not None
    server.stdout.close()
    say(server, b'{"jsonrpc":"2.0","id":2,"method":"ping"}')
    server.stdin.close()
    assert server.wait(10) == 0
    assert server.stderr is not None
    assert server.stderr.read() == b"daemon.mcp: nobody reads the answers any more\n"


def test_without_the_extra_one_line_says_how_to_install_it(tmp_path: Path) -> None:
    script = "import sys; sys.modules['mcp'] = None; from daemon.cli.main import run; sys.exit(run(sys.argv[1:]))"
    for arguments in (["mcp"], ["mcp", "install", "--client", "claude-code"]):
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            env=environment(tmp_path, HOME=str(tmp_path)), input="", capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == (
            "error: The MCP server needs the MCP SDK — run: pip install 'agent-session-daemon[mcp]'\n"
        )
    assert list(tmp_path.iterdir()) == []


def test_closed_standard_streams_are_one_line(tmp_path: Path) -> None:
    command = f'exec "{sys.executable}" -m daemon mcp <&-'
    done = subprocess.run(
        ["sh", "-c", command], env=environment(tmp_path), cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: MCP is spoken on standard input and output")


def test_no_other_command_pays_for_the_sdk(tmp_path: Path) -> None:
    heavy = {"mcp", "mcp_types", "pydantic", "httpx", "asyncio", "daemon.client", "daemon.mcp.server"}
    script = f"import sys, daemon.cli.mcp; print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(tmp_path), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    assert cli(tmp_path, "mcp", "--help").code == 0
