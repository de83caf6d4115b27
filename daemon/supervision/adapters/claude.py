"""Claude Code: stream-json in and out, one `result` line a turn."""

from typing import Any

import msgspec

from daemon.domain.process_config import CLAUDE, ProcessConfig
from daemon.domain.process_rows import TurnState
from daemon.domain.usage import Usage
from daemon.supervision.adapters.adapter import Meaning, NothingToResume, Resumption, ToolsChanged, TurnOver

_STREAMING = ["-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose"]


class _ModelUsage(msgspec.Struct, rename="camel"):
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0


class _Part(msgspec.Struct):
    type: str = ""
    id: str = ""
    tool_use_id: str = ""


class _Message(msgspec.Struct):
    content: msgspec.Raw = msgspec.Raw(b"[]")


class _Line(msgspec.Struct):
    type: str = ""
    subtype: str = ""
    is_error: bool = False
    num_turns: int = 0
    terminal_reason: str = ""
    total_cost_usd: float = 0.0
    model_usage: dict[str, _ModelUsage] = msgspec.field(name="modelUsage", default_factory=dict)
    origin: msgspec.Raw | None = None
    message: _Message | None = None


_decode = msgspec.json.Decoder(_Line).decode
_parts = msgspec.json.Decoder(list[_Part]).decode
_encode = msgspec.json.Encoder().encode


class Claude:
    """Speaks with the Claude Code CLI.

    Args:
        config: of the process.
    """

    def __init__(self, config: ProcessConfig) -> None:
        self._config = config
        self.quiet_after: float | None = None
        self.tool_timeout = config.tool_timeout or 0

    def arguments(self, begin: Resumption) -> list[str]:
        """Return the command to run; what it may still spend is what the runs before have left."""
        config = self._config
        words = [CLAUDE, *_STREAMING, "--resume" if begin.resumes else "--session-id", begin.external_id]
        if config.model is not None:
            words += ["--model", config.model]
        if config.max_turns is not None:
            words += ["--max-turns", str(config.max_turns)]
        if config.system_prompt is not None:
            words += ["--append-system-prompt", config.system_prompt]
        if config.allowed_tools:
            words.append(f"--allowedTools={','.join(config.allowed_tools)}")
        if config.budget is not None and config.budget.max_cost_usd is not None:
            left = max(0.0, config.budget.max_cost_usd - begin.spent_usd)
            words += ["--max-budget-usd", f"{left:.6f}".rstrip("0").rstrip(".")]
        return words

    def line(self, content: str) -> bytes:
        """Return a message as the CLI reads it."""
        text: dict[str, Any] = {"type": "text", "text": content}
        return _encode({"type": "user", "message": {"role": "user", "content": [text]}}) + b"\n"

    def interruption(self, number: int) -> bytes | None:
        """Return the control request that ends the running turn and nothing else."""
        request = {"type": "control_request", "request_id": f"interrupt-{number}", "request": {"subtype": "interrupt"}}
        return _encode(request) + b"\n"

    def meaning(self, line: bytes) -> Meaning | None:
        """Return what a line means: `result` ends the turn, the others tell of tools."""
        try:
            said = _decode(line)
        except msgspec.MsgspecError:
            return None
        if said.type == "result":
            return _over(said)
        if said.type in {"assistant", "user"} and said.message is not None:
            return _tools(said.message)
        return None


def _over(said: _Line) -> Meaning:
    if said.subtype == "error_during_execution" and said.num_turns == 0:  # before it has read anything
        return NothingToResume()
    used = said.model_usage.values()
    return TurnOver(
        outcome=_outcome(said),
        # Unlike `usage`, which tells of one turn and not of every answer, these add up over the run, as the cost does.
        run_usage=Usage(
            input_tokens=sum(one.input_tokens for one in used),
            output_tokens=sum(one.output_tokens for one in used),
            cache_read_tokens=sum(one.cache_read_input_tokens for one in used),
            cache_creation_tokens=sum(one.cache_creation_input_tokens for one in used),
            cost_usd=said.total_cost_usd,
        ),
        resumable=True,
    )


def _outcome(said: _Line) -> TurnState | None:
    if said.origin is not None:  # a task in the background that was finished, not a message
        return None
    if said.terminal_reason.startswith("aborted"):
        return "INTERRUPTED"
    # The subtype says "success" even where the API has failed.
    return "FAILED" if said.is_error else "DONE"


def _tools(message: _Message) -> ToolsChanged | None:
    try:
        parts = _parts(message.content)
    except msgspec.MsgspecError:  # a text alone, which calls no tool
        return None
    began = tuple(part.id for part in parts if part.type == "tool_use")
    ended = tuple(part.tool_use_id for part in parts if part.type == "tool_result")
    return ToolsChanged(began, ended) if began or ended else None
