"""Kills trees: whatever is to be killed at about the same time shares its scans of the process table."""

import asyncio
from collections.abc import Sequence

import msgspec

from daemon.supervision import tree as trees_of
from daemon.supervision.tree import Tree

KILL_SECONDS = 5.0
_GATHER_SECONDS = 0.005


class Killed(msgspec.Struct, frozen=True):
    """What came of killing a tree: how many processes were seen, and the pids of those that were left."""

    seen: int
    left: tuple[int, ...]


class Reaper:
    """Takes trees and answers when nothing is left of each, or its time is up."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Tree, asyncio.Future[Killed]]] = []
        self._batches: set[asyncio.Task[None]] = set()

    async def kill(self, tree: Tree) -> Killed:
        """Freeze a tree, kill it and prove it; the wrapper is left to end by itself."""
        future: asyncio.Future[Killed] = asyncio.get_running_loop().create_future()
        self._waiting.append((tree, future))
        if len(self._waiting) == 1:
            batch = asyncio.create_task(self._batch())
            self._batches.add(batch)
            batch.add_done_callback(self._batches.discard)
        return await future

    async def _batch(self) -> None:
        await asyncio.sleep(_GATHER_SECONDS)
        taken, self._waiting = self._waiting, []
        try:
            results = await asyncio.to_thread(_kill, [tree for tree, _ in taken])
        except Exception as error:  # noqa: BLE001 - whatever it was, everybody who waits must hear of it
            for _, future in taken:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), result in zip(taken, results, strict=True):
            if not future.done():
                future.set_result(result)


def _kill(trees: Sequence[Tree]) -> list[Killed]:
    seen = trees_of.members(trees)
    left = trees_of.kill(trees, KILL_SECONDS)
    return [Killed(len(seen[tree.session_id]), tuple(left[tree.session_id])) for tree in trees]
