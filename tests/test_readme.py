"""The README says what is true, and every command in it works."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.daemon_process import PASSWORD, cli, environment
from tests.support.owner import WEBHOOK_SECRET
from tests.support.postgres import fresh_database
from tests.support.readme import README, rewritten
from tests.support.redis import shared
from tests.support.services.discord import FakeDiscord
from tests.support.services.ntfy import FakeNtfy
from tests.support.services.telegram import FakeTelegram
from tests.support.services.webhook import FakeWebhook
from tests.support.terminal import Reply, at_terminal


def section(title: str) -> str:
    """Return the text of a section."""
    return README.read_text().partition(f"## {title}\n")[2].partition("\n## ")[0]


def blocks(text: str, language: str = "sh") -> list[str]:
    """Return the blocks of a language in a text."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def with_daemon(home: Path, directory: Path, **more: str) -> dict[str, str]:
    """Return an environment in which `daemon` is this checkout's."""
    binary = directory / "bin" / "daemon"
    binary.parent.mkdir()
    binary.write_text(f'#!/bin/sh\nexec {sys.executable} -m daemon "$@"\n')
    binary.chmod(0o755)
    env = environment(home, **more)
    return {**env, "PATH": f"{binary.parent}:{env['PATH']}"}


needs_jq = pytest.mark.skipif(
    shutil.which("jq") is None or shutil.which("curl") is None, reason="the README's commands need curl and jq"
)


def test_the_generated_tables_are_those_of_the_code() -> None:
    """`python -m tests.support.readme` writes them anew."""
    assert README.read_text() == rewritten(README.read_text())


TIMES = r"\b1[0-9]{9}\b"
IDS = r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"


@needs_jq
def test_the_tour_runs_and_says_what_the_readme_says(tmp_path: Path) -> None:
    commands = blocks(section("Five minutes"))
    assert len(commands) >= 8
    home = tmp_path / "home"
    env = with_daemon(home, tmp_path)
    script = "set -eu\n" + "\n".join(commands)
    try:
        done = subprocess.run(
            ["bash", "-c", script], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
        )
    finally:
        cli(home, "stop", "--force", "--timeout", "5")
    assert done.returncode == 0, done.stderr
    expected = ["SUSPENDED", "SESSION_SUSPENDED", "READY", "researcher", "REVOKED", "SESSION_REVOKED"]
    lines = done.stdout.splitlines()
    assert [line for line in lines if line in set(expected)][: len(expected)] == expected
    assert '"code":"RENEWAL_TOO_EARLY"' in done.stdout
    assert lines[-1] == "the daemon has stopped"
    assert "the audit log is whole" in done.stdout


def test_every_command_of_the_command_line_is_in_the_readme() -> None:
    from daemon.cli.main import COMMANDS

    text = section("Command line")
    assert [name for name in COMMANDS if name not in text] == []


@needs_jq
def test_every_command_about_channels_and_the_kill_switch_runs_at_a_terminal(tmp_path: Path) -> None:
    titles = ("Notifications", "Agents tell you things", "Kill switch and auto-stop")
    script = "\n".join(block for title in titles for block in blocks(section(title)))
    home = tmp_path / "home"
    with (
        FakeTelegram() as telegram, FakeTelegram(chat_id=-1001234567890) as group, FakeDiscord() as discord,
        FakeNtfy() as ntfy, FakeNtfy("tk_own") as own, FakeWebhook(WEBHOOK_SECRET) as webhook,
    ):  # fmt: skip
        for written, meant in {
            "telegram --name phone": f"telegram --api-url {telegram.url} --name phone",
            "telegram --name group": f"telegram --api-url {group.url} --name group",
            "channel add ntfy --generate-topics": f"channel add ntfy --generate-topics --server-url {ntfy.url}",
            "https://ntfy.example.com": own.url,
            "https://hooks.example.com": webhook.url,
        }.items():
            assert written in script
            script = script.replace(written, meant)

        def learn(screen: str) -> str:
            webhook.expect(shown_secret(screen))
            return ""

        replies: dict[str, Reply] = {
            "Bot token:": telegram.token, "Is this your chat? [y/N]:": "y", "Webhook URL:": discord.webhook_url,
            "Topic:": "alerts-x1", "Access token:": "tk_own", "press Enter:": learn,
        }  # fmt: skip
        telegram.say("/start")
        group.say("/start@session_daemon_bot", from_id=424242)
        file = tmp_path / "discord.json"
        file.write_text(json.dumps({"webhookUrl": discord.webhook_url}))
        file.chmod(0o600)
        try:
            screen = told(home, tmp_path, script, replies)
            own.wait(lambda: own.messages["alerts-x1"])
            group.wait(lambda: on_phone(group))
            for title in ("🔔 Test message", "📝 Report of an agent", "🛑 Kill switch activated", "🟢 Kill switch"):
                telegram.wait(lambda title=title: any(text.startswith(title) for text in on_phone(telegram)))
        finally:
            cli(home, "stop", "--force", "--timeout", "5")
        (report,) = (text for text in on_phone(telegram) if "Report of an agent" in text)
        tests = [message["title"] for topic in ntfy.messages.values() for message in topic]
        assert (webhook.rejected, [one.body["type"] for one in webhook.messages][:2]) == ([], ["ping", "TEST"])
    verifies_as_the_readme_says(webhook, shown_secret(screen))
    assert "Test message" in tests
    assert "\n".join(report.splitlines()[1:5]) in section("Agents tell you things")
    for line in ("SYSTEM_LOCKED", "reason            lost the laptop", "the test message was delivered"):
        assert line in screen.splitlines()
    assert [one for one in (telegram.token, "tk_own", "TEST-webhook-token") if one in screen] == []


@needs_jq
@pytest.mark.parametrize(
    ("title", "passing"),
    [
        ("Conversations that stick", TIMES),
        ("Agents that delegate", rf"{IDS}|\b(now|\ds ago|in 1d|in 23h 59m)\b"),
        ("Let other local services accept daemon tokens", f"{TIMES}|{IDS}"),
    ],
)
def test_every_command_of_a_section_says_what_the_readme_says(title: str, passing: str, tmp_path: Path) -> None:
    text, home = section(title), tmp_path / "home"
    try:
        env = with_agent(home, tmp_path)
        script = "set -eu\n" + "\n".join(blocks(text))
        done = subprocess.run(
            ["bash", "-c", script], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
        )
    finally:
        cli(home, "stop", "--force", "--timeout", "5")
    assert done.returncode == 0, done.stderr
    shown = "".join(blocks(re.sub(r"```sh\n.*?```", "", text, flags=re.DOTALL), ""))
    said, meant = ("".join(re.sub(passing, "", one).split()) for one in (done.stdout, shown))
    assert said == meant


@needs_jq
def test_the_programs_of_the_client_say_what_the_readme_says(tmp_path: Path) -> None:
    text, home = section("A client that never loses its session"), tmp_path / "home"
    for name, program in zip(("worker.py", "worker_async.py"), blocks(text, "python"), strict=True):
        assert f"`{name}`" in text
        (tmp_path / name).write_text(program)
    script = "set -eu\n" + "\n".join(blocks(text))
    try:
        env = with_agent(home, tmp_path)
        (tmp_path / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        (tmp_path / "bin" / "python").chmod(0o755)
        done = subprocess.run(
            ["bash", "-c", script], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
        )
    finally:
        cli(home, "stop", "--force", "--timeout", "5")
    assert (done.returncode, done.stderr) == (0, "")
    shown = "".join(blocks(re.sub(r"```(sh|python)\n.*?```", "", text, flags=re.DOTALL), ""))
    assert done.stdout == shown


@needs_jq
def test_every_command_about_more_than_one_machine_says_what_the_readme_says(tmp_path: Path) -> None:
    text, home, other = section("More than one machine"), tmp_path / "home", tmp_path / "other-home"
    with fresh_database(migrated=False) as database, shared() as redis:
        script = "set -eu\n" + "\n".join(blocks(text))
        for written, meant in {
            "postgresql://postgres@127.0.0.1/agents": database,
            "redis://127.0.0.1:6379/0": redis["DAEMON_CONVERSATIONS_URL"],
            "DAEMON_SERVER_PORT=3101": "DAEMON_SERVER_PORT=0",
        }.items():
            assert written in script
            script = script.replace(written, meant)
        prefix = redis["DAEMON_CONVERSATIONS_KEY_PREFIX"]
        try:
            env = {**with_agent(home, tmp_path), "DAEMON_CONVERSATIONS_KEY_PREFIX": prefix}
            done = subprocess.run(
                ["bash", "-c", script], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
            )
        finally:
            cli(home, "stop", "--force", "--timeout", "5")
            cli(other, "stop", "--force", "--timeout", "5")
    assert done.returncode == 0, done.stderr
    ours = {r"(https?|sqlite|postgresql)://\S+": "", r"\b[0-9a-f]{64}\b": "", r"\bpid [0-9]+": ""}
    shown = "".join(
        found for found in blocks(re.sub(r"```sh\n.*?```", "", text, flags=re.DOTALL), "") if found[0] != "$"
    )
    for pattern, nothing in ours.items():
        done.stdout, shown = re.sub(pattern, nothing, done.stdout), re.sub(pattern, nothing, shown)
    assert done.stdout.split() == shown.split()


@needs_jq
def test_every_command_about_metrics_says_what_the_readme_says(tmp_path: Path) -> None:
    text, home = section("Metrics"), tmp_path / "home"
    try:
        env = with_agent(home, tmp_path)
        script = "set -eu\n" + "\n".join(blocks(text))
        done = subprocess.run(
            ["bash", "-c", script], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
        )
    finally:
        cli(home, "stop", "--force", "--timeout", "5")
    assert done.returncode == 0, done.stderr
    (shown,) = blocks(re.sub(r"```(sh|yaml)\n.*?```", "", text, flags=re.DOTALL), "")
    ours = re.compile(r"http://\S+|\bpid [0-9]+")
    assert ours.sub("", done.stdout).split() == ours.sub("", shown).split()
    (scrape,) = (yaml.safe_load(one) for one in blocks(text, "yaml"))
    (rules,) = scrape["rule_files"]
    assert yaml.safe_load((tmp_path / rules).read_text())["groups"]
    assert f'up{{job="{scrape["scrape_configs"][0]["job_name"]}"}}' in (tmp_path / rules).read_text()
    assert json.loads((tmp_path / "daemon-dashboard.json").read_text())["panels"]


def with_agent(home: Path, directory: Path) -> dict[str, str]:
    """Start a daemon and return an environment with the session of an agent."""
    assert cli(home, "start", "--detach").code == 0
    made = cli(home, "agent", "add", "researcher", "--session", "--json").json()
    url = json.loads((home / "daemon.json").read_text())["url"]
    known = {"DAEMON_MASTER_PASSWORD": PASSWORD, "TOKEN": made["session"]["token"], "URL": url}
    return with_daemon(home, directory, **known)


def told(home: Path, directory: Path, script: str, replies: dict[str, Reply]) -> str:
    """Run a script at a terminal, with a daemon and the session of an agent, and return what the screen showed."""
    env = with_agent(home, directory)
    code, screen = at_terminal(["bash", "-c", f"set -eu; cd {directory}\n{script}"], env, replies, seconds=100)
    assert code == 0, screen
    return screen


def shown_secret(screen: str) -> str:
    """Return the signing secret on a screen."""
    return "whsec_" + screen.partition("whsec_")[2].split()[0]


def on_phone(telegram: FakeTelegram) -> list[str]:
    """Return what the messages on Telegram said first."""
    with telegram.changed:
        return [message.sent.plain for message in telegram.messages.values()]


def verifies_as_the_readme_says(webhook: FakeWebhook, secret: str) -> None:
    """Hold the README's Python against what was posted."""
    known: dict[str, Any] = {}
    (code,) = blocks(section("Notifications"), "python")
    exec(code, known)
    request = webhook.requests[0]
    assert known["verify"](secret, request.headers, request.body)
    assert not known["verify"](secret, request.headers, request.body + b" ")
    assert not known["verify"](WEBHOOK_SECRET, request.headers, request.body)
    assert not known["verify"](secret, {**request.headers, "webhook-timestamp": "1700000000"}, request.body)


def test_the_configuration_in_the_readme_is_valid(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("\n".join(blocks(README.read_text(), "toml")))
    tmp_path.chmod(0o700)
    assert cli(tmp_path, "config", "check").code == 0
