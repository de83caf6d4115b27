"""Argon2id off the event loop: in threads that give way to everything else."""

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import argon2

from daemon.domain.errors import RATE_LIMIT_EXCEEDED, DaemonError

T = TypeVar("T")

THREADS = 2
WAITING = 16
_NICE = 19


class PasswordHasher:
    """Hashes and verifies passwords with Argon2id (RFC 9106), at most two at a time and sixteen waiting.

    Args:
        memory_kib: memory of one hash, KiB.
        time_cost: passes over it.
        parallelism: lanes.
    """

    def __init__(self, memory_kib: int, time_cost: int, parallelism: int) -> None:
        self._argon2 = argon2.PasswordHasher(time_cost=time_cost, memory_cost=memory_kib, parallelism=parallelism)
        self._pool = ThreadPoolExecutor(THREADS, "argon2", initializer=_give_way)
        self._pending = 0

    async def hash(self, password: str) -> str:
        """Return the password's hash.

        Raises:
            DaemonError: RATE_LIMIT_EXCEEDED when too many are waiting.
        """
        return await self._run(lambda: self._argon2.hash(password))

    async def verify(self, stored: str, password: str, wanted: Callable[[], bool] = lambda: True) -> bool:
        """Return whether the password has this hash.

        Args:
            stored: the hash.
            password: what was presented.
            wanted: asked when the turn comes; False saves the work and answers False.

        Raises:
            DaemonError: RATE_LIMIT_EXCEEDED when too many are waiting.
        """

        def work() -> bool:
            if not wanted():
                return False
            try:
                return self._argon2.verify(stored, password)
            except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
                return False

        return await self._run(work)

    def is_outdated(self, stored: str) -> bool:
        """Return whether a hash was made with other parameters than today's."""
        return self._argon2.check_needs_rehash(stored)

    def close(self) -> None:
        """End the threads; what waits is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._pending >= THREADS + WAITING:
            raise DaemonError(RATE_LIMIT_EXCEEDED, "Too many passwords are waiting to be verified.", retry_after=1)
        self._pending += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._pending -= 1


def _give_way() -> None:
    """Lower this thread's priority: two cores are two cores, and agents come first (Linux; elsewhere nothing)."""
    if hasattr(os, "setpriority") and os.uname().sysname == "Linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
