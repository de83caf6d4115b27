"""Programs of the system that record how they are called, for machines without what they would speak to."""

from pathlib import Path

SCRIPT = """\
#!/bin/sh
record='{record}'
echo "{name} $*" >>"$record"
for word in "$@"; do
  if [ -f "$record.fails/$word" ]; then cat "$record.fails/$word" >&2; exit 1; fi
done
for word in "$@"; do
  if [ -f "$record.says/$word" ]; then cat "$record.says/$word"; exit 0; fi
done
"""


class StandIns:
    """A directory of them, to be the PATH.

    Args:
        directory: receives them.
        names: of the programs.
    """

    def __init__(self, directory: Path, *names: str) -> None:
        self.path = directory / "bin"
        self.path.mkdir(parents=True)
        self._record = directory / "calls"
        for name in names:
            script = self.path / name
            script.write_text(SCRIPT.format(record=self._record, name=name))
            script.chmod(0o755)
        for name in ("cat", "sh"):  # what the script itself needs
            (self.path / name).symlink_to(f"/bin/{name}")

    def calls(self) -> list[str]:
        """Return how they were called since this was asked before, a line a call."""
        found = self._record.read_text().splitlines() if self._record.exists() else []
        self._record.unlink(missing_ok=True)
        return found

    def say(self, word: str, text: str) -> None:
        """Let a call that has this word among its arguments answer this."""
        _put(Path(f"{self._record}.says/{word}"), text)

    def fail(self, word: str, text: str) -> None:
        """Let a call that has this word among its arguments fail with this."""
        _put(Path(f"{self._record}.fails/{word}"), text)

    def succeed(self, word: str) -> None:
        """Take back `fail`."""
        Path(f"{self._record}.fails/{word}").unlink(missing_ok=True)


def _put(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
