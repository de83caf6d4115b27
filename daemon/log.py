"""The structured log: one JSON object a line, written by a thread of its own.

Names, fields and levels are declared in `log_events.py`.
"""

import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from daemon.domain.events import Event
from daemon.log_events import EVENTS, LEVELS, SEVERITY_LEVEL, Level, for_people, log_name, masked, masked_message
from daemon.log_sinks import FileSink, StreamSink

QUEUE_LIMIT = 20_000
"""Lines kept in memory while they cannot be written."""
_PAUSE = 0.02
"""Seconds between two writes under load: lines are written together instead of waking the thread for each."""
_RETRY = 0.5
"""Seconds until lines that could not be written are tried again."""
_TRACEBACK_LIMIT = 8_192
"""Characters of a traceback that are kept: its end, where the error is."""

_Line = tuple[float, str, str, str | None, str | None, str | None, dict[str, Any]]


def cause_fields(exc: BaseException) -> dict[str, Any]:
    """Return the fields `exception` and `traceback` of a line about an exception, without the values in messages."""
    frames: list[str] = []
    link: BaseException | None = exc
    while link is not None:
        text = "".join(traceback.format_tb(link.__traceback__))
        frames.insert(0, f"{text}{type(link).__name__}: {masked_message(str(link))}\n")
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return {"exception": type(exc).__name__, "traceback": "".join(frames)[-_TRACEBACK_LIMIT:]}


class Log:
    """Writes declared events to a file, and to standard output in the foreground.

    Args:
        file: the log file.
        level: the least level that is written.
        max_size: bytes at which the file is rotated.
        max_files: rotated files that are kept.
        stdout: a descriptor to write to as well; None for the file alone.
        console: render the lines on `stdout` for people; the file is always JSON.
        wall: returns Unix seconds.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(
        self,
        file: Path,
        *,
        level: Level = "info",
        max_size: int = 50 << 20,
        max_files: int = 5,
        stdout: int | None = None,
        console: bool = False,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._sink = FileSink(file, max_size, max_files)
        self._stream = None if stdout is None else StreamSink(stdout, QUEUE_LIMIT)
        self._console = console
        self._least = LEVELS[level]
        self._wall = wall
        self._queue: deque[_Line | threading.Event] = deque()
        self._unwritten: list[bytes] = []
        self._dropped = (0, 0)
        self._drop_lock = threading.Lock()
        self._reopen = False
        self._stopping = False
        self._stamped = (-1, "")
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._bridge = _Bridge(self)
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    # --- emitting: any thread, never blocks

    def emit(
        self,
        event: str,
        /,
        *,
        level: Level | None = None,
        request_id: str | None = None,
        session_id: str | None = None,
        agent_id: str | None = None,
        **fields: Any,
    ) -> None:
        """Queue one line; it is written soon, and counted if it cannot be.

        Args:
            event: a name of the catalogue.
            level: instead of the catalogue's.
            request_id: of the HTTP request this is about, if any.
            session_id: likewise.
            agent_id: likewise.
            fields: the event's own fields as the catalogue spells them.

        Raises:
            TypeError: the catalogue does not declare the event or one of the fields.
        """
        declared = EVENTS.get(event)
        if declared is None or not declared.fields.issuperset(fields):
            raise TypeError(f"the log's catalogue has no {event} with {', '.join(fields)}")
        rank = level or declared.level
        if LEVELS[rank] < self._least:
            return
        if len(self._queue) >= QUEUE_LIMIT:
            self._drop(1)
            return
        self._queue.append((self._wall(), rank, event, request_id, session_id, agent_id, fields))
        if not self._wake.is_set():
            self._wake.set()

    def audit(self, event: Event) -> None:
        """Queue the line of an audit event after its commit, under its log name and with its `seq`."""
        details: dict[str, Any] = msgspec.json.decode(event.details)
        fields = {"seq": event.seq, "timestamp": event.timestamp, "actor": event.actor, "ipAddress": event.ip_address}
        self.emit(
            log_name(event.type),
            level=SEVERITY_LEVEL[event.severity],
            request_id=event.request_id,
            session_id=event.session_id,
            agent_id=event.agent_id,
            **fields,
            **details,
        )

    def failure(self, event: str, exc: BaseException, /, *, request_id: str | None = None, **fields: Any) -> None:
        """Queue a line about an exception, with its type and scrubbed traceback."""
        self.emit(event, request_id=request_id, **fields, **cause_fields(exc))

    # --- operating

    def reconfigure(self, *, level: Level, max_size: int, max_files: int, console: bool) -> None:
        """Take new settings while running; arguments as of the constructor."""
        self._least = LEVELS[level]
        self._sink.max_size, self._sink.max_files = max_size, max_files
        self._console = console

    def reopen(self) -> None:
        """Open the file anew before the next line: an external logrotate has moved it."""
        self._reopen = True
        self._wake.set()

    def capture_libraries(self) -> None:
        """Make `library.message` lines of what libraries say to `logging` at WARNING and above."""
        root = logging.getLogger()
        root.setLevel(logging.WARNING)
        root.addHandler(self._bridge)

    def flush(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until what was emitted is written, and return whether it is."""
        if not self._thread.is_alive():
            return not self._queue
        done = threading.Event()
        self._queue.append(done)
        self._hurry.set()
        self._wake.set()
        if not done.wait(timeout):
            return False
        return self._stream is None or self._stream.flush(timeout)

    def close(self, timeout: float) -> bool:
        """Write what is queued within `timeout` seconds, stop, and return whether everything was written."""
        logging.getLogger().removeHandler(self._bridge)
        complete = self.flush(timeout)
        self._stopping = True
        self._hurry.set()
        self._wake.set()
        self._thread.join(timeout)
        if self._stream is not None:
            self._stream.close(timeout)
        return complete and not self._thread.is_alive()

    def _drop(self, count: int = 0, *, stdout: int = 0) -> None:
        if count or stdout:
            with self._drop_lock:
                self._dropped = (self._dropped[0] + count, self._dropped[1] + stdout)

    # --- the writer's thread

    def _run(self) -> None:
        while True:
            self._wake.wait(_RETRY if self._unwritten or any(self._dropped) else None)
            self._wake.clear()
            self._drain()
            if self._stopping:
                break
            self._hurry.wait(_PAUSE)
            self._hurry.clear()
        self._sink.close()

    def _drain(self) -> None:
        lines = self._report_dropped()
        flushed: list[threading.Event] = []
        for _ in range(len(self._queue)):
            item = self._queue.popleft()
            if isinstance(item, tuple):
                lines.append(self._encode(item))
            else:
                flushed.append(item)
        if self._stream is not None and lines:
            shown = [for_people(line).encode() + b"\n" for line in lines] if self._console else lines
            self._drop(stdout=len(lines) - self._stream.write(shown))
        self._write(lines)
        if self._unwritten and not self._stopping:
            self._queue.extendleft(reversed(flushed))
            return
        for done in flushed:
            done.set()

    def _report_dropped(self) -> list[bytes]:
        if self._unwritten or not any(self._dropped):
            return []
        with self._drop_lock:
            (count, stdout), self._dropped = self._dropped, (0, 0)
        fields = {"count": count, "stdout": stdout}
        return [self._encode((self._wall(), "warning", "log.dropped", None, None, None, fields))]

    def _write(self, lines: list[bytes]) -> None:
        if self._reopen:
            self._reopen_file()
        pending = self._unwritten + lines if self._unwritten else lines
        self._unwritten = pending[self._sink.write(pending) :]
        # The newest go: after a restart audit events are logged again from the last one that is in the file.
        self._drop(max(0, len(self._unwritten) - QUEUE_LIMIT))
        del self._unwritten[QUEUE_LIMIT:]

    def _reopen_file(self) -> None:
        try:
            self._sink.reopen()
        except OSError:
            return
        self._reopen = False

    def _encode(self, line: _Line) -> bytes:
        wall, level, event, request_id, session_id, agent_id, fields = line
        record: dict[str, Any] = {"ts": self._stamp(wall), "level": level, "event": event}
        if request_id is not None:
            record["requestId"] = request_id
        if session_id is not None:
            record["sessionId"] = session_id
        if agent_id is not None:
            record["agentId"] = agent_id
        record.update(fields)
        try:
            return masked(_encode(record)) + b"\n"
        except (TypeError, ValueError):
            # A value that JSON cannot carry must not end the log's thread.
            return masked(_encode(record | {key: ascii(value) for key, value in fields.items()})) + b"\n"

    def _stamp(self, wall: float) -> str:
        """Return RFC 3339 in UTC with milliseconds (RFC 3339, section 5.6)."""
        millis = int(wall * 1000)
        if millis != self._stamped[0]:
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(millis // 1000))
            self._stamped = (millis, f"{text}.{millis % 1000:03d}Z")
        return self._stamped[1]


_encode = msgspec.json.Encoder().encode


class _Bridge(logging.Handler):
    """Turns what libraries log into `library.message` lines."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        level: Level = "error" if record.levelno >= logging.ERROR else "warning"
        exc = record.exc_info[1] if record.exc_info else None
        cause = cause_fields(exc) if exc is not None else {}
        try:
            message = masked_message(record.getMessage())
        except (TypeError, ValueError):
            message = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
        self._log.emit("library.message", level=level, logger=record.name, message=message, **cause)
