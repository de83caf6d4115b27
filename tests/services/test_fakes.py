"""The Bot API, and the faults of any fake, are as real ones, so that tests against them prove something."""

import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.services.fake_client import client
from tests.support.services import Drop, Garbage, Status, Timeout, TooMany
from tests.support.services.telegram import FakeTelegram

CHAT = 424_242


@pytest.fixture
def telegram() -> Iterator[FakeTelegram]:
    with FakeTelegram(chat_id=CHAT) as fake:
        yield fake


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
