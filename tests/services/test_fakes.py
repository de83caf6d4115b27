"""The fakes keep the rules of the services they stand for, so that tests against them prove something."""

import base64
import hashlib
import hmac
import json
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.services import Drop, FakeService, Garbage, Status, Timeout, TooMany
from tests.support.services.discord import FakeDiscord, markdown_links
from tests.support.services.ntfy import FakeNtfy
from tests.support.services.telegram import FakeTelegram
from tests.support.services.webhook import FakeWebhook

CHAT = 424_242


@pytest.fixture
def telegram() -> Iterator[FakeTelegram]:
    with FakeTelegram(chat_id=CHAT) as fake:
        yield fake


@pytest.fixture
def discord() -> Iterator[FakeDiscord]:
    with FakeDiscord() as fake:
        yield fake


def client(fake: FakeService, **headers: str) -> httpx.Client:
    return httpx.Client(base_url=fake.url, headers=headers, timeout=5, trust_env=False)


def bot(fake: FakeTelegram, method: str, **params: Any) -> httpx.Response:
    with client(fake) as http:
        return http.post(f"/bot{fake.token}/{method}", json=params)


def send(fake: FakeTelegram, text: str = "hello", **params: Any) -> httpx.Response:
    return bot(fake, "sendMessage", **{"chat_id": CHAT, "text": text, **params})


def keyboard(**button: str) -> dict[str, Any]:
    return {"inline_keyboard": [[{"text": "Reject", **button}]]}


def test_a_bot_sends_and_edits_and_the_message_keeps_its_history(telegram: FakeTelegram) -> None:
    assert bot(telegram, "getMe").json()["result"]["is_bot"] is True
    sent = send(telegram, r"*세션 갱신*\!", parse_mode="MarkdownV2", reply_markup=keyboard(callback_data="r:1")).json()
    message = telegram.messages[sent["result"]["message_id"]]
    assert sent["result"]["entities"] == [{"type": "bold", "offset": 0, "length": 5}]
    assert (message.sent.plain, message.sent.buttons()[0]["callback_data"]) == ("세션 갱신!", "r:1")
    edit = {"chat_id": CHAT, "message_id": message.message_id, "text": "done"}
    assert bot(telegram, "editMessageText", **edit).status_code == 200
    assert "message is not modified" in bot(telegram, "editMessageText", **edit).json()["description"]
    assert (len(message.edits), message.shown.plain, message.shown.reply_markup) == (1, "done", None)


@pytest.mark.parametrize(
    ("params", "description"),
    [
        ({"text": "a.b", "parse_mode": "MarkdownV2"}, "can't parse entities: Character '.' is reserved"),
        ({"text": " "}, "message text is empty"),
        ({"text": "**", "parse_mode": "MarkdownV2"}, "message text is empty"),
        ({"text": "🔄" * 2049}, "message is too long"),
        ({"chat_id": 1}, "chat not found"),
        ({"reply_markup": keyboard(callback_data="é" * 33)}, "BUTTON_DATA_INVALID"),
        ({"reply_markup": keyboard(url="http://localhost/reject")}, "Wrong HTTP URL"),
        ({"reply_markup": keyboard()}, "Text buttons are unallowed"),
    ],
)
def test_what_telegram_refuses_is_refused(telegram: FakeTelegram, params: dict[str, Any], description: str) -> None:
    refused = send(telegram, **{"text": "hello", **params})
    assert (refused.status_code, refused.json()["ok"], refused.json()["error_code"]) == (400, False, 400)
    assert refused.json()["description"].startswith("Bad Request: ")
    assert description in refused.json()["description"]
    assert telegram.messages == {}


def test_a_text_may_fill_the_limit_once_its_escapes_are_gone(telegram: FakeTelegram) -> None:
    assert send(telegram, "\\." * 4094 + "🔄", parse_mode="MarkdownV2").status_code == 200


def test_a_wrong_bot_token_is_unauthorized(telegram: FakeTelegram) -> None:
    with client(telegram) as http:
        assert http.post("/bot1:wrong/getMe").json()["error_code"] == 401


def test_a_press_wakes_a_long_poll_and_stays_until_it_is_acknowledged(telegram: FakeTelegram) -> None:
    message_id = send(telegram, reply_markup=keyboard(callback_data="r:1")).json()["result"]["message_id"]
    polls: list[list[dict[str, Any]]] = []
    poll = threading.Thread(target=lambda: polls.append(bot(telegram, "getUpdates", timeout=20).json()["result"]))
    poll.start()
    telegram.wait(lambda: telegram.requests[-1].path.endswith("getUpdates"))
    query_id = telegram.press(message_id, "Reject", from_id=7)
    poll.join(5)
    update = polls[0][0]
    assert (update["callback_query"]["id"], update["callback_query"]["data"]) == (query_id, "r:1")
    assert (update["callback_query"]["from"]["id"], update["callback_query"]["message"]["chat"]["id"]) == (7, CHAT)
    assert bot(telegram, "getUpdates").json()["result"] == [update]
    assert bot(telegram, "getUpdates", offset=update["update_id"] + 1).json()["result"] == []
    assert telegram.updates == []


def test_updates_of_kinds_that_were_not_asked_for_do_not_come(telegram: FakeTelegram) -> None:
    bot(telegram, "getUpdates", allowed_updates=["callback_query"])
    telegram.say("/start")
    assert bot(telegram, "getUpdates").json()["result"] == []
    bot(telegram, "getUpdates", allowed_updates=[])
    telegram.say("/start")
    assert bot(telegram, "getUpdates").json()["result"][0]["message"]["text"] == "/start"


def test_of_two_polls_the_older_gets_a_conflict(telegram: FakeTelegram) -> None:
    older: list[httpx.Response] = []
    poll = threading.Thread(target=lambda: older.append(bot(telegram, "getUpdates", timeout=20)))
    poll.start()
    telegram.wait(lambda: telegram.requests)
    assert bot(telegram, "getUpdates").json()["result"] == []
    poll.join(5)
    assert (older[0].status_code, older[0].json()["error_code"]) == (409, 409)


def test_a_callback_query_is_answered_in_time_or_not_at_all(telegram: FakeTelegram) -> None:
    message_id = send(telegram, reply_markup=keyboard(callback_data="r:1")).json()["result"]["message_id"]
    query_id, late = telegram.press(message_id, 0), telegram.press(message_id, 0)
    telegram.forget_press(late)
    assert bot(telegram, "answerCallbackQuery", callback_query_id=query_id, text="ok").json()["result"] is True
    assert telegram.answers[query_id]["text"] == "ok"
    for unknown in (late, "1"):
        refused = bot(telegram, "answerCallbackQuery", callback_query_id=unknown)
        assert "query is too old" in refused.json()["description"]


@pytest.mark.parametrize(
    ("where", "header", "parameters"), [("header", "3", None), ("body", None, 3), ("both", "3", 3)]
)
def test_telegram_tells_how_long_to_wait(
    telegram: FakeTelegram, where: Any, header: str | None, parameters: int | None
) -> None:
    telegram.script(TooMany(3, where))
    limited = send(telegram)
    assert (limited.status_code, limited.headers.get("Retry-After")) == (429, header)
    assert limited.json().get("parameters", {}).get("retry_after") == parameters


def test_scripted_faults_come_in_order_and_tell_what_was_delivered(telegram: FakeTelegram) -> None:
    telegram.script(Status(502), Garbage(), Drop(before=True), Drop(before=False))
    assert send(telegram, "a").status_code == 502
    garbage = send(telegram, "b")
    with pytest.raises(ValueError, match="Expecting value"):
        garbage.json()
    for text in ("c", "d"):
        with pytest.raises(httpx.RemoteProtocolError):
            send(telegram, text)
    assert bot(telegram, "getMe").status_code == 200, "only what sends meets a fault"
    assert send(telegram, "e").status_code == 200
    assert [message.sent.text for message in telegram.messages.values()] == ["d", "e"]
    assert len(telegram.drawn) == 4


def test_a_held_answer_was_delivered_and_does_not_hold_up_the_end() -> None:
    with FakeTelegram(chat_id=CHAT) as telegram:
        telegram.script(Timeout(60))
        with client(telegram) as http, pytest.raises(httpx.ReadTimeout):
            http.post(f"/bot{telegram.token}/sendMessage", json={"chat_id": CHAT, "text": "a"}, timeout=0.1)
        assert len(telegram.messages) == 1
        ending = time.monotonic()
    assert time.monotonic() - ending < 5


def test_random_faults_are_the_same_for_the_same_seed() -> None:
    def run() -> list[int | str]:
        with FakeTelegram(chat_id=CHAT) as telegram:
            telegram.random_faults(random.Random(5), 0.5, [Status(500), Drop()])
            outcomes: list[int | str] = []
            for _ in range(20):
                try:
                    outcomes.append(send(telegram).status_code)
                except httpx.RemoteProtocolError:
                    outcomes.append("dropped")
            return outcomes

    first = run()
    assert first == run()
    assert set(first) == {200, 500, "dropped"}


def test_what_breaks_in_a_fake_fails_the_test() -> None:
    class Broken(FakeTelegram):
        def answer(self, request: Any) -> Any:
            raise KeyError(request.path)

    with pytest.raises(KeyError), Broken() as broken, pytest.raises(httpx.RemoteProtocolError):
        send(broken)


def execute(fake: FakeDiscord, query: str = "?wait=true", **body: Any) -> httpx.Response:
    with client(fake) as http:
        return http.post(fake.webhook_url + query, json=body)


def test_a_webhook_shows_itself_to_who_knows_its_token(discord: FakeDiscord) -> None:
    with client(discord) as http:
        assert http.get(discord.webhook_url).json()["id"] == discord.webhook_id
        assert http.get(discord.webhook_url + "x").json()["code"] == 50027
        unknown = http.get(f"/api/webhooks/1/{discord.webhook_token}")
    assert (unknown.status_code, unknown.json()) == (404, {"message": "Unknown Webhook", "code": 10015})


def test_a_webhook_answers_with_the_message_only_to_who_waits(discord: FakeDiscord) -> None:
    told = execute(discord, embeds=[{"title": "세션 갱신", "color": 0x3498DB, "fields": [{"name": "a", "value": "b"}]}])
    assert told.json() == discord.messages[0]
    untold = execute(discord, "", content="hello")
    assert (untold.status_code, untold.content, discord.messages[1]["content"]) == (204, b"", "hello")


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"content": "x" * 2001}, ["content"]),
        ({"embeds": [{"title": "x"}] * 11}, ["embeds"]),
        ({"embeds": [{"title": "x" * 257}]}, ["embeds", "0", "title"]),
        ({"embeds": [{"description": "x" * 4097}]}, ["embeds", "0", "description"]),
        ({"embeds": [{"fields": [{"name": "a", "value": "b"}] * 26}]}, ["embeds", "0", "fields"]),
        ({"embeds": [{"fields": [{"name": " ", "value": "b"}]}]}, ["embeds", "0", "fields", "0", "name"]),
        ({"embeds": [{"fields": [{"name": "a", "value": "x" * 1025}]}]}, ["embeds", "0", "fields", "0", "value"]),
        ({"embeds": [{"footer": {"text": "x" * 2049}}]}, ["embeds", "0", "footer", "text"]),
        ({"embeds": [{"author": {"name": "x" * 257}}]}, ["embeds", "0", "author", "name"]),
        ({"embeds": [{"description": "x" * 3001}] * 2}, ["embeds"]),
        ({"embeds": [{"title": "x", "color": 0x1000000}]}, ["embeds", "0", "color"]),
        ({"embeds": [{"title": "x", "url": "reject"}]}, ["embeds", "0", "url"]),
        ({"embeds": [{"title": "x", "timestamp": "soon"}]}, ["embeds", "0", "timestamp"]),
        ({"content": "x", "allowed_mentions": {"parse": ["all"]}}, ["allowed_mentions", "parse", "0"]),
    ],
)
def test_what_discord_refuses_is_refused(discord: FakeDiscord, body: dict[str, Any], path: list[str]) -> None:
    refused = execute(discord, **body)
    assert (refused.status_code, refused.json()["code"], refused.json()["message"]) == (400, 50035, "Invalid Form Body")
    errors = refused.json()["errors"]
    for step in path:
        errors = errors[step]
    assert errors["_errors"][0].keys() == {"code", "message"}
    assert discord.messages == []


def test_an_empty_message_is_refused_by_discord(discord: FakeDiscord) -> None:
    assert execute(discord, content=" ").json()["code"] == 50006


def test_mentions_ping_unless_they_are_not_allowed(discord: FakeDiscord) -> None:
    execute(discord, content="@everyone <@1> <@&2>", allowed_mentions={"parse": []})
    execute(discord, content="@\u200beveryone")
    assert discord.pings == []
    execute(discord, content="@everyone <@1> <@&2>", allowed_mentions={"parse": ["roles"], "users": ["1"]})
    execute(discord, embeds=[{"title": "@here"}])
    assert [ping for _, ping in discord.pings] == ["<@1>", "<@&2>", "@here"]


@pytest.mark.parametrize(("where", "header", "body"), [("header", "1", None), ("body", None, 0.5), ("both", "1", 0.5)])
def test_discord_tells_how_long_to_wait(
    discord: FakeDiscord, where: Any, header: str | None, body: float | None
) -> None:
    discord.script(TooMany(0.5, where))
    limited = execute(discord, content="x")
    assert (limited.status_code, limited.headers.get("Retry-After")) == (429, header)
    assert (limited.json()["retry_after"] if body else None) == body
    assert ("X-RateLimit-Reset-After" in limited.headers) == (header is not None)


def test_a_bucket_takes_five_and_says_when_it_takes_more() -> None:
    with FakeDiscord(bucket=True) as discord:
        answers = [execute(discord, content="x") for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["4", "3", "2", "1", "0", "0"]
    assert 0 < answers[-1].json()["retry_after"] <= 2


def test_what_discord_links_is_found_unless_it_is_escaped() -> None:
    assert markdown_links("[a](https://b.c) https://d.e <@1> <#2> @here") == [
        "[a](https://b.c)",
        "https://d.e",
        "<@1>",
        "<#2>",
        "@here",
    ]
    assert markdown_links(r"\[a\](b) \<@1> \@here evil.com https:\/\/d.e") == []


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


SECRET = b"0123456789abcdef0123456789abcdef"
NOW = 1_800_000_000


def deliver(fake: FakeWebhook, body: bytes = b'{"a": 1}', *, at: int = NOW, key: bytes = SECRET) -> int:
    signature = base64.b64encode(hmac.digest(key, b"msg_1.%d.%b" % (at, body), hashlib.sha256)).decode()
    signed = {"webhook-id": "msg_1", "webhook-timestamp": str(at), "webhook-signature": f"v1,AAAA v1,{signature}"}
    with client(fake, **signed) as http:
        return http.post("/hook", content=body).status_code


@pytest.fixture
def webhook() -> Iterator[FakeWebhook]:
    with FakeWebhook("whsec_" + base64.b64encode(SECRET).decode(), clock=lambda: NOW) as fake:
        yield fake


def test_a_webhook_is_taken_once_and_its_repetition_is_known(webhook: FakeWebhook) -> None:
    webhook.script(Drop(before=False))
    with pytest.raises(httpx.RemoteProtocolError):
        deliver(webhook)
    assert deliver(webhook, at=NOW + 1) == 204
    assert [(one.webhook_id, one.timestamp, one.body) for one in webhook.messages] == [("msg_1", NOW, {"a": 1})]
    assert [one.timestamp for one in webhook.duplicates] == [NOW + 1]


def test_a_webhook_that_is_not_signed_well_is_rejected(webhook: FakeWebhook) -> None:
    assert deliver(webhook, key=b"another") == 401
    assert deliver(webhook, at=NOW - 301) == 401
    assert deliver(webhook, at=NOW + 301) == 401
    with client(webhook) as http:
        assert http.post("/hook", content=b"{}").status_code == 401
    assert deliver(webhook, b"no json") == 400
    assert (len(webhook.rejected), webhook.messages) == (5, [])
