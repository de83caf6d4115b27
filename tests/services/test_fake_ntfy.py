"""The fake ntfy refuses, streams and taps as ntfy and its app do."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.services.fake_client import client
from tests.support.services import Status, TooMany
from tests.support.services.ntfy import FakeNtfy


def publish(fake: FakeNtfy, topic: str = "owner", *, token: str | None = None, **body: Any) -> httpx.Response:
    with client(fake, **({"Authorization": f"Bearer {token}"} if token else {})) as http:
        return http.post("/", json={"topic": topic, "message": "hello", **body})


@pytest.fixture
def ntfy() -> Iterator[FakeNtfy]:
    with FakeNtfy(keepalive=0.05) as fake:
        yield fake


def test_ntfy_takes_json_and_headers_and_keeps_what_it_took(ntfy: FakeNtfy) -> None:
    with client(ntfy) as http:
        assert http.get("/v1/health").json() == {"healthy": True}
        plain = http.put("/owner", content="세션", headers={"Title": "t", "Priority": "high", "Tags": "a,b"})
    made = publish(ntfy, title="세션 갱신", priority=3, tags=["key"], click="https://a.b").json()
    assert ntfy.messages["owner"] == [plain.json(), made]
    assert {**plain.json(), "title": "t", "priority": 4, "tags": ["a", "b"], "message": "세션"} == plain.json()


def action(fake: FakeNtfy, label: str = "Reject", **more: Any) -> dict[str, Any]:
    return {"action": "http", "label": label, "url": f"{fake.url}/replies", "body": "token", "clear": True, **more}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"topic": "a b"}, 40009),
        ({"topic": "x" * 65}, 40009),
        ({"topic": "docs"}, 40010),
        ({"priority": 6}, 40007),
        ({"priority": "high"}, 40024),
        ({"actions": [{"action": "http", "label": "a", "url": "http://b"}] * 4}, 40018),
        ({"actions": [{"action": "http", "label": "a"}]}, 40018),
        ({"actions": [{"action": "http", "url": "http://b"}]}, 40018),
        ({"message": "\\" * 4096}, 41303),
    ],
)
def test_what_ntfy_refuses_is_refused(ntfy: FakeNtfy, body: dict[str, Any], code: int) -> None:
    refused = publish(ntfy, **body)
    assert (refused.status_code, refused.json()["code"], refused.json()["http"]) == (code // 100, code, code // 100)
    assert ntfy.messages == {}


def test_a_message_that_is_too_long_for_ntfy_becomes_an_attachment(ntfy: FakeNtfy) -> None:
    publish(ntfy, message="x" * 4096)
    assert ntfy.attachments == []
    assert "attachment" in publish(ntfy, message="x" * 4097).json()
    assert ntfy.attachments == [("owner", b"x" * 4097)]


def test_a_protected_topic_needs_the_token_unless_everyone_may_write() -> None:
    with FakeNtfy("tk_secret", everyone_write=["replies"]) as ntfy:
        assert publish(ntfy).json()["code"] == 40301
        assert publish(ntfy, token="tk_wrong").json()["code"] == 40101
        assert publish(ntfy, token="tk_secret").status_code == 200
        assert publish(ntfy, "replies").status_code == 200
        with client(ntfy) as http:
            assert http.get("/replies/json?poll=1").status_code == 403


@pytest.mark.parametrize(("where", "header"), [("header", "2"), ("body", None)])
def test_ntfy_tells_how_long_to_wait_in_the_header_or_not_at_all(
    ntfy: FakeNtfy, where: Any, header: str | None
) -> None:
    ntfy.script(TooMany(2, where))
    limited = publish(ntfy)
    assert (limited.json()["code"], limited.headers.get("Retry-After")) == (42901, header)


def poll(fake: FakeNtfy, since: str) -> list[str]:
    with client(fake) as http:
        lines = http.get("/owner/json", params={"poll": "1", "since": since}).text.splitlines()
    return [json.loads(line)["message"] for line in lines]


def test_a_poll_answers_what_came_since(ntfy: FakeNtfy) -> None:
    first = publish(ntfy, message="a").json()
    publish(ntfy, message="b")
    publish(ntfy, "other", message="c")
    assert poll(ntfy, "all") == poll(ntfy, str(first["time"])) == poll(ntfy, "1h") == ["a", "b"]
    assert (poll(ntfy, first["id"]), poll(ntfy, "latest"), poll(ntfy, "none")) == (["b"], ["b"], [])


def test_a_stream_opens_stays_alive_brings_what_a_tap_publishes_and_can_be_cut(ntfy: FakeNtfy) -> None:
    message_id = publish(ntfy, actions=[action(ntfy)]).json()["id"]
    ntfy.script(Status(500))  # meets the next publication, but not the phone's
    with client(ntfy) as http, http.stream("GET", "/replies/json") as stream:
        lines = (json.loads(line) for line in stream.iter_lines())
        assert next(lines)["event"] == "open"
        assert next(lines)["event"] == "keepalive"
        assert ntfy.subscribers("replies") == 1
        assert ntfy.tap(message_id, "Reject") == 200
        assert next(line for line in lines if line["event"] == "message")["message"] == "token"
        ntfy.drop_streams()
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)
    assert ntfy.cleared == {message_id}
    assert ntfy.wait(lambda: ntfy.subscribers("replies") == 0)


def test_a_subscriber_that_dies_is_noticed_and_the_end_waits_for_no_stream() -> None:
    with FakeNtfy(keepalive=0.02) as ntfy:
        with client(ntfy) as http, http.stream("GET", "/replies/json") as stream:
            next(stream.iter_lines())
        ntfy.wait(lambda: ntfy.subscribers("replies") == 0)
    with FakeNtfy() as ntfy, client(ntfy) as http:
        stream = http.send(http.build_request("GET", "/replies/json"), stream=True)
        ntfy.wait(lambda: ntfy.subscribers("replies"))
    assert stream.status_code == 200
