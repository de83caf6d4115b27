"""The end of a process that is given time for it: the end of its input, then a request, then force."""

import asyncio

from daemon.supervision.house import Grace
from daemon.supervision.running_process import RunningProcess


class Ending:
    """How far the end of one process has come.

    Args:
        grace: how long each step is waited for.
    """

    def __init__(self, grace: Grace) -> None:
        self._grace = grace
        self._steps = 0
        self._deadline = 0.0

    @property
    def begun(self) -> bool:
        """Return whether the process was told that it is to end, which cannot be taken back."""
        return self._steps > 0

    async def further(self, live: RunningProcess) -> float | None:
        """Take the step that is due; return the seconds until the next one, None: it must be killed now."""
        now = asyncio.get_running_loop().time()
        if self._steps and now < self._deadline:
            return self._deadline - now
        self._steps += 1
        if self._steps == 1:
            await live.end_input()
            return self._wait(self._grace.end_of_input)
        if self._steps == 2:
            await live.terminate()
            return self._wait(self._grace.terminate)
        return None

    def _wait(self, seconds: float) -> float:
        self._deadline = asyncio.get_running_loop().time() + seconds
        return seconds
