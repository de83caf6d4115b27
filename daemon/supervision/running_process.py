"""One running tree that the daemon is attached to: its identity, its dialogue, its end."""

import asyncio
from pathlib import Path

from daemon.domain.process_ends import End
from daemon.supervision import launch, tree, wrapper
from daemon.supervision.dialogue import Dialogue
from daemon.supervision.identity import is_alive
from daemon.supervision.reaper import Killed, Reaper
from daemon.supervision.tree import Tree


class RunningProcess:
    """A tree that was seen alive, or was a moment ago.

    Args:
        directory: of the session.
        run: which of its runs.
        tree_of: all of its processes.
        pid: of the command.
    """

    def __init__(self, directory: Path, run: int, tree_of: Tree, pid: int) -> None:
        wrapper_of = tree_of.wrapper
        self.directory = directory
        self.run = run
        self.wrapper = wrapper_of
        self.pid = pid
        self.frozen: bool | None = None
        """Whether the whole tree is stopped; None: an earlier daemon may have stopped it, or not."""
        self._stopped_at = 0.0
        self.limit: str | None = None
        """The limit that it was ended for."""
        self.dialogue: Dialogue
        self.tree = tree_of
        # Our own child that ended at once keeps its pid until we wait for it.
        self.exited = asyncio.create_task(
            launch.wait_exit(wrapper_of.pid, lambda: not wrapper_of.started or is_alive(wrapper_of))
        )

    def is_alive(self) -> bool:
        """Return whether its wrapper, which dies last, is alive."""
        return is_alive(self.wrapper)

    async def freeze(self) -> bool:
        """Stop the whole tree; return whether nothing of it runs."""
        self._stopped_at = asyncio.get_running_loop().time()
        left = await asyncio.to_thread(tree.freeze, [self.tree])
        # What could not be stopped is tried again; what was must be let go of all the same.
        self.frozen = True if not any(left.values()) else None
        return self.frozen is True

    async def thaw(self) -> None:
        """Let the whole tree go on."""
        await asyncio.to_thread(tree.thaw, [self.tree])
        if self.frozen:
            self.dialogue.stood_still(asyncio.get_running_loop().time() - self._stopped_at)
        self.frozen = False

    async def end_input(self) -> None:
        """Let the command see the end of its input."""
        if self.frozen is not False:
            await self.thaw()
        self.dialogue.let_go()
        wrapper.release(self.directory)

    async def terminate(self) -> None:
        """Ask the whole tree to end."""
        await asyncio.to_thread(tree.terminate, [self.tree])

    async def kill(self, reaper: Reaper, seconds: float) -> Killed:
        """Kill the whole tree, and let the wrapper say how the command ended.

        Args:
            reaper: kills trees.
            seconds: that the wrapper is given for it.
        """
        killed = await reaper.kill(self.tree)
        if not killed.left:
            await asyncio.wait({self.exited}, timeout=seconds)
            if not self.exited.done():  # it was stopped, or hangs
                await asyncio.to_thread(tree.kill, [self.tree], seconds, wrapper=True)
        return killed

    def end(self, *, on_purpose: bool) -> End:
        """Return how the command ended, as far as anybody knows.

        Args:
            on_purpose: whether the daemon ended it while its session lives on.
        """
        status = wrapper.exit_status(self.directory, self.run)
        return End(
            status.code if status is not None else None,
            status.signal if status is not None else None,
            self.limit or ("lost" if status is None else None),
            entered=self.dialogue.entered(),
            on_purpose=on_purpose,
            unresumed=self.dialogue.unresumed,
        )

    def detach(self) -> None:
        """Watch it no more; it goes on."""
        self.exited.cancel()

    def discard(self) -> None:
        """Remove what its run leaves behind in the system."""
        self.detach()
        self.tree.cgroup.remove()
