"""The structured log as an interface: every event name, its level, fields and meaning, and how a line reads.

Imported by the command line too: standard library, msgspec and the domain only.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from daemon.domain.events import Fact
from daemon.domain.facts import kinds

Level = Literal["debug", "info", "warning", "error"]
LEVELS: dict[str, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40}
"""Levels by name, in the numbers of the standard library's `logging`."""
SEVERITY_LEVEL: dict[str, Level] = {"info": "info", "warning": "warning", "critical": "error"}
"""The level of an audit event's line by the event's severity."""
AUDIT_FIELDS = ("seq", "timestamp", "actor", "ipAddress")
"""What the line of an audit event carries before the event's own details."""


class LogEvent(msgspec.Struct, frozen=True):
    """One entry of the catalogue.

    Args:
        level: of its lines, unless the emitter says otherwise.
        meaning: one sentence.
        fields: the event's own fields, camelCase, as they stand on the line.
        order: the same in the order of their declaration.
    """

    level: Level
    meaning: str
    fields: frozenset[str]
    order: tuple[str, ...]


def _event(level: Level, meaning: str, *fields: str) -> LogEvent:
    return LogEvent(level, meaning, frozenset(fields), fields)


_TWO_WORD_NOUNS = ("KILL_SWITCH", "AUTO_STOP", "MASTER_AUTH")


def log_name(event_type: str) -> str:
    """Return the log name of an audit event: noun, dot, rest: `SESSION_RENEWED` is `session.renewed`."""
    for noun in _TWO_WORD_NOUNS:
        if event_type.startswith(noun + "_"):
            return f"{noun}.{event_type[len(noun) + 1 :]}".lower()
    return event_type.replace("_", ".", 1).lower()


def _details(fact: type[Fact]) -> tuple[str, ...]:
    pairs = zip(fact.__struct_fields__, fact.__struct_encode_fields__, strict=True)
    return tuple(name for field, name in pairs if field not in {"agent_id", "session_id"})


def _audit(fact: type[Fact]) -> LogEvent:
    meaning = (fact.__doc__ or "").partition("\n")[0]
    return _event(SEVERITY_LEVEL[fact.severity], meaning, *AUDIT_FIELDS, *_details(fact))


OPERATIONAL: dict[str, LogEvent] = {
    "daemon.starting": _event("info", "The daemon begins to start.", "version", "pid", "home"),
    "daemon.initialised": _event("info", "A first start made the home, the database and the password.", "home"),
    "daemon.ready": _event(
        "info", "The daemon answers requests.", "url", "socket", "home", "logFile", "pid", "version"
    ),
    "daemon.stopping": _event("info", "The daemon stops taking new work and drains.", "reason", "inFlight"),
    "daemon.failed": _event("error", "The daemon could not start or stop in good order.", "step", "reason"),
    "http.request": _event("info", "A request was answered.", "method", "route", "status", "durationMs", "actor"),
    "request.failed": _event("error", "The cause of an INTERNAL_ERROR.", "exception", "traceback"),
    "connections.refused": _event("warning", "New connections are closed: there are too many.", "limit", "refused"),
    "audit.checkpoint": _event("info", "The head of the audit chain, for `daemon audit verify`.", "seq", "hash"),
    "config.invalid": _event("error", "A reload found the configuration invalid; the old one stays.", "problems"),
    "clock.held": _event("warning", "The wall clock stepped back; the domain time waits for it.", "seconds"),
    "clock.reset": _event("warning", "The domain time followed a step back of more than a day.", "now"),
    "clock.skewed": _event("warning", "The database's clock is ahead of this machine's; its time is taken.", "seconds"),
    "storage.lost": _event(
        "warning", "The database's word of other daemons' changes does not come any more.", "reason"
    ),
    "storage.recovered": _event("info", "The database tells of other daemons' changes again."),
    "storage.failed": _event("error", "The database could not be read or written.", "operation", "reason"),
    "worker.failed": _event("error", "A background task failed; it runs again.", "worker", "exception", "traceback"),
    "migration.applied": _event("info", "The database schema went one step forward.", "number", "name", "durationMs"),
    "delivery.attempted": _event(
        "info",
        "A message was sent to a channel, or could not be.",
        "channelId",
        "eventType",
        "eventSeq",
        "status",
        "error",
    ),
    "answers.unreachable": _event(
        "warning", "A channel's service cannot be asked for the owner's answers.", "channelId", "reason"
    ),
    "process.not_started": _event("warning", "The process of a session could not be started.", "reason"),
    "process.unscoped": _event(
        "warning", "systemd made no scope for the process of a session: it runs inside of the daemon's.", "reason"
    ),
    "process.limit": _event("warning", "A process is ended because it is over a limit.", "limit"),
    "process.shutdown": _event("info", "Processes were ended because the daemon stops.", "killed", "left"),
    "process.left": _event("error", "Processes of a session cannot be ended; it is tried again.", "pids"),
    "process.failed": _event(
        "error", "The process of a session could not be minded; it is tried again.", "exception", "traceback"
    ),
    "conversations.degraded": _event(
        "warning", "Redis cannot be asked, or not by another daemon: the engine answers for conversations.", "reason"
    ),
    "conversations.recovered": _event(
        "info", "Redis answers for conversations again, and got what it had missed.", "copied"
    ),
    "conversations.replaced": _event("warning", "A key in Redis held what is no conversation; it was written over."),
    "log.dropped": _event(
        "warning", "Lines were lost: disk full, too many, or nobody reads stdout.", "count", "stdout"
    ),
    "library.message": _event("warning", "A library says something.", "logger", "message", "exception", "traceback"),
}
"""What the daemon says about itself; facts about agents and sessions are audit events."""

AUDIT: dict[str, LogEvent] = {log_name(fact.type): _audit(fact) for fact in kinds()}
"""Every audit event by its log name."""

EVENTS: dict[str, LogEvent] = {**OPERATIONAL, **AUDIT}
"""Every event name that a line may carry."""


def table() -> str:
    """Return the catalogue as the README's Markdown table."""
    rows = [
        f"| `{name}` | {event.level} | {' '.join(f'`{field}`' for field in event.order)} | {event.meaning} |"
        for name, event in EVENTS.items()
    ]
    return "\n".join(["| event | level | fields | meaning |", "|---|---|---|---|", *rows]) + "\n"


# --- secrets: nothing emits one; this is the last line of defence

_TOKEN = re.compile(rb"wai_[a-z]+_[A-Za-z0-9._~+/=%-]+")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


def masked(line: bytes) -> bytes:
    """Return the line with everything that has the shape of a token made unreadable."""
    return _TOKEN.sub(b"wai_***", line) if b"wai_" in line else line


def masked_message(text: str) -> str:
    """Return an exception's message without its quoted parts: those are the values it stumbled over."""
    return _QUOTED.sub("'***'", text)


# --- reading


def for_people(line: bytes) -> str:
    """Return a line of the log as people read it; a line that is no JSON object comes back as text."""
    try:
        record: dict[str, Any] = msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.DecodeError:
        return _printable(line.decode(errors="replace").rstrip("\n"))
    time, level, event = (str(record.pop(key, "")) for key in ("ts", "level", "event"))
    return f"{_printable(time[11:23])} {_printable(level.upper()):7} {_printable(event):24} {pairs(record)}".rstrip()


def pairs(record: dict[str, Any]) -> str:
    """Return `key=value` for every value that is not None, fit for a terminal."""
    return " ".join(f"{_printable(key)}={_value(value)}" for key, value in record.items() if value is not None)


def _value(value: Any) -> str:
    if isinstance(value, str) and value and not set(value) & set(' "='):
        return _printable(value)
    return _printable(msgspec.json.encode(value).decode())


def _printable(text: str) -> str:
    # A terminal obeys control characters, and names in the log are chosen by callers.
    return text if text.isprintable() else ascii(text)[1:-1]


def log_files(log_file: Path) -> list[Path]:
    """Return the log and its rotated predecessors that exist, newest first."""
    numbered = []
    for path in log_file.parent.glob(log_file.name + ".*"):
        suffix = path.name[len(log_file.name) + 1 :]
        if suffix.isdecimal() and suffix.isascii():
            numbered.append((int(suffix), path))
    current = [log_file] if log_file.exists() else []
    return current + [path for _, path in sorted(numbered)]


class _SeqLine(msgspec.Struct):
    event: str = ""
    seq: int | None = None


_SEQ_LINE = msgspec.json.Decoder(_SeqLine)
_BLOCK = 1 << 20


def last_logged_seq(log_file: Path) -> int | None:
    """Return the `seq` of the newest audit event in the log and its rotated predecessors; None if there is none."""
    for path in log_files(log_file):
        for line in _lines_backwards(path):
            if b'"seq":' in line and (seq := _audit_seq(line)) is not None:
                return seq
    return None


def _audit_seq(line: bytes) -> int | None:
    try:
        record = _SEQ_LINE.decode(line)
    except msgspec.DecodeError:
        return None
    return record.seq if record.event in AUDIT else None


def _lines_backwards(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        position = file.seek(0, os.SEEK_END)
        tail = b""
        while position > 0:
            step = min(_BLOCK, position)
            position -= step
            file.seek(position)
            first, *whole = (file.read(step) + tail).split(b"\n")
            yield from reversed(whole)
            tail = first
        yield tail
