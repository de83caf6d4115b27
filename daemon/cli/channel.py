"""`daemon channel …`: where you are told, and what was sent."""

from typing import get_args

import rich_click as click

from daemon.cli import base
from daemon.cli.candidates import channels, one_of
from daemon.cli.channel_add import PATH, add, print_channel
from daemon.cli.client import Client
from daemon.cli.failure import Failure
from daemon.cli.lookup import channel_id
from daemon.cli.output import json_out, relative, table
from daemon.domain.message_views import AttemptView, ChannelTest, ChannelView
from daemon.domain.notifications import EVENTS
from daemon.domain.rows import AttemptStatus

channel_argument = click.argument("ref", metavar="CHANNEL", shell_complete=channels)


@click.group(cls=base.Group)
def channel() -> None:
    """Where the owner is told; a CHANNEL is an id or an exact name."""


channel.add_command(add)


@channel.command("list")
@base.json_option
def list_channels(as_json: bool) -> None:
    """List channels, the one that is tried first at the top."""
    answer = Client().call("GET", PATH)
    if as_json:
        json_out(answer.body)
        return
    rows = [
        (one.id, one.name, one.type, one.priority, one.min_level, one.enabled, _health(one))
        for one in answer.read_list(ChannelView)
    ]
    table(("ID", "NAME", "TYPE", "PRIORITY", "MIN LEVEL", "ENABLED", "HEALTH"), rows)


def _health(view: ChannelView) -> str:
    return f"{view.health}: {view.last_error}" if view.last_error else view.health


@channel.command()
@channel_argument
@base.json_option
def test(ref: str, as_json: bool) -> None:
    """Send a test message through a CHANNEL (exit 1: it did not arrive)."""
    client = Client()
    answer = client.call("POST", f"{PATH}/{channel_id(client, ref)}/test")
    if as_json:
        json_out(answer.body)
    made = answer.read(ChannelTest)
    if made.status != "DELIVERED":
        raise Failure(f"The test message was not delivered: {made.error}", hint="look at: daemon channel list")
    if not as_json:
        click.echo("the test message was delivered")


@channel.command()
@channel_argument
@click.option("--force", is_flag=True, help="Even if too few channels remain.")
@base.json_option
def disable(ref: str, force: bool, as_json: bool) -> None:
    """Use a CHANNEL no more; it can be enabled again."""
    client = Client()
    path = f"{PATH}/{channel_id(client, ref)}"
    print_channel(client.call("DELETE", path, force="true" if force else None), as_json)


@channel.command()
@channel_argument
@base.json_option
def enable(ref: str, as_json: bool) -> None:
    """Use a disabled CHANNEL again, if it works."""
    client = Client()
    print_channel(client.call("PUT", f"{PATH}/{channel_id(client, ref)}", {"enabled": True}), as_json)


@channel.command()
@click.option("--status", type=click.Choice(get_args(AttemptStatus)), help="Only attempts that ended so.")
@click.option(
    "--event",
    shell_complete=one_of(lambda: EVENTS),
    help="Only attempts to tell of this event, such as SESSION_RENEWED.",
)
@click.option("-n", "--limit", type=click.IntRange(1, 200), default=50, show_default=True, help="How many at most.")
@base.json_option
def log(status: str | None, event: str | None, limit: int, as_json: bool) -> None:
    """List the attempts to reach you, newest first."""
    client = Client()
    answer = client.call("GET", "/v1/owner/notifications", status=status, event=event, limit=limit)
    if as_json:
        json_out(answer.body)
        return
    names = {one.id: one.name for one in client.call("GET", PATH).read_list(ChannelView)}
    rows = [
        (
            relative(one.sent_at),
            one.status,
            one.event,
            one.level,
            names.get(one.channel_id or ""),
            one.reference_id,
            one.retry_count,
            one.error,
        )
        for one in answer.read_list(AttemptView)
    ]
    table(("WHEN", "STATUS", "EVENT", "LEVEL", "CHANNEL", "ABOUT", "RETRIES", "ERROR"), rows)
