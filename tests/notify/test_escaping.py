"""Whatever an agent calls itself or reports: messages stay within limits, and no client makes a link of it."""

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.domain.channels import NtfyConfig, TelegramConfig
from daemon.domain.notifications import Notice
from daemon.notify import discord, ntfy, telegram
from daemon.notify.catalogue import LOCALES, Locale
from daemon.notify.cutting import ELLIPSIS, cut, fit, utf8, utf16
from daemon.notify.templates import render
from daemon.notify.text import BREAK, neutralise
from tests.notify.notices import BUTTONS, notice
from tests.support.services import Received
from tests.support.services.discord import FakeDiscord, markdown_links
from tests.support.services.markdown_v2 import Parsed, auto_links, parse
from tests.support.services.ntfy import FakeNtfy
from tests.support.services.telegram import FakeTelegram

SESSION = "0199a0e4-6c00-7000-8000-000000000001"
TELEGRAM = TelegramConfig(bot_token="123456:TEST-token", chat_id="424242")
NTFY = NtfyConfig(server_url="http://127.0.0.1:1", topic="owner", reply_topic="replies")
BAITS = (
    "https://evil.example/x",
    "tg://resolve?domain=evil",
    "evil.com",
    "www.evil.co.kr/a",
    "1.2.3.4",
    "a@evil.com",
    "@everyone",
    "@owner_bot",
    "#hashtag",
    "$USD",
    "/start",
    "/start@bot",
    "!/start",
    "+1-212-555-0100",
    "[click](https://evil.example)",
    "<@123456789012345678>",
    "<@&1>",
    "<#1>",
    "<t:0:R>",
    "<:x:1>",
    "<https://evil.example>",
    "](http://evil.example)",
    "discord.gg/evil",
    "*_~`|>#+-=|{}.!\\",
    "\\",
    "||x||",
    "```\nx\n```",
    "# big",
    "> quote",
    "\n세션: forged",
    "\u202egpj.exe",
    "\u200b\u2060\ufeff",
    "e" + "\u0301" * 40,
    "👨‍👩‍👧 👍🏽 🇰🇷",
)
ANY = st.one_of(
    st.text(),
    st.lists(st.one_of(st.sampled_from(BAITS), st.text(max_size=3)), max_size=12).map("".join),
    st.builds(lambda text, times: text * times, st.sampled_from(BAITS), st.integers(1, 3000)),
)
LOCALE = st.sampled_from(LOCALES)


@st.composite
def reports(draw: st.DrawFn) -> Notice:
    """Messages in which an agent chose as much as it can."""
    context: dict[str, Any] = {
        "agentId": "a-1",
        "agentName": draw(ANY),
        "sessionId": SESSION,
        "referenceId": draw(ANY),
        "title": draw(ANY),
        "details": draw(st.dictionaries(ANY, ANY, max_size=4)),
        "reason": draw(ANY),
    }
    event = draw(st.sampled_from(["AGENT_REPORT", "TX_APPROVAL_REQUEST", "SESSION_REVOKED", "KILL_SWITCH_ACTIVATED"]))
    return notice(event, "https://daemon.example/reject/abc", BUTTONS, **context)


def request(path: str, body: dict[str, Any], **query: str) -> Received:
    return Received("POST", path, query, {"content-type": "application/json"}, msgspec.json.encode(body), 0.0)


def shown_values(shown: str, whole: Notice, locale: Locale) -> None:
    """Every line is there, in its order, and says its value, or the beginning of it."""
    rendered = render(whole, locale)
    found = shown.split("\n")
    assert len(found) == len(rendered.lines)
    for line, (label, value) in zip(found, rendered.lines, strict=True):
        begin = line.removesuffix(ELLIPSIS)
        assert line == f"{label}: {value}" or (line != begin and f"{label}: {value}".startswith(begin))
    assert found[-1].endswith(f": {SESSION}")


@settings(max_examples=60, deadline=None)
@given(reports(), LOCALE)
def test_telegram_shows_what_was_said_and_nothing_else(sent: Notice, locale: Locale) -> None:
    body = telegram.message(TELEGRAM, sent, locale)
    fake = FakeTelegram(TELEGRAM.bot_token)
    assert fake.answer(request(f"/bot{TELEGRAM.bot_token}/sendMessage", body)).status == 200
    content = fake.messages[1].sent
    title, _, lines = content.plain.partition("\n")
    shown_values(lines, sent, locale)
    assert [(one.kind, one.offset_utf16) for one in content.entities] == [("bold", utf16(title.split(" ")[0]) + 1)]
    assert auto_links(content.plain) == []
    assert utf16(content.plain) <= 4096
    assert [one["callback_data"] for one in content.buttons()[:4]] == [one.token for one in BUTTONS]
    assert content.buttons()[4]["url"] == sent.reject_url


@settings(max_examples=60, deadline=None)
@given(reports(), LOCALE)
def test_telegram_takes_a_message_again_with_its_decision(sent: Notice, locale: Locale) -> None:
    before = parse(telegram.message(TELEGRAM, sent, locale)["text"])
    after: Parsed = parse(telegram.decided(before.plain, "⛔ Rejected by the owner!"))
    assert after.plain == f"{before.plain}\n\n⛔ Rejected by the owner!"
    assert after.entities == before.entities


@settings(max_examples=60, deadline=None)
@given(reports(), LOCALE)
def test_discord_shows_what_was_said_and_pings_nobody(sent: Notice, locale: Locale) -> None:
    body = discord.message(sent, locale)
    fake = FakeDiscord()
    path = f"/api/webhooks/{fake.webhook_id}/{fake.webhook_token}"
    assert fake.answer(request(path, body, wait="true")).status == 200
    [embed] = body["embeds"]
    shown_values(re.sub(r"\\([^0-9A-Za-z\s])", r"\1", embed["description"]), sent, locale)
    assert markdown_links(embed["description"]) == markdown_links(embed["title"]) == []
    assert not re.search(r"(?<!\\)(\\\\)*[*_~`|<>\[\]()#@]", embed["description"])
    assert utf16(embed["description"]) <= 4096
    assert fake.pings == []
    assert body["allowed_mentions"] == {"parse": []}


@settings(max_examples=60, deadline=None)
@given(reports(), LOCALE)
def test_ntfy_shows_what_was_said_within_its_limits(sent: Notice, locale: Locale) -> None:
    body = ntfy.message(NTFY, sent, locale)
    fake = FakeNtfy()
    assert fake.answer(request("/", body)).status == 200
    assert fake.attachments == []
    [message] = fake.messages["owner"]
    shown_values(message["message"], sent, locale)
    assert auto_links(message["message"]) == auto_links(message["title"]) == []
    assert utf8(body["message"]) <= 4096
    assert utf8(body["title"]) <= 250
    assert [one["body"] for one in message["actions"]] == [one.token for one in BUTTONS[1:]]


@given(st.one_of(ANY, st.text(st.characters())))
def test_neutral_text_is_one_line_that_no_client_links(text: str) -> None:
    neutral = neutralise(text)
    assert neutral == neutralise(neutral)
    assert len(neutral.splitlines()) <= 1
    assert auto_links(neutral) == []
    assert markdown_links(neutral.replace("<", "").replace("[", "")) == []
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u200c-\u200f\u2028-\u202e\u2060-\u2069\ufeff]", neutral)


@pytest.mark.parametrize("bait", [one for one in BAITS if re.search(r"[@#$/]\w|^\w+\.\w", one)])
def test_what_would_be_a_link_is_broken_but_reads_the_same(bait: str) -> None:
    assert BREAK in neutralise(bait)
    assert neutralise(bait).replace(BREAK, "") == " ".join(bait.split())


@given(ANY, st.integers(3, 400), st.sampled_from([len, utf8, utf16]))
def test_a_cut_keeps_the_limit_and_the_beginning(text: str, limit: int, size: Any) -> None:
    short = cut(text, limit, size)
    assert size(short) <= limit
    assert short == text or text.startswith(short.removesuffix(ELLIPSIS))


def test_a_cut_breaks_no_combined_character() -> None:
    assert cut("abe\u0301xyz", 4, len) == "ab…"
    assert cut("a👍🏽xyz", 4, utf16) == "a…"
    assert cut("a👍xyz", 3, utf16) == "a…"
    assert cut("e" + "\u0301" * 40, 30, len) == "e" + "\u0301" * 28 + "…"


@given(st.lists(st.text(max_size=60), max_size=8), st.integers(24, 200))
def test_together_values_fit_and_only_the_longest_are_cut(values: list[str], budget: int) -> None:
    fitted = fit(values, budget, len)
    assert sum(map(len, fitted)) <= budget
    whole = [len(value) for value, short in zip(values, fitted, strict=True) if value == short]
    changed = [len(value) for value, short in zip(values, fitted, strict=True) if value != short]
    assert not whole or not changed or max(whole) < min(changed)
