"""`daemon channel`: from a credential to a message, without the credential showing anywhere."""

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from daemon.cli.channel_add import add as add_group
from daemon.domain.channels import CHANNEL_TYPES
from tests.support.daemon_process import PASSWORD, DaemonProcess, Ended, environment
from tests.support.owner import WEBHOOK_SECRET
from tests.support.services.base import Status
from tests.support.services.discord import FakeDiscord
from tests.support.services.ntfy import FakeNtfy
from tests.support.services.telegram import FakeTelegram
from tests.support.services.webhook import FakeWebhook
from tests.support.terminal import Reply, at_terminal

BOT_TOKEN = "123456:TEST-token"
CREDENTIALS = (BOT_TOKEN, "TEST-token", "TEST-webhook-token", "alerts-x1", "reply-y2", "tk_secret", WEBHOOK_SECRET)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    started = DaemonProcess(tmp_path_factory.mktemp("channels") / "home", DAEMON_NOTIFICATIONS_MIN_CHANNELS="2")
    yield started
    started.stop()
    written = Path(started.ready["logFile"]).read_text()
    assert [one for one in CREDENTIALS if one in written] == []


@pytest.fixture(scope="module")
def telegram() -> Iterator[FakeTelegram]:
    with FakeTelegram(BOT_TOKEN) as fake:
        yield fake


@pytest.fixture(scope="module")
def discord() -> Iterator[FakeDiscord]:
    with FakeDiscord() as fake:
        yield fake


@pytest.fixture(scope="module")
def ntfy() -> Iterator[FakeNtfy]:
    with FakeNtfy() as fake:
        yield fake


def quiet(ended: Ended) -> Ended:
    """Return how a command ended that showed no credential."""
    assert [one for one in CREDENTIALS if one in ended.out + ended.err] == []
    return ended


def add(daemon: DaemonProcess, kind: str, config: dict[str, Any], *options: str) -> Ended:
    """Add a channel whose configuration comes from standard input."""
    return quiet(daemon.cli("channel", "add", kind, "--config-stdin", *options, stdin=json.dumps(config)))


def typed(daemon: DaemonProcess, replies: dict[str, Reply], *arguments: str) -> tuple[int, str]:
    """Run a command at a terminal, where the owner types."""
    env = environment(daemon.home, DAEMON_MASTER_PASSWORD=PASSWORD)
    return at_terminal([sys.executable, "-m", "daemon", "channel", *arguments], env, replies)


def test_no_credential_can_be_given_as_an_argument() -> None:
    assert sorted(add_group.commands) == sorted(kind.lower() for kind in CHANNEL_TYPES)
    for command in add_group.commands.values():
        takes_text = {str(option.name) for option in command.params if not getattr(option, "is_flag", False)}
        assert takes_text.isdisjoint({"bot_token", "token", "webhook_url", "topic", "auth_token", "secret"})


def test_a_channel_of_each_type_is_added_tested_and_listed_without_its_credential(
    daemon: DaemonProcess, telegram: FakeTelegram, discord: FakeDiscord, ntfy: FakeNtfy, tmp_path: Path
) -> None:
    with FakeWebhook(WEBHOOK_SECRET) as webhook:
        file = tmp_path / "telegram.json"
        file.write_text(json.dumps({"botToken": BOT_TOKEN, "apiUrl": "http://127.0.0.1:1"}))
        file.chmod(0o644)
        options = ("--config-file", str(file), "--chat-id", "424242", "--api-url", telegram.url, "--name", "phone")
        made = quiet(daemon.cli("channel", "add", "telegram", *options))
        assert made.code == 0, made.err
        assert "botToken   ***" in made.out
        refused = daemon.cli("channel", "disable", "phone")
        assert (refused.code, "MIN_CHANNELS_REQUIRED" in refused.err) == (1, True)
        assert daemon.cli("channel", "disable", "phone", "--force").code == 0
        assert f"chmod 600 {file}" in made.err
        pushed = {"serverUrl": ntfy.url, "topic": "alerts-x1", "replyTopic": "reply-y2", "authToken": "tk_secret"}
        assert add(daemon, "ntfy", pushed, "--name", "push").code == 0
        assert add(daemon, "discord", {"webhookUrl": discord.webhook_url}, "--name", "team").code == 0
        hook = add(daemon, "webhook", {"secret": WEBHOOK_SECRET}, "--endpoint", webhook.url, "--name", "hook", "--json")
        assert hook.json()["config"] == {"url": webhook.url, "secret": "***"}
        for name in ("phone", "push", "team", "hook"):
            assert quiet(daemon.cli("channel", "test", name)).out == "the test message was delivered\n"
        assert [message.shown.plain.splitlines()[0] for message in telegram.messages.values()] == ["🔔 Test message"]
        assert (len(ntfy.messages["alerts-x1"]), len(discord.messages), len(webhook.messages)) == (1, 1, 2)
    listed = quiet(daemon.cli("channel", "list")).out
    assert listed.split()[:7] == ["ID", "NAME", "TYPE", "PRIORITY", "MIN", "LEVEL", "ENABLED"]
    assert {line.split()[1] for line in listed.splitlines()[1:]} >= {"phone", "push", "team", "hook"}


def test_priority_level_and_filters_are_options_with_agents_by_name(
    daemon: DaemonProcess, discord: FakeDiscord
) -> None:
    agent = daemon.cli("agent", "add", "watched", "--json").json()["id"]
    options = ("--priority", "-5", "--min-level", "warning", "--agent", "watched", "--json")
    events = ("--event", "TOKEN_REUSED", "--event", "SESSION_RENEWED")
    made = add(daemon, "discord", {"webhookUrl": discord.webhook_url}, *options, *events).json()
    assert (made["name"], made["priority"], made["minLevel"]) == ("discord", -5, "WARNING")
    assert (made["agents"], made["events"]) == ([agent], ["SESSION_RENEWED", "TOKEN_REUSED"])


def test_a_wrong_token_exits_1_with_one_line_in_the_services_words(
    daemon: DaemonProcess, telegram: FakeTelegram
) -> None:
    refused = add(daemon, "telegram", {"botToken": "9:WRONG", "chatId": 1, "apiUrl": telegram.url})
    assert (refused.code, refused.out, refused.err.count("\n")) == (1, "", 1)
    assert "HTTP 401: Unauthorized" in refused.err
    assert "WRONG" not in refused.err
    searched = add(daemon, "telegram", {"botToken": "9:WRONG", "apiUrl": telegram.url})
    assert searched.code == 1
    assert searched.err.splitlines()[-1].startswith("error: The chat cannot be looked for: HTTP 401: Unauthorized")
    assert searched.err.endswith("correct the bot token, or --api-url\n")
    assert "WRONG" not in searched.err


def test_where_no_bot_api_can_be_reached_the_search_for_the_chat_says_to_try_again(daemon: DaemonProcess) -> None:
    with FakeTelegram(BOT_TOKEN) as gone:
        config = {"botToken": BOT_TOKEN, "apiUrl": gone.url}
    refused = add(daemon, "telegram", config)
    assert refused.code == 1
    assert "connection refused" in refused.err
    assert refused.err.endswith("try again when it can be reached\n")


def test_a_webhook_without_an_endpoint_is_refused_before_a_secret_is_made(daemon: DaemonProcess) -> None:
    refused = quiet(daemon.cli("channel", "add", "webhook", "--generate-secret"))
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.endswith("add --endpoint URL\n")


def test_generated_topics_are_private_and_shown_once(daemon: DaemonProcess, ntfy: FakeNtfy) -> None:
    options = ("add", "ntfy", "--server-url", ntfy.url, "--generate-topics", "--name")
    people = daemon.cli("channel", *options, "people")
    shown = dict(line.split(None, 1) for line in people.out.splitlines() if len(line.split()[-1]) == 26)
    assert set(shown) == {"topic", "replyTopic"}
    programs = daemon.cli("channel", *options, "programs", "--json").json()
    assert set(programs["generated"]) == {"topic", "replyTopic"}
    assert programs["channel"]["config"]["topic"] == "***"
    assert len({*programs["generated"].values(), *shown.values()}) == 4
    one_way = daemon.cli("channel", *options, "one-way", "--reply-topic", "none", "--json").json()
    assert one_way["channel"]["config"]["replyTopic"] is None
    listed = daemon.cli("channel", "list", "--json").out
    assert [topic for topic in shown.values() if topic in listed] == []


def test_at_a_terminal_the_token_is_asked_for_without_echo_and_the_chat_is_found(
    daemon: DaemonProcess,
) -> None:
    replies: dict[str, Reply] = {"Bot token:": BOT_TOKEN, "[y/N]:": "y"}
    with FakeTelegram(BOT_TOKEN) as fake:
        fake.say("hello")
        code, screen = typed(daemon, replies, "add", "telegram", "--api-url", fake.url, "--name", "mine")
    assert code == 0, screen
    assert BOT_TOKEN not in screen
    assert "The bot was written to from Owner (424242). Is this your chat?" in screen
    assert "chatId     424242" in screen


def test_without_a_terminal_a_found_chat_is_named_and_not_taken(daemon: DaemonProcess) -> None:
    with FakeTelegram(BOT_TOKEN, chat_id=-1001) as fake:
        fake.say("hello")
        ended = add(daemon, "telegram", {"botToken": BOT_TOKEN, "apiUrl": fake.url})
    assert ended.code == 2
    assert "from Owners (-1001) — name the chat that is yours: --chat-id" in ended.err


def test_a_bot_that_another_program_listens_to_is_told_from_one_that_nobody_wrote_to(daemon: DaemonProcess) -> None:
    with FakeTelegram(BOT_TOKEN) as fake, ThreadPoolExecutor() as pool:
        adding = pool.submit(add, daemon, "telegram", {"botToken": BOT_TOKEN, "apiUrl": fake.url})
        fake.wait(lambda: fake.requests)
        httpx.post(f"{fake.url}/bot{BOT_TOKEN}/getUpdates", trust_env=False)
        ended = adding.result(20)
    assert ended.code == 1
    assert "error: Another program hears what is written to the bot" in ended.err


def test_a_receiver_can_learn_a_generated_secret_before_it_is_asked(daemon: DaemonProcess) -> None:
    with FakeWebhook(WEBHOOK_SECRET) as webhook:

        def learn(screen: str) -> str:
            webhook.expect("whsec_" + screen.partition("whsec_")[2].split()[0])
            return ""

        arguments = ("add", "webhook", "--endpoint", webhook.url, "--generate-secret", "--name", "learned")
        code, screen = typed(daemon, {"press Enter:": learn}, *arguments)
        assert code == 0, screen
        assert (webhook.rejected, webhook.messages[0].body["type"]) == ([], "ping")
        assert screen.count("whsec_") == 1


@pytest.mark.parametrize(
    ("arguments", "stdin", "said"),
    [
        (["add", "discord"], None, "The webhook URL is needed, and there is no terminal to ask at — put webhookUrl"),
        (["add", "discord", "--config-stdin"], '{"webhookUrl": "secret', "Standard input holds no JSON"),
        (["add", "discord", "--config-stdin", "--config-file", "pyproject.toml"], "{}", "not both"),
        (["add", "telegram", "--config-stdin"], '{"botToken": "secret"}', "config.botToken: must be a bot token"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_exits_2_and_is_not_repeated(
    daemon: DaemonProcess, arguments: list[str], stdin: str | None, said: str
) -> None:
    ended = daemon.cli("channel", *arguments, stdin=stdin)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert said in ended.err
    assert "secret" not in ended.err


def test_an_ambiguous_name_exits_2_and_an_unknown_one_1(daemon: DaemonProcess, discord: FakeDiscord) -> None:
    ids = [add(daemon, "discord", {"webhookUrl": discord.webhook_url}, "--name", "twin", "--json").json()["id"]]
    ids += [add(daemon, "discord", {"webhookUrl": discord.webhook_url}, "--name", "twin", "--json").json()["id"]]
    twice = daemon.cli("channel", "test", "twin")
    assert twice.code == 2
    assert [one for one in ids if one not in twice.err] == []
    assert daemon.cli("channel", "test", ids[0]).code == 0
    unknown = daemon.cli("channel", "disable", "nobody")
    assert (unknown.code, unknown.err) == (
        1,
        "error: No channel is called nobody — list them: daemon channel list\n",
    )


def test_a_channel_is_disabled_and_enabled_and_what_was_sent_is_listed(daemon: DaemonProcess) -> None:
    with FakeDiscord() as discord:
        add(daemon, "discord", {"webhookUrl": discord.webhook_url}, "--name", "fragile")
        discord.script(Status(500, body=b'{"message": "on fire"}'))
        failed = quiet(daemon.cli("channel", "test", "fragile", "--json"))
        assert (failed.code, failed.json()["error"]) == (1, "HTTP 500: on fire")
        assert "The test message was not delivered: HTTP 500: on fire" in failed.err
        assert daemon.cli("channel", "disable", "fragile", "--json").json()["enabled"] is False
        assert daemon.cli("channel", "enable", "fragile", "--json").json()["enabled"] is True
        daemon.cli("channel", "disable", "fragile")
    away = daemon.cli("channel", "enable", "fragile")
    assert (away.code, "connection refused" in away.err) == (1, True)
    newest = quiet(daemon.cli("channel", "log", "--status", "FAILED", "--event", "TEST", "-n", "1"))
    assert newest.out.splitlines()[0].split() == [
        "WHEN", "STATUS", "EVENT", "LEVEL", "CHANNEL", "ABOUT", "RETRIES", "ERROR",
    ]  # fmt: skip
    assert newest.out.splitlines()[1].endswith("fragile  -      0        HTTP 500: on fire")
    listed: list[dict[str, Any]] = daemon.cli("channel", "log", "--json", "-n", "2").json()
    assert len(listed) == 2
