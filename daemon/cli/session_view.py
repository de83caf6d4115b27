"""A whole session, and its process, as people read them."""

import shlex
import signal
from collections.abc import Sequence

import rich_click as click

from daemon.cli.candidates import sessions
from daemon.cli.client import Answer
from daemon.cli.output import fields, json_out, relative, span, usd
from daemon.domain.process_views import ProcessView
from daemon.domain.views import SessionDetail

session_argument = click.argument("session_ref", metavar="SESSION", shell_complete=sessions)
reason_option = click.option("--reason", help="Why; it stands in the audit log.")


def print_detail(answer: Answer, as_json: bool) -> None:
    """Print a session."""
    if as_json:
        json_out(answer.body)
        return
    view = answer.read(SessionDetail)
    constraints = bytes(view.constraints).decode()
    metadata = bytes(view.metadata).decode()
    fields(
        [
            ("id", view.id),
            ("agent", view.agent_id),
            ("made from", view.parent_id),
            ("status", view.status),
            ("state", view.state),
            ("expires", relative(view.expires_at)),
            ("ends at last", relative(view.absolute_expires_at)),
            ("ttl", span(view.ttl)),
            ("renewals", f"{view.renewal_count} of {view.max_renewals}"),
            ("generation", view.generation),
            ("renewed", relative(view.last_renewed_at)),
            ("revoked", relative(view.revoked_at)),
            ("reason", view.revoked_reason),
            ("user", view.user_id),
            ("workspace", view.workspace_id),
            ("constraints", None if constraints == "null" else constraints),
            ("metadata", None if metadata == "{}" else metadata),
            ("requests", view.request_count),
            ("last used", relative(view.last_activity)),
            ("created", f"{relative(view.created_at)} by {view.created_by}"),
            *(_process(view.process) if view.process is not None else ()),
        ]
    )


def _process(view: ProcessView) -> list[tuple[str, object]]:
    usage = view.usage
    tokens = (
        f"{usage.tokens} ({usage.input_tokens} in, {usage.output_tokens} out, "
        f"{usage.cache_read_tokens} read from the cache, {usage.cache_creation_tokens} written to it)"
    )
    return [
        ("command", command_line(view.command)),
        ("pid", view.pid),
        ("started", relative(view.started_at)),
        ("ended", ending(view.reason, view.exit_code, view.signal) or None),
        ("restarts", view.restarts or None),
        ("turns", view.turns),
        ("tokens", tokens if usage.tokens else None),
        ("cost", usd(usage.cost_usd) if usage.cost_usd else None),
    ]


def command_line(command: str | Sequence[str]) -> str:
    """Return a command as a shell would take it."""
    return command if isinstance(command, str) else shlex.join(command)


def ending(reason: str | None, exit_code: int | None, number: int | None) -> str:
    """Return how a process ended: `crashed, exit code 1`; nothing where nothing is known."""
    parts = [
        reason,
        None if exit_code is None else f"exit code {exit_code}",
        None if number is None else signal_name(number),
    ]
    return ", ".join(part for part in parts if part)


def signal_name(number: int) -> str:
    """Return what a signal is called."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
