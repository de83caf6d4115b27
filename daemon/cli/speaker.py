"""What a process says, as people read it: the words of Claude Code, any other line but for what steers a terminal."""

import re

import msgspec
import rich_click as click

from daemon.cli.output import one_line
from daemon.cli.process_output import Line
from daemon.domain.process_config import CLAUDE

_STEERING = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # control sequences, colours among them (ECMA-48, section 5.4)
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)"  # control strings: titles, clipboards (section 5.6)
    r"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
)
_LONGEST = 64 << 20
"""Characters of a line that is put together again; of a longer one the rest is left out."""


class _Part(msgspec.Struct):
    type: str = ""
    text: str = ""
    name: str = ""


class _Message(msgspec.Struct):
    content: list[_Part] | str = ""


class _Type(msgspec.Struct):
    type: str = ""


class _Assistant(msgspec.Struct):
    message: _Message
    parent_tool_use_id: str | None = None


class _Result(msgspec.Struct):
    subtype: str = ""
    result: str = ""


class Speaker:
    """Prints lines.

    Args:
        command: that writes them.
        raw: print them as they are.
    """

    def __init__(self, command: str | list[str], *, raw: bool) -> None:
        self._raw = raw
        self._claude = command == CLAUDE
        self._pieces: list[str] = []
        self._length = 0
        self._said = ""

    def say(self, line: Line) -> None:
        """Print a line."""
        if self._raw:
            click.echo(line.line, nl=line.kind != "piece")
        elif not self._claude:
            click.echo(harmless(line.line), nl=line.kind != "piece")
        else:
            self._collect(line)

    def _collect(self, line: Line) -> None:
        if self._length < _LONGEST:
            self._pieces.append(line.line)
            self._length += len(line.line)
        if line.kind != "piece":
            whole = "".join(self._pieces)
            self._pieces, self._length = [], 0
            self._interpret(whole)

    def _interpret(self, line: str) -> None:
        try:
            kind = msgspec.json.decode(line, type=_Type).type
            if kind == "assistant":
                self._answer(msgspec.json.decode(line, type=_Assistant))
            elif kind == "result":
                self._result(msgspec.json.decode(line, type=_Result))
        except (ValueError, RecursionError):
            click.echo(harmless(line))

    def _answer(self, said: _Assistant) -> None:
        if said.parent_tool_use_id is not None:  # of an agent that it has sent out itself
            return
        content = said.message.content
        for part in [_Part("text", content)] if isinstance(content, str) else content:
            if part.type == "text" and part.text:
                self._said = part.text
                click.echo(harmless(part.text))
            elif part.type == "tool_use":
                aside(part.name)

    def _result(self, said: _Result) -> None:
        """Print the result of a turn, unless it was just said."""
        if said.result and said.result.strip() != self._said.strip():
            click.echo(harmless(said.result))
        if said.subtype != "success":
            aside(said.subtype)
        self._said = ""


def harmless(text: str) -> str:
    """Return text that cannot steer a terminal, nor make it answer as if somebody typed; line ends stay."""
    return _STEERING.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def aside(text: str) -> None:
    """Tell the person, dimly, what is not what the process says."""
    click.echo(click.style(f"· {one_line(text)}", dim=True), err=True)
