"""`daemon channel add …`: one command for each type; credentials come from a prompt, a file or standard input."""

import base64
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import rich_click as click

from daemon.cli import base
from daemon.cli.candidates import agents, one_of
from daemon.cli.client import Answer, Client
from daemon.cli.credentials import ask, has_terminal
from daemon.cli.failure import USAGE, Failure
from daemon.cli.lookup import agent_id
from daemon.cli.output import fields, json_out, note
from daemon.domain.channels import ChannelType
from daemon.domain.levels import LEVELS
from daemon.domain.message_views import ChannelView
from daemon.domain.notifications import EVENTS

PATH = "/v1/owner/notification-channels"
_RANDOM_BYTES = 16
"""128 random bits: who does not know a topic cannot guess it."""
_SECRET_BYTES = 32
_OTHERS = 0o077


class Wanted(msgspec.Struct, frozen=True):
    """The options that every type has."""

    name: str | None
    priority: int | None
    min_level: str | None
    event: tuple[str, ...]
    agent: tuple[str, ...]
    config_file: Path | None
    config_stdin: bool
    as_json: bool


_OPTIONS = (
    click.option("--name", help="What you call it (else its type)."),
    click.option("--priority", type=int, help="Higher is tried first.  [default: 0]"),
    click.option(
        "--min-level", type=click.Choice(LEVELS, case_sensitive=False), help="The least level.  [default: INFO]"
    ),
    click.option(
        "--event",
        multiple=True,
        shell_complete=one_of(lambda: EVENTS),
        help="Only this event, such as SESSION_RENEWED; may be repeated.",
    ),
    click.option(
        "--agent",
        multiple=True,
        shell_complete=agents(),
        help="Only events of this agent (id or name); may be repeated.",
    ),
    click.option(
        "--config-file",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        metavar="FILE",
        help="JSON file with fields of `config`, credentials too, of mode 0600; an option wins over it.",
    ),
    click.option("--config-stdin", is_flag=True, help="Read that JSON from standard input."),
    base.json_option,
)


def _common(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


class Adding:
    """A channel on its way to the daemon.

    Args:
        kind: of the channel.
        common: the options that every type has.

    Raises:
        Failure: no daemon answers, or the configuration that is given cannot be read.
    """

    def __init__(self, kind: ChannelType, common: dict[str, Any]) -> None:
        self._client = Client()
        self._kind = kind
        self._wanted = Wanted(**common)
        self.config = _given(self._wanted)
        self.generated: dict[str, str] = {}

    def option(self, field: str, value: object) -> None:
        """Set a field from an option; one that was not given (None, empty) leaves what is there."""
        if value not in (None, ()):
            self.config[field] = value

    def ask(self, field: str, what: str) -> None:
        """Ask for a credential, unless it is there.

        Raises:
            Failure: 2, where there is nobody to ask.
        """
        if field in self.config:
            return
        if not has_terminal():
            raise Failure(
                f"The {what} is needed, and there is no terminal to ask at",
                USAGE,
                hint=f"put {field} into --config-file or --config-stdin",
            )
        self.config[field] = ask(f"{what[0].upper()}{what[1:]}: ", what, USAGE).strip()

    def generate(self, field: str, value: str) -> None:
        """Set a field to what was made here; it is shown once."""
        self.config[field] = self.generated[field] = value

    def show_generated(self) -> None:
        """Show what was made here; with --json it is a part of the answer instead."""
        if self.generated and not self._wanted.as_json:
            fields(self.generated.items())
            note("this is shown once")

    def finish(self) -> None:
        """Add the channel.

        Raises:
            Failure: the API refused.
        """
        wanted = self._wanted
        body = {
            "type": self._kind,
            "name": wanted.name or self._kind.lower(),
            "config": self.config,
            "priority": wanted.priority,
            "minLevel": wanted.min_level,
            "events": wanted.event or None,
            "agents": [agent_id(self._client, one) for one in wanted.agent] or None,
        }
        present = {name: value for name, value in body.items() if value is not None}
        answer = self._client.call("POST", PATH, present)
        if wanted.as_json and self.generated:
            both = {"channel": answer.read(msgspec.Raw), "generated": self.generated}
            json_out(msgspec.json.encode(both))
        else:
            print_channel(answer, wanted.as_json)


def _given(wanted: Wanted) -> dict[str, Any]:
    if wanted.config_file is not None and wanted.config_stdin:
        raise Failure("Give --config-file or --config-stdin, not both", USAGE)
    if wanted.config_stdin:
        return _read(sys.stdin.buffer.read(), "Standard input")
    if wanted.config_file is None:
        return {}
    if wanted.config_file.stat().st_mode & _OTHERS:
        note(f"others can read {wanted.config_file}; run: chmod 600 {wanted.config_file}")
    return _read(wanted.config_file.read_bytes(), str(wanted.config_file))


def _read(data: bytes, origin: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except (ValueError, RecursionError):
        raise Failure(f"{origin} holds no JSON object", USAGE, hint='write such as {"botToken": "…"}') from None


@click.group(cls=base.Group)
def add() -> None:
    """Add a channel that works; what is missing is asked for, credentials without echo."""


@add.command()
@click.option("--chat-id", metavar="ID", help="The chat's number, or @channel (else it is looked for).")
@click.option("--allowed-user", "allowed", type=int, multiple=True, help="In a group: whose presses count (number).")
@click.option("--api-url", metavar="URL", help="A Bot API server of your own.")
@_common
def telegram(chat_id: str | None, allowed: tuple[int, ...], api_url: str | None, **common: Any) -> None:
    """A Telegram bot; asks for its token."""
    adding = Adding("TELEGRAM", common)
    adding.option("chatId", chat_id)
    adding.option("allowedUserIds", allowed)
    adding.option("apiUrl", api_url)
    adding.ask("botToken", "bot token")
    if "chatId" not in adding.config:
        # Imported here: asyncio takes longer than most commands run.
        from daemon.cli.telegram_chat import find_chat  # noqa: PLC0415

        adding.config["chatId"] = find_chat(adding.config)
    adding.finish()


@add.command()
@_common
def discord(**common: Any) -> None:
    """A Discord channel; asks for its webhook URL."""
    adding = Adding("DISCORD", common)
    adding.ask("webhookUrl", "webhook URL")
    adding.finish()


@add.command()
@click.option("--server-url", metavar="URL", help="An ntfy server of your own.")
@click.option("--generate-topics", is_flag=True, help="Make private topics and print them, this once.")
@click.option(
    "--reply-topic",
    type=click.Choice(["auto", "none"]),
    default="auto",
    show_default=True,
    help="Where buttons publish: a new private topic, or no buttons.",
)
@click.option("--ask-token", is_flag=True, help="Ask for an access token too, for a server that wants one.")
@_common
def ntfy(*, server_url: str | None, generate_topics: bool, reply_topic: str, ask_token: bool, **common: Any) -> None:
    """A topic of an ntfy server; asks for its name."""
    adding = Adding("NTFY", common)
    adding.option("serverUrl", server_url)
    if generate_topics:
        adding.generate("topic", _topic())
    adding.ask("topic", "topic")
    if reply_topic == "none":
        adding.config["replyTopic"] = None
    elif "replyTopic" not in adding.config:
        adding.generate("replyTopic", _topic())
    if ask_token:
        adding.ask("authToken", "access token")
    adding.finish()
    adding.show_generated()


def _topic() -> str:
    """Return a topic that nobody can guess, of letters and digits that are quickly typed on a phone."""
    return base64.b32encode(secrets.token_bytes(_RANDOM_BYTES)).decode().rstrip("=").lower()


@add.command()
@click.option("--endpoint", metavar="URL", help="Where messages are posted.")
@click.option("--generate-secret", is_flag=True, help="Make the signing secret and print it, this once.")
@_common
def webhook(endpoint: str | None, generate_secret: bool, **common: Any) -> None:
    """An HTTP endpoint of yours; asks for the signing secret."""
    adding = Adding("WEBHOOK", common)
    adding.option("url", endpoint)
    if "url" not in adding.config:
        raise Failure("It is not said where messages are to be posted", USAGE, hint="add --endpoint URL")
    if generate_secret:
        adding.generate("secret", "whsec_" + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode())
        # The check is a signed ping: a receiver that verifies it has to know the secret before.
        adding.show_generated()
        if sys.stdin.isatty() and not common["as_json"]:
            click.prompt("Give it to the receiver, then press Enter", default="", show_default=False, err=True)
    adding.ask("secret", "signing secret")
    adding.finish()


def print_channel(answer: Answer, as_json: bool) -> None:
    """Print a channel that the API answered."""
    if as_json:
        json_out(answer.body)
        return
    view = answer.read(ChannelView)
    config = {name: value for name, value in (view.config or {}).items() if value not in (None, [])}
    fields(
        [
            ("id", view.id),
            ("name", view.name),
            ("type", view.type),
            ("priority", view.priority),
            ("min level", view.min_level),
            ("events", _listed(view.events)),
            ("agents", _listed(view.agents)),
            ("enabled", view.enabled),
            *config.items(),
        ]
    )


def _listed(words: list[str] | None) -> str | None:
    return ", ".join(words) if words else None
