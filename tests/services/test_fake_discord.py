"""The fake Discord refuses, limits and pings as Discord does."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.services.fake_client import client
from tests.support.services import TooMany
from tests.support.services.discord import FakeDiscord, markdown_links


@pytest.fixture
def discord() -> Iterator[FakeDiscord]:
    with FakeDiscord() as fake:
        yield fake


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
