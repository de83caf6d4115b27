"""Speaking with one running command: turns in, lines out, and what they mean for its session."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec

from daemon.domain.lines import Line
from daemon.domain.process_rows import Turn, TurnState
from daemon.domain.turns import TurnEnd
from daemon.supervision.adapters.adapter import Adapter, Meaning, NothingToResume, ToolsChanged, TurnOver
from daemon.supervision.follow import Follower
from daemon.supervision.output import Gone, OutputFile
from daemon.supervision.stdin import Entered, Stdin, StdinClosed, entered

ATOMIC_BYTES = 4096
"""A line up to this long enters a pipe whole or not at all (pipe(7), PIPE_BUF)."""
CLOSED_SECONDS = 2.0
"""After which a command whose input is closed should be seen to have ended: then there is nobody to speak with."""
LONGEST_LINE = 64 << 20
"""Bytes of a line that is put together again for its meaning; a longer one has none."""


class Reports(msgspec.Struct, frozen=True):
    """Whom the dialogue tells.

    Args:
        turn_over: the running turn is over.
        fragment: part of a message may be in the command's input, and the rest will never come.
        broken: it cannot go on, for the reason in `Dialogue.broken`.
    """

    turn_over: Callable[[TurnEnd], Awaitable[None]]
    fragment: Callable[[], Awaitable[object]]
    broken: Callable[[], None]


class Dialogue:
    """Sends the running turn once, and reads the output on.

    Args:
        directory: of the session.
        adapter: speaks with the command.
        offset: of the output whose consequences are stored.
        reports: whom to tell.
    """

    def __init__(self, directory: Path, adapter: Adapter, offset: int, reports: Reports) -> None:
        self.adapter = adapter
        """May be replaced by one of the same kind, for a configuration that was changed meanwhile."""
        self.unresumed = False
        """Whether the command found nothing to go on with."""
        self.broken: Exception | None = None
        """What keeps it from hearing or speaking."""
        self._directory = directory
        self._hears = adapter.quiet_after is None
        self._reports = reports
        self._file = OutputFile(directory / "stdout")
        self._follower = Follower(self._file, offset)
        self._stdin: Stdin | None = None
        self._turn: int | None = None
        self._pumped = 0
        self._writing: asyncio.Task[None] | None = None
        self._spoken = asyncio.Event()
        self._tools: dict[str, float] = {}
        self._interruptions = 0
        self._pieces = bytearray()
        self._minding = self._watched(self._read() if self._hears else self._await_silence())

    @property
    def position(self) -> int:
        """Return the offset after the last line whose meaning is known; where none has any, all there is."""
        return self._follower.position if self._hears else self._file.size()

    def wake(self) -> None:
        """Look for more output."""
        self._follower.wake()
        self._spoken.set()

    def pump(self, turns: Sequence[Turn]) -> None:
        """Send the running turn, unless it was sent."""
        running = next((turn for turn in turns if turn.state == "RUNNING"), None)
        # What was seen of the rows may be older than the end of a turn that is being stored.
        if running is None or running.turn <= self._pumped or running.content is None:
            return
        self._turn = self._pumped = running.turn
        self._writing = self._watched(self._send(running.turn, running.content))

    def _watched(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        task.add_done_callback(self._look_after)
        return task

    def _look_after(self, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self.broken = error
            self._reports.broken()

    async def _send(self, number: int, content: str) -> None:
        line = self.adapter.line(content)
        match await asyncio.to_thread(entered, self._directory, number):
            case Entered.WHOLE:  # by a daemon before this one
                self._spoken.set()
            case Entered.NEVER:
                await self._write(number, line)
            case Entered.UNCERTAIN:
                await self._give_up(len(line))

    async def _write(self, number: int, line: bytes) -> None:
        try:
            self._tools.clear()
            await self._open().write(number, line)
        except StdinClosed:
            await asyncio.sleep(CLOSED_SECONDS)
            raise
        self._spoken.set()

    def _open(self) -> Stdin:
        if self._stdin is None:
            self._stdin = Stdin(self._directory)
        return self._stdin

    async def _give_up(self, length: int) -> None:
        """End a turn of which nobody knows whether the command got it: it must not be begun twice."""
        await self._over("UNKNOWN")
        if length > ATOMIC_BYTES:
            await self._reports.fragment()

    def entered(self) -> bool:
        """Return whether the running turn may have reached the command."""
        return self._turn is not None and entered(self._directory, self._turn) is not Entered.NEVER

    async def _over(self, outcome: TurnState) -> None:
        number, self._turn = self._turn, None
        await self._reports.turn_over(TurnEnd(outcome, self.position, turn=number))

    # --- output

    async def _read(self) -> None:
        while True:
            try:
                lines = await self._follower.next()
            except Gone as gone:
                self._follower = Follower(self._file, gone.first_kept)
                continue
            if not lines:
                return
            for line in lines:
                await self._take(line)

    async def _take(self, line: Line) -> None:
        data = self._whole(line)
        meaning = None if data is None else self.adapter.meaning(data)
        if meaning is not None:
            await self._obey(meaning, line.end)

    def _whole(self, line: Line) -> bytes | None:
        """Return a whole line; None until its last piece is there."""
        if not line.part:
            return line.data
        if len(self._pieces) < LONGEST_LINE:
            self._pieces += line.data
        if line.more:
            return None
        data = bytes(self._pieces)
        self._pieces.clear()
        return data

    async def _obey(self, meaning: Meaning, offset: int) -> None:
        if isinstance(meaning, TurnOver):
            self._tools.clear()
            if meaning.outcome is not None:
                self._turn = None
            await self._reports.turn_over(TurnEnd(meaning.outcome, offset, meaning.run_usage, meaning.resumable))
        elif isinstance(meaning, ToolsChanged):
            now = asyncio.get_running_loop().time()
            self._tools |= dict.fromkeys(meaning.began, now)
            for ended in meaning.ended:
                self._tools.pop(ended, None)
        elif isinstance(meaning, NothingToResume):
            self.unresumed = True

    async def _await_silence(self) -> None:
        """End a turn of a command that knows nothing of turns, once it has been silent for long enough."""
        while True:
            await self._spoken.wait()
            self._spoken.clear()
            try:
                async with asyncio.timeout(self.adapter.quiet_after):
                    await self._spoken.wait()
            except TimeoutError:
                # Not while the message waits for a command that does not read.
                if self._turn is not None and (self._writing is None or self._writing.done()):
                    await self._over("DONE")

    # --- limits

    async def mind_tools(self) -> None:
        """Interrupt the running turn if a tool takes too long."""
        now, most = asyncio.get_running_loop().time(), self.adapter.tool_timeout
        if not most or not any(now - began > most for began in self._tools.values()):
            return
        self._tools.clear()
        self._interruptions += 1
        line = self.adapter.interruption(self._interruptions)
        if line is not None:
            with contextlib.suppress(StdinClosed):
                await self._open().interject(line)

    def stood_still(self, seconds: float) -> None:
        """Leave the seconds for which the command was stopped out of the time that its tools have taken."""
        self._tools = {tool: began + seconds for tool, began in self._tools.items()}

    # --- the end

    def let_go(self) -> None:
        """Close our end of the command's input, so that it sees the end when the keeper goes."""
        if self._writing is not None:
            self._writing.cancel()
        if self._stdin is not None:
            self._stdin.close()

    async def finish(self) -> None:
        """Read what is left of the output of a command that is gone; more than once is as good."""
        self._follower.end()
        if self._hears:
            await asyncio.wait({self._minding})
        await self.close()

    async def close(self) -> None:
        """Stop, wherever it is; what was not read is read the next time."""
        self.let_go()
        tasks = [task for task in (self._minding, self._writing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
