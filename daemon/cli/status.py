"""`daemon status`: is it running, and is it well?"""

import rich_click as click

from daemon.cli import base
from daemon.cli.client import Answer, Client, accepted
from daemon.cli.failure import FAILED, NOT_RUNNING, Failure, NotRunning
from daemon.cli.output import fields, json_out, span
from daemon.domain.views import Health

_TIMEOUT = 2.0
"""Seconds; a daemon that is well answers in milliseconds."""


@click.command(cls=base.Command)
@base.json_option
def status(as_json: bool) -> None:
    """Say whether the daemon is running and well (exit 3: not running; 1: not well)."""
    try:
        client = Client(timeout=_TIMEOUT)
        answer = client.send("GET", "/health", None, {})
    except NotRunning as stopped:
        raise Failure(str(stopped), NOT_RUNNING) from None
    if answer.status not in {200, 503}:
        accepted(answer)
    health = answer.read(Health)
    if as_json:
        json_out(answer.body)
    else:
        _show(client, answer, health)
    if health.status != "ok":
        failed = (
            f"{name}: {check.detail or check.status}" for name, check in health.checks.items() if _bad(health, name)
        )
        raise Failure(f"The daemon is degraded: {'; '.join(failed)}", FAILED, hint="look at: daemon logs")


def _show(client: Client, answer: Answer, health: Health) -> None:
    fields(
        [
            ("status", health.status),
            ("version", health.version),
            ("pid", health.pid),
            ("uptime", span(health.uptime)),
            ("url", client.at.url),
            ("socket", client.at.socket),
            ("home", base.home().root if base.url() is None else None),
            ("sessions", f"{health.active_session_count} active"),
            ("kill switch", None if health.kill_switch == "NORMAL" else health.kill_switch),
        ]
    )


def _bad(health: Health, name: str) -> bool:
    return health.checks[name].status != "ok"
