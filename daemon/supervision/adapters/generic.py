"""Any command that reads and writes lines: a message is one line, and silence ends a turn."""

from daemon.domain.process_config import ProcessConfig
from daemon.supervision.adapters.adapter import Meaning, Resumption

DEFAULT_QUIET = 0.5
"""Seconds without output after which a turn is over."""


class Generic:
    """Speaks with a command that knows nothing of turns.

    Args:
        config: of the process.
    """

    def __init__(self, config: ProcessConfig) -> None:
        self._config = config
        self.quiet_after: float | None = (config.quiet_after or DEFAULT_QUIET * 1000) / 1000
        self.tool_timeout = 0

    def arguments(self, begin: Resumption) -> list[str]:
        """Return the command to run: a run begins anew."""
        return list(self._config.command)

    def line(self, content: str) -> bytes:
        """Return a message as one line: its own line ends become blanks."""
        return " ".join(content.splitlines()).encode() + b"\n"

    def interruption(self, number: int) -> bytes | None:
        """Return None: there is no line that every command understands."""
        return None

    def meaning(self, line: bytes) -> Meaning | None:
        """Return None: every line is text."""
        return None
