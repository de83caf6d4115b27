"""A Messages API as Claude Code speaks to it: what is answered, held and refused is said by the test.

Run as a process it prints its port and echoes what it is told, until it is interrupted or terminated.
"""

import argparse
import itertools
import json
import math
import signal
import threading
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.support.services.base import ClosedError, FakeService, Received, Reply, TooMany, json_reply

PING = 5  # seconds between the signs of life of an answer that is held
REMINDER = "<system-reminder>"  # begins what the client adds to the user's words
KINDS: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


@dataclass(frozen=True)
class Usage:
    """The tokens that an answer is said to have cost."""

    input_tokens: int = 100
    output_tokens: int = 10
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0


@dataclass(frozen=True)
class Text:
    """Says this, and ends the turn."""

    text: str


@dataclass(frozen=True)
class ToolUse:
    """Wants a tool to be run, as `ToolUse("Bash", {"command": "ls"})`."""

    name: str
    input: Mapping[str, Any]


@dataclass(frozen=True)
class ApiError:
    """Refuses with this status in the form of the API."""

    status: int
    message: str = "refused by the test"


@dataclass(frozen=True)
class Held:
    """Begins an answer, and goes on when it is released.

    Args:
        answer: what follows.
        reached: set when the answer was begun.
        released: set by the test.
    """

    answer: Text | ToolUse
    reached: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)


Answer = Text | ToolUse | ApiError | Held


class FakeMessagesApi(FakeService):
    """An API that takes any key.

    Args:
        journal: a file that gets each request as a line of JSON.

    Attributes:
        answers: what the next messages are answered, one each.
        otherwise: what they are answered when there is none; None: `echo: ` and the user's last words.
        usage: what each answer costs.
        messages: the bodies of the requests for a message, in order.
    """

    def __init__(self, journal: Path | None = None) -> None:
        super().__init__()
        self.answers: deque[Answer] = deque()
        self.otherwise: Answer | None = None
        self.usage = Usage()
        self.messages: list[dict[str, Any]] = []
        self._journal = journal
        self._ids = itertools.count(1)

    def reply_with(self, *answers: Answer) -> None:
        """Answer the next messages with these, one each, in order."""
        with self.changed:
            self.answers.extend(answers)

    def release(self, held: Held) -> None:
        """Let an answer that is held go on."""
        with self.changed:
            held.released.set()
            self.changed.notify_all()

    def sends(self, request: Received) -> bool:
        """Return whether a request asks for a message."""
        return request.method == "POST" and request.path == "/v1/messages"

    def too_many(self, fault: TooMany) -> Reply:
        """Return 429 with `Retry-After`, which is all that the API knows, or without."""
        headers = {} if fault.where == "body" else {"Retry-After": str(math.ceil(fault.seconds))}
        return _error(ApiError(429), headers)

    def answer(self, request: Received) -> Reply:
        """Answer a request; https://docs.claude.com/en/api/messages-streaming."""
        self._write_down(request)
        if self.sends(request):
            return self._message(request.json())
        if request.path == "/v1/messages/count_tokens":
            return json_reply(200, {"input_tokens": self.usage.input_tokens})
        if request.path == "/":
            return json_reply(200, {})
        return _error(ApiError(404, f"there is no {request.path}"))

    def _write_down(self, request: Received) -> None:
        if self._journal is None:
            return
        body = request.body.decode(errors="replace")
        line = {"method": request.method, "path": request.path, "headers": dict(request.headers), "body": body}
        with self.changed, self._journal.open("a", encoding="utf-8") as journal:
            journal.write(json.dumps(line) + "\n")

    def _message(self, body: dict[str, Any]) -> Reply:
        with self.changed:
            self.messages.append(body)
            answer = self.answers.popleft() if self.answers else self.otherwise or Text(f"echo: {last_words(body)}")
            number = next(self._ids)
            usage = self.usage
            self.changed.notify_all()
        if isinstance(answer, ApiError):
            return _error(answer)
        events = self._events(answer, number, usage, body.get("model", ""))
        if body.get("stream"):
            return Reply(200, (_sse(event) for event in events), {"Content-Type": "text/event-stream"})
        return json_reply(200, _whole(events))

    def _events(
        self, answer: Text | ToolUse | Held, number: int, usage: Usage, model: str
    ) -> Generator[dict[str, Any], None, None]:
        """Give the events of an answer.

        Raises:
            ClosedError: the service ends while the answer is held.
        """
        head = {"id": f"msg_{number:024d}", "type": "message", "role": "assistant", "model": model, "content": []}
        unstopped = {"stop_reason": None, "stop_sequence": None, "usage": {**asdict(usage), "output_tokens": 1}}
        yield {"type": "message_start", "message": head | unstopped}
        if isinstance(answer, Held):
            answer.reached.set()
            while not self._released(answer):
                yield {"type": "ping"}
            answer = answer.answer
        if isinstance(answer, Text):
            block: dict[str, Any] = {"type": "text", "text": ""}
            delta, reason = {"type": "text_delta", "text": answer.text}, "end_turn"
        else:
            block = {"type": "tool_use", "id": f"toolu_{number:024d}", "name": answer.name, "input": {}}
            delta, reason = {"type": "input_json_delta", "partial_json": json.dumps(answer.input)}, "tool_use"
        yield {"type": "content_block_start", "index": 0, "content_block": block}
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
        yield {"type": "content_block_stop", "index": 0}
        stop = {"stop_reason": reason, "stop_sequence": None}
        yield {"type": "message_delta", "delta": stop, "usage": asdict(usage)}
        yield {"type": "message_stop"}

    def _released(self, held: Held) -> bool:
        with self.changed:
            self.changed.wait_for(lambda: held.released.is_set() or self.closing.is_set(), PING)
            if self.closing.is_set():
                raise ClosedError
            return held.released.is_set()


def last_words(body: Mapping[str, Any]) -> str:
    """Return the last text of the user in a request, without what the client added to it."""
    for message in reversed(body["messages"]):
        content = message["content"] if message["role"] == "user" else []
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        texts = [block["text"] for block in blocks if block["type"] == "text"]
        own = [text for text in texts if not text.startswith(REMINDER)]
        if own:
            return str(own[-1])
    return ""


def _error(error: ApiError, headers: Mapping[str, str] | None = None) -> Reply:
    kind = KINDS.get(error.status, "api_error")
    return json_reply(error.status, {"type": "error", "error": {"type": kind, "message": error.message}}, headers)


def _sse(event: Mapping[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def _whole(events: Generator[dict[str, Any], None, None]) -> dict[str, Any]:
    """Return the message that the events tell of."""
    message: dict[str, Any] = {}
    for event in events:
        match event:
            case {"message": head}:
                message = head
            case {"content_block": block}:
                message["content"].append(block)
            case {"delta": {"text": text}}:
                message["content"][-1]["text"] = text
            case {"delta": {"partial_json": text}}:
                message["content"][-1]["input"] = json.loads(text)
            case {"type": "message_delta", "delta": stop, "usage": usage}:
                message |= stop | {"usage": usage}
    return message


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, choices=[0], default=0, help="0: any that is free; it is printed")
    parser.add_argument("--journal", type=Path, help="a file that gets each request as a line of JSON")
    options = parser.parse_args(arguments)
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # before there are threads, so that none of them takes it
    with FakeMessagesApi(options.journal) as fake:
        print(fake.url.rpartition(":")[2], flush=True)
        signal.sigwait(ends)


if __name__ == "__main__":
    main()
