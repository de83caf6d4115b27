"""The Litestar app: one router for each group of routes, each with its guard."""

from typing import Any

from litestar import Litestar, Router
from litestar.middleware import DefineMiddleware

from daemon.web.middleware.guards import EitherGuard, OwnerGuard, SessionGuard, VerifierGuard
from daemon.web.middleware.rate import SessionRates
from daemon.web.options import NoAutomaticOptions
from daemon.web.problems import handle_exception
from daemon.web.routes import (
    admin,
    agents,
    channels,
    conversations,
    delegation,
    events,
    kill_switch,
    oauth,
    own,
    processes,
    public,
    reject,
    sessions,
    verifiers,
)

_OWNER = [
    *agents.HANDLERS,
    *sessions.HANDLERS,
    *delegation.OF_OWNER,
    *admin.HANDLERS,
    *kill_switch.HANDLERS,
    *channels.HANDLERS,
    *conversations.OF_OWNER,
    *events.OF_OWNER,
    *processes.OF_OWNER,
    *verifiers.HANDLERS,
]


def make_app(rates: SessionRates, *, metrics: bool = False) -> Litestar:
    """Return the app.

    Args:
        rates: counts the requests of each session and verifier.
        metrics: whether there is a route for them; without, its path is unknown like any other.
    """
    return Litestar(
        route_handlers=[
            Router("/", route_handlers=_public(metrics=metrics), opt={"group": "public"}),
            Router("/", route_handlers=reject.HANDLERS, opt={"group": "link"}),
            Router("/", route_handlers=_OWNER, middleware=[OwnerGuard], opt={"group": "owner"}),
            Router(
                "/",
                route_handlers=[*own.HANDLERS, *delegation.OF_AGENT, *conversations.OF_AGENT, *events.OF_AGENT],
                middleware=[DefineMiddleware(SessionGuard, rates=rates)],
                opt={"group": "agent"},
            ),
            Router(
                "/",
                route_handlers=processes.OF_EITHER,
                middleware=[DefineMiddleware(EitherGuard, rates=rates)],
                opt={"group": "either"},
            ),
            Router(
                "/",
                route_handlers=oauth.HANDLERS,
                middleware=[DefineMiddleware(VerifierGuard, rates=rates)],
                opt={"group": "verifier"},
            ),
        ],
        exception_handlers={Exception: handle_exception},
        plugins=[NoAutomaticOptions()],
        openapi_config=None,
        logging_config=None,
    )


def _public(*, metrics: bool) -> list[Any]:
    if not metrics:
        return public.HANDLERS
    # Imported here: prometheus_client takes 15 ms of the start and 1.3 MiB, and most do without metrics.
    from daemon.web.routes.metrics import handlers  # noqa: PLC0415

    return [*public.HANDLERS, *handlers()]
