"""A `claude` that a test scripts through files: it speaks stream-json, and notes what it was given.

It runs as a program, in the directory that the variable SCRIPTED names:

- `start`: JSON that is read when it starts: `exit` (with this code, at once), `stubborn` (ignores what asks it to end).
- `turn`: JSON that is read at each message: `cost` (USD), `tokens`, `hold` (name of a file to wait for), `fail` (the
  result is an error), `exit` and `signal` (it ends so, without a result), `silent` (there is no result).
- `notes`: what it notes, a JSON object a line: `run` (its arguments), `got` (a message), `end` (why it ended).
- `kept-ID`: there is a conversation ID that can be resumed.

Nothing but the standard library is imported: a test starts a hundred of them.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

ENOUGH = 60  # seconds
COST, TOKENS = 0.01, 10  # of a turn, where `turn` says nothing


def install(directory: Path) -> Path:
    """Put an executable `claude` into a directory, and return it."""
    directory.mkdir(exist_ok=True)
    path = directory / "claude"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -IS {Path(__file__).resolve()} "$@"\n')
    path.chmod(0o755)
    return path


class Scripted:
    """One run.

    Args:
        directory: with the files.
        arguments: of the command line.
    """

    def __init__(self, directory: Path, arguments: list[str]) -> None:
        self._directory = directory
        self._arguments = arguments
        resumed = "--resume" in arguments
        self._id = arguments[arguments.index("--resume" if resumed else "--session-id") + 1]
        self._resumes = resumed
        self._cost = 0.0
        self._tokens = 0

    def run(self) -> None:
        """Take turns until the input ends."""
        start = self._read("start")
        signal.signal(signal.SIGTERM, signal.SIG_IGN if start.get("stubborn") else self._asked)
        self._note(run=self._arguments)
        if "exit" in start:
            self._end("told", start["exit"])
        if self._resumes and not self._conversation.exists():
            self._say(type="result", subtype="error_during_execution", is_error=True, num_turns=0)
            self._end("nothing to resume", 1)
        for line in sys.stdin:
            said = json.loads(line)
            if said["type"] == "user":
                self._turn(said["message"]["content"][0]["text"])
        while start.get("stubborn"):
            time.sleep(ENOUGH)
        self._end("eof", 0)

    def _turn(self, text: str) -> None:
        turn = self._read("turn")
        self._note(got=text)
        if "hold" in turn:
            self._wait_for(self._directory / turn["hold"])
        if "exit" in turn:
            self._end("told", turn["exit"])
        if "signal" in turn:
            os.kill(os.getpid(), turn["signal"])
        self._conversation.touch()
        self._cost = round(self._cost + turn.get("cost", COST), 6)
        self._tokens += turn.get("tokens", TOKENS)
        if turn.get("silent"):
            return
        self._say(type="assistant", message={"content": [{"type": "text", "text": f"echo: {text}"}]})
        self._say(
            type="result",
            subtype="success",
            is_error=bool(turn.get("fail")),
            num_turns=1,
            result=f"echo: {text}",
            session_id=self._id,
            total_cost_usd=self._cost,
            modelUsage={"some-model": {"inputTokens": self._tokens, "outputTokens": 0}},
        )

    @property
    def _conversation(self) -> Path:
        return self._directory / f"kept-{self._id}"

    def _wait_for(self, path: Path) -> None:
        deadline = time.monotonic() + ENOUGH
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)

    def _asked(self, *_: object) -> None:
        self._end("TERM", 143)

    def _end(self, why: str, code: int) -> NoReturn:
        self._note(end=why)
        sys.stdout.flush()
        os._exit(code)

    def _read(self, name: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self._directory / name).read_text())
        except FileNotFoundError:
            return {}
        return found

    def _note(self, **what: object) -> None:
        descriptor = os.open(self._directory / "notes", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, json.dumps({**what, "pid": os.getpid()}).encode() + b"\n")
        os.close(descriptor)

    def _say(self, **line: object) -> None:
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    Scripted(Path(os.environ["SCRIPTED"]), sys.argv[1:]).run()
