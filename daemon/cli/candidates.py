"""What may stand where a command takes an agent, a session, a channel, an event …: the candidates of completion.

Who has no owner ticket in the environment is offered no names: nobody is asked for a password while they type, and a
password from a variable would cost a hash for each Tab.
"""

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import rich_click as click
from click.shell_completion import CompletionItem

from daemon.cli.client import PAGE, Client
from daemon.cli.credentials import ticket
from daemon.cli.failure import Failure
from daemon.cli.output import relative
from daemon.domain.message_views import ChannelView
from daemon.domain.oauth_views import VerifierView
from daemon.domain.views import AgentView, SessionSummary

Item = CompletionItem[str]
Completer = Callable[[click.Context, click.Parameter, str], list[Item]]
T = TypeVar("T")

_SECONDS = 0.5
"""A daemon that is well answers in milliseconds; nobody waits longer for it while they type."""


def one_of(values: Callable[[], Iterable[str]]) -> Completer:
    """Return what offers these words; they are asked for only when somebody completes one."""

    def complete(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[Item]:
        return [Item(value) for value in values() if value.startswith(incomplete)]

    return complete


def agents(*statuses: str) -> Completer:
    """Return what offers agents of these statuses (of none: those that are not terminated), by name or else by id."""

    def complete(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[Item]:
        found = [one for one in _asked(ctx, f"/v1/agents?limit={PAGE}", AgentView) if _is_wanted(one.status, statuses)]
        return list(_named(((one.id, one.name) for one in found), incomplete))

    return complete


def channels(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[Item]:
    """Offer notification channels, by name or else by id."""
    found = _asked(ctx, "/v1/owner/notification-channels", ChannelView)
    return list(_named(((one.id, one.name) for one in found), incomplete))


def verifiers(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[Item]:
    """Offer verifiers that are not revoked, by name or else by id."""
    found = _asked(ctx, f"/v1/owner/verifiers?limit={PAGE}", VerifierView)
    return list(_named(((one.id, one.name) for one in found if one.revoked_at is None), incomplete))


def sessions(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[Item]:
    """Offer sessions that are not revoked, with whose they are and what they do."""
    found = _asked(ctx, f"/v1/owner/sessions?limit={PAGE}", SessionSummary)
    names = {one.id: one.name for one in _asked(ctx, f"/v1/agents?limit={PAGE}", AgentView)} if found else {}
    return [
        Item(one.id, help=f"{names.get(one.agent_id, one.agent_id)}, {one.state}, {relative(one.created_at)}")
        for one in found
        if one.id.startswith(incomplete)
    ]


variables = one_of(lambda: sorted(os.environ))
"""Offers the names of this shell's exported variables."""


def event_types() -> Iterable[str]:
    """Return the types of events."""
    # Imported here: only who completes one needs them.
    from daemon.domain.facts import kinds  # noqa: PLC0415

    return sorted(kind.type for kind in kinds())


def _is_wanted(status: str, statuses: tuple[str, ...]) -> bool:
    return status in statuses if statuses else status != "TERMINATED"


def _named(found: Iterable[tuple[str, str]], incomplete: str) -> Iterator[Item]:
    """Yield each by its name, where that says which one is meant; by its id otherwise, or when an id is typed."""
    known = list(found)
    named = Counter(name for _, name in known)
    for identity, name in known:
        if named[name] == 1 and not name.startswith("-") and name.startswith(incomplete):
            yield Item(name)
        elif identity.startswith(incomplete) and (incomplete or named[name] > 1 or name.startswith("-")):
            yield Item(identity, help=name)


def _asked(ctx: click.Context, target: str, kind: type[T]) -> list[T]:
    """Return what the daemon lists for the owner; nothing without a daemon, or without a ticket that it accepts."""
    credential = ticket()
    if credential is None:
        return []
    try:
        with ctx.scope(cleanup=False), _deadline():
            answer = Client(timeout=_SECONDS).send("GET", target, None, credential.headers)
        return answer.read_list(kind) if answer.status == 200 else []
    except Failure:
        return []


@contextmanager
def _deadline() -> Iterator[None]:
    """End this process in silence when the answer takes too long, even inside of a resolver that cannot be told."""
    timer = threading.Timer(_SECONDS, os._exit, (0,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
