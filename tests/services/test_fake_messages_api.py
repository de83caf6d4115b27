"""The fake Messages API speaks as Claude Code expects it, and answers, holds and refuses as the test says."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.services.fake_client import client
from tests.support.services import TooMany
from tests.support.services.messages_api import ApiError, FakeMessagesApi, Held, Text, ToolUse, Usage

ROOT = Path(__file__).parents[2]


@pytest.fixture
def api() -> Iterator[FakeMessagesApi]:
    with FakeMessagesApi() as fake:
        yield fake


def question(text: str = "hello", **more: Any) -> dict[str, Any]:
    reminder = {"type": "text", "text": "<system-reminder>\nToday is Monday.\n</system-reminder>"}
    content = [reminder, {"type": "text", "text": text}]
    return {"model": "claude-test", "max_tokens": 9, "messages": [{"role": "user", "content": content}], **more}


def ask(api: FakeMessagesApi, text: str = "hello", path: str = "/v1/messages") -> httpx.Response:
    with client(api, **{"x-api-key": "key"}) as http:
        return http.post(path, json=question(text))


def stream(api: FakeMessagesApi, text: str = "hello") -> list[dict[str, Any]]:
    with client(api) as http:
        answer = http.post("/v1/messages?beta=true", json=question(text, stream=True))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
    frames = [frame.split("\n") for frame in answer.text.split("\n\n")[:-1]]
    events = [json.loads(data.removeprefix("data: ")) for _, data in frames]
    assert [name for name, _ in frames] == [f"event: {event['type']}" for event in events]
    return events


def test_an_answer_is_streamed_and_tells_what_it_cost(api: FakeMessagesApi) -> None:
    api.usage = Usage(7, 3, 2, 1)
    events = stream(api)
    assert [event["type"] for event in events] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert (events[0]["message"]["model"], events[0]["message"]["usage"]["output_tokens"]) == ("claude-test", 1)
    assert events[2]["delta"] == {"type": "text_delta", "text": "echo: hello"}
    assert events[4]["delta"]["stop_reason"] == "end_turn"
    assert events[4]["usage"] == {
        "input_tokens": 7,
        "output_tokens": 3,
        "cache_creation_input_tokens": 2,
        "cache_read_input_tokens": 1,
    }


def test_an_answer_may_come_whole_and_is_what_the_test_said(api: FakeMessagesApi) -> None:
    api.reply_with(ToolUse("Bash", {"command": "ls"}), ApiError(529), Text("done"))
    wanted = ask(api).json()
    assert (wanted["stop_reason"], wanted["content"][0]["name"]) == ("tool_use", "Bash")
    assert wanted["content"][0]["input"] == {"command": "ls"}
    refused = ask(api)
    assert (refused.status_code, refused.json()["error"]["type"]) == (529, "overloaded_error")
    assert ask(api).json()["content"] == [{"type": "text", "text": "done"}]
    assert ask(api).json()["content"] == [{"type": "text", "text": "echo: hello"}]
    assert [body["model"] for body in api.messages] == ["claude-test"] * 4
    assert api.requests[0].headers["x-api-key"] == "key"


def test_an_answer_is_held_until_the_test_releases_it(api: FakeMessagesApi) -> None:
    held = Held(Text("at last"))
    api.reply_with(held)
    events: list[dict[str, Any]] = []
    asking = threading.Thread(target=lambda: events.extend(stream(api)))
    asking.start()
    assert held.reached.wait(10)
    assert stream(api, "meanwhile")[2]["delta"]["text"] == "echo: meanwhile"
    assert events == []
    api.release(held)
    asking.join(10)
    assert [event["delta"]["text"] for event in events if event["type"] == "content_block_delta"] == ["at last"]


def test_a_held_answer_breaks_off_when_the_service_ends() -> None:
    held = Held(Text("never"))
    broken: list[Exception] = []

    def ask_in_vain() -> None:
        try:
            stream(api)
        except httpx.HTTPError as error:
            broken.append(error)

    with FakeMessagesApi() as api:
        api.reply_with(held)
        asking = threading.Thread(target=ask_in_vain)
        asking.start()
        assert held.reached.wait(10)
    asking.join(10)
    assert [type(error) for error in broken] == [httpx.RemoteProtocolError]


def test_refusals_have_the_form_of_the_api(api: FakeMessagesApi) -> None:
    api.script(TooMany(2, "header"))
    limited = ask(api)
    assert (limited.status_code, limited.headers["retry-after"]) == (429, "2")
    assert limited.json()["error"]["type"] == "rate_limit_error"
    api.otherwise = ApiError(401, "no such key")
    assert ask(api).json() == {"type": "error", "error": {"type": "authentication_error", "message": "no such key"}}
    assert ask(api, path="/v1/models").status_code == 404


def test_tokens_are_counted(api: FakeMessagesApi) -> None:
    assert ask(api, path="/v1/messages/count_tokens").json() == {"input_tokens": 100}
    assert api.messages == []


def test_it_runs_as_a_process_and_keeps_a_journal(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    command = [sys.executable, "-m", "tests.support.services.messages_api", "--port", "0", "--journal", str(journal)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        body = question("are you there?")
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/messages", json=body, timeout=10, trust_env=False)
        process.terminate()
        assert process.wait(10) == 0
    assert answer.json()["content"][0]["text"] == "echo: are you there?"
    (line,) = journal.read_text().splitlines()
    assert json.loads(json.loads(line)["body"]) == body
