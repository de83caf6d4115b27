"""A stand-in for the Claude Code CLI, as the daemon runs it: stream-json in and out, one `result` line a turn.

`install` puts it into a directory as `claude`. It answers every message at once with `You said: …`, at a cost of 0.01
USD and 110 tokens, unless the message is one of these:

    cost USD [WORDS]   the turn costs so much
    lines N            N answers instead of one
    long N             an answer of N characters
    tool               calls a tool, which never ends, until the turn is interrupted
    fail               ends the turn with an error
    env NAME           answers with the SHA-256 of a variable, or `unset`
    argv               answers with its arguments as JSON
    exit N             ends with this exit code, in the middle of the turn
    die                is killed, likewise

Of a conversation it keeps how many messages it has had, in `.fake-claude/ID` of the working directory, which is what
`--resume` needs: without that it says so and exits 1, as the real one does. Cost and tokens begin at nothing in each
run, and `--max-budget-usd` ends the turn that reaches it with an error.
"""

import argparse
import hashlib
import json
import os
import queue
import signal
import sys
import threading
from pathlib import Path
from typing import Any

MODEL = "claude-fake-1"
INPUT, OUTPUT = 100, 10
"""Tokens of each turn."""


def install(directory: Path) -> Path:
    """Put the stand-in into a directory, which is to be first in PATH, and return the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    command = directory / "claude"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -I {Path(__file__).resolve()} "$@"\n')
    command.chmod(0o755)
    return directory


class Claude:
    """One run.

    Args:
        options: the arguments that it knows.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._id = options.resume or options.session_id
        self._kept = Path(".fake-claude") / self._id
        self._before = 0
        self._turns = 0
        self._cost = 0.0
        self._last = ""
        self._lines: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def run(self) -> int:
        """Answer until the input ends."""
        if self._options.resume:
            if not self._kept.exists():
                errors = [f"No conversation found with session ID: {self._id}"]
                self._write(type="result", subtype="error_during_execution", is_error=True, num_turns=0, errors=errors)
                return 1
            self._before = int(self._kept.read_text())
        threading.Thread(target=self._read, daemon=True).start()
        while (line := self._lines.get()) is not None:
            if line.get("type") == "user":
                self._turn("".join(part["text"] for part in line["message"]["content"]))
            elif line.get("type") == "control_request":
                self._confirm(line)  # there is no turn to interrupt
        return 0

    def _read(self) -> None:
        for line in sys.stdin:
            self._lines.put(json.loads(line))
        self._lines.put(None)

    def _write(self, **line: Any) -> None:
        sys.stdout.write(json.dumps({**line, "session_id": self._id}) + "\n")
        sys.stdout.flush()

    def _confirm(self, request: dict[str, Any]) -> None:
        response = {"subtype": "success", "request_id": request["request_id"]}
        self._write(type="control_response", response=response)

    def _turn(self, content: str) -> None:
        self._turns += 1
        self._kept.parent.mkdir(exist_ok=True)
        self._kept.write_text(str(self._before + self._turns))
        self._write(type="system", subtype="init", cwd=os.getcwd(), model=self._options.model or MODEL, tools=["Bash"])
        word, _, rest = content.partition(" ")
        match word:
            case "exit":
                sys.exit(int(rest))
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "tool":
                self._call_a_tool()
                return
            case "lines":
                for number in range(int(rest)):
                    self._say(f"line {number}")
            case _:
                self._say(self._answer(word, rest, content))
        cost = float(rest.split()[0]) if word == "cost" else 0.01
        self._end(f"You said: {content}" if word == "fail" else "", cost, failed=word == "fail")

    def _answer(self, word: str, rest: str, content: str) -> str:
        if word == "env":
            value = os.environ.get(rest)
            return "unset" if value is None else hashlib.sha256(value.encode()).hexdigest()
        if word == "argv":
            return json.dumps(sys.argv[1:])
        return "x" * int(rest) if word == "long" else f"You said: {content}"

    def _say(self, text: str) -> None:
        self._last = text
        self._message("assistant", {"type": "text", "text": text})

    def _message(self, role: str, part: dict[str, Any]) -> None:
        message = {"role": role, "content": [part]}
        if role == "assistant":
            message |= {"id": f"msg_{self._turns}", "type": "message", "model": self._options.model or MODEL}
        self._write(type=role, message=message, parent_tool_use_id=None)

    def _call_a_tool(self) -> None:
        """Call a tool, and wait for what ends the turn."""
        self._message("assistant", {"type": "tool_use", "id": f"toolu_{self._turns}", "name": "Bash", "input": {}})
        while (line := self._lines.get()) is not None:
            if line.get("type") == "control_request":
                self._confirm(line)
                self._message("user", {"type": "text", "text": "[Request interrupted by user for tool use]"})
                self._end("", 0.01, failed=True, subtype="error_during_execution", terminal_reason="aborted_tools")
                return
        sys.exit(0)

    def _end(self, result: str, cost: float, *, failed: bool, subtype: str = "success", **more: Any) -> None:
        self._cost += cost
        most = self._options.max_budget_usd
        if most is not None and self._cost >= most and subtype == "success":
            failed, subtype = True, "error_max_budget_usd"
        used = {
            "inputTokens": INPUT * self._turns,
            "outputTokens": OUTPUT * self._turns,
            "cacheReadInputTokens": 0,
            "cacheCreationInputTokens": 0,
            "costUSD": self._cost,
        }
        said = {"result": result or self._last} if subtype == "success" else {}
        self._write(
            type="result",
            subtype=subtype,
            is_error=failed,
            num_turns=1,
            **said,
            total_cost_usd=self._cost,
            usage={"input_tokens": INPUT, "output_tokens": OUTPUT},
            modelUsage={self._options.model or MODEL: used},
            **{"terminal_reason": "completed", **more},
        )


def main() -> int:
    """Run as the daemon calls it; what it does not know is an error, as with the real one."""
    parser = argparse.ArgumentParser(prog="claude", allow_abbrev=False)
    parser.add_argument("-p", action="store_true", required=True)
    parser.add_argument("--input-format", choices=["stream-json"], required=True)
    parser.add_argument("--output-format", choices=["stream-json"], required=True)
    parser.add_argument("--verbose", action="store_true", required=True)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--session-id")
    which.add_argument("--resume")
    parser.add_argument("--model")
    parser.add_argument("--max-turns", type=int)
    parser.add_argument("--append-system-prompt")
    parser.add_argument("--allowedTools")
    parser.add_argument("--max-budget-usd", type=float)
    return Claude(parser.parse_args()).run()


if __name__ == "__main__":
    sys.exit(main())
