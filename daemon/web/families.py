"""Every metric: its name, what it says, and where its numbers are. How they are written down is not known here."""

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, get_args

import msgspec

from daemon import __version__
from daemon.domain.census import Census
from daemon.domain.rows import AgentStatus
from daemon.domain.states import STATES
from daemon.domain.views import Status
from daemon.histogram import Histogram
from daemon.services.ports import ProcessCounts
from daemon.web.context import Services
from daemon.web.meter import NO_ANSWER

Kind = Literal["counter", "gauge", "histogram"]
Number = float | Histogram
Sample = tuple[tuple[str, ...], Number]
"""The values of the labels, and the number."""
STATUSES: tuple[Status, ...] = get_args(Status)


class Seen(msgspec.Struct):
    """The daemon at one moment; `census` is None while the database cannot be read."""

    services: Services
    processes: ProcessCounts
    census: Census | None


class Family(msgspec.Struct, frozen=True):
    """One metric.

    Args:
        name: as it is scraped, with its unit.
        kind: of number.
        meaning: one sentence.
        labels: what its numbers are told apart by: never an id, and nothing that a client may choose.
        read: returns its numbers.
    """

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...]
    read: Callable[[Seen], Iterable[Sample]]


def _one(name: str, kind: Kind, meaning: str, read: Callable[[Seen], Number]) -> Family:
    return Family(name, kind, meaning, (), lambda seen: [((), read(seen))])


def _by(label: str, name: str, kind: Kind, meaning: str, read: Callable[[Seen], Mapping[Any, float]]) -> Family:
    return Family(name, kind, meaning, (label,), lambda seen: (((key,), value) for key, value in read(seen).items()))


def _stored(name: str, meaning: str, read: Callable[[Census], Number], *labels: str) -> Family:
    return Family(name, "gauge", meaning, labels, lambda seen: [] if seen.census is None else [((), read(seen.census))])


def _requests(seen: Seen) -> Iterator[Sample]:
    for (route, method), answers in seen.services.meter.answers.items():
        for status, count in answers.statuses.items():
            yield (_template(route), method, str(status or NO_ANSWER)), count


def _durations(seen: Seen) -> Iterator[Sample]:
    for (route, method), answers in seen.services.meter.answers.items():
        if answers.seconds is not None:
            yield (_template(route), method), answers.seconds


def _template(route: str) -> str:
    """Return a route's template as the API's description has it."""
    return route.replace(":str}", "}")


def _sessions(seen: Seen) -> Iterator[Sample]:
    if seen.census is not None:
        counts = seen.census.sessions
        yield from (((state, status), counts.get((state, status), 0)) for state in STATES for status in STATUSES)


def _agents(seen: Seen) -> Iterator[Sample]:
    if seen.census is not None:
        yield from (((status,), seen.census.agents.get(status, 0)) for status in get_args(AgentStatus))


def _build(_seen: Seen) -> Iterator[Sample]:
    yield (__version__, platform.python_version()), 1


def _failing(seen: Seen) -> dict[str, float]:
    return {worker.name: worker.last_error is not None for worker in seen.services.admin.workers()}


FAMILIES: tuple[Family, ...] = (
    Family("daemon_build_info", "gauge", "Always 1; the labels say what is running.", ("version", "python"), _build),
    Family(
        "daemon_http_requests_total",
        "counter",
        "Requests that were answered, by the template of their route, method and status; what reached no route is"
        " `unrouted`, and what got no answer `none`.",
        ("route", "method", "code"),
        _requests,
    ),
    Family(
        "daemon_http_request_duration_seconds",
        "histogram",
        "How long requests took, but for those to routes that may answer with a stream.",
        ("route", "method"),
        _durations,
    ),
    _by(
        "reader",
        "daemon_streams",
        "gauge",
        "Streams of events and output that are open, by who reads them: `owner` or `session`.",
        lambda seen: seen.services.streams.open_by_reader(),
    ),
    _by(
        "result",
        "daemon_token_checks_total",
        "counter",
        "Checks of session tokens: `ok`, or the code of the refusal.",
        lambda seen: seen.services.auth.results.counts,
    ),
    _by(
        "result",
        "daemon_renewals_total",
        "counter",
        "Renewals by tokens that were accepted: `ok`, a repeated answer included, or the code of the refusal.",
        lambda seen: seen.services.tokens.renewals.counts,
    ),
    Family(
        "daemon_sessions",
        "gauge",
        "Sessions that are kept, by life-cycle state and by whether their token may be used.",
        ("state", "status"),
        _sessions,
    ),
    Family("daemon_agents", "gauge", "Agents by status.", ("status",), _agents),
    _by(
        "type",
        "daemon_events_total",
        "counter",
        "Events of the audit log by type; on a shared database those of all daemons.",
        lambda seen: seen.services.measures.events,
    ),
    _one(
        "daemon_kill_switch_on",
        "gauge",
        "1 while the kill switch is on, until the recovery is over.",
        lambda seen: seen.services.measures.locked,
    ),
    _one(
        "daemon_database_up",
        "gauge",
        "Whether the database could be read; while it is 0 there are no numbers of what is stored.",
        lambda seen: seen.census is not None,
    ),
    _one(
        "daemon_commit_batch_size",
        "histogram",
        "Changes that shared a commit.",
        lambda seen: seen.services.measures.commits.sizes,
    ),
    _one(
        "daemon_commit_duration_seconds",
        "histogram",
        "From the beginning of a transaction to the end of its commit.",
        lambda seen: seen.services.measures.commits.seconds,
    ),
    _one(
        "daemon_commit_failures_total",
        "counter",
        "Transactions that failed, with all changes in them.",
        lambda seen: seen.services.measures.commits.failed,
    ),
    _one(
        "daemon_session_cache_sessions",
        "gauge",
        "Sessions in memory.",
        lambda seen: seen.services.measures.cache_use().sessions,
    ),
    _one(
        "daemon_session_cache_hits_total",
        "counter",
        "Tokens whose session was in memory.",
        lambda seen: seen.services.measures.cache_use().hits,
    ),
    _one(
        "daemon_session_cache_misses_total",
        "counter",
        "Times that a session had to be read from the database.",
        lambda seen: seen.services.measures.cache_use().misses,
    ),
    _stored("daemon_outbox_pending", "Messages to the owner that wait to be sent.", lambda census: census.pending),
    _stored(
        "daemon_outbox_failed",
        "Messages that wait and could not be sent at least once.",
        lambda census: census.failed,
    ),
    _stored(
        "daemon_outbox_oldest_age_seconds",
        "How long the oldest message has waited; 0 where none waits.",
        lambda census: census.oldest,
    ),
    _by(
        "state",
        "daemon_processes",
        "gauge",
        "Sessions on this machine that have a process which is not over, by life-cycle state.",
        lambda seen: {state: seen.processes.states.get(state, 0) for state in STATES},
    ),
    _one(
        "daemon_processes_running",
        "gauge",
        "Sessions whose process runs on this machine.",
        lambda seen: seen.processes.running,
    ),
    _one(
        "daemon_processes_members",
        "gauge",
        "Processes of the system that belong to them, within the last 10 s.",
        lambda seen: seen.processes.processes,
    ),
    _one(
        "daemon_processes_resident_memory_bytes",
        "gauge",
        "Memory that those take.",
        lambda seen: seen.processes.rss,
    ),
    _one(
        "daemon_event_loop_lag_seconds",
        "histogram",
        "How late the event loop was for something that was due, four times a second.",
        lambda seen: seen.services.measures.loop_lag,
    ),
    _by(
        "worker",
        "daemon_worker_failing",
        "gauge",
        "1 for each background task whose last run failed.",
        _failing,
    ),
)
"""Every metric but those about the process itself, which have the names that they have everywhere (`process_…`)."""


def table() -> str:
    """Return the metrics as a Markdown table."""
    rows = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for family in FAMILIES:
        labels = " ".join(f"`{label}`" for label in family.labels)
        rows.append(f"| `{family.name}` | {family.kind} | {labels} | {family.meaning} |")
    return "\n".join(rows) + "\n"
