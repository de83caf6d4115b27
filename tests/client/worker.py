"""Programs of the storm, each a process: a worker, the same with asyncio, and a reader of the token file."""

import asyncio
import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

from daemon.client import AsyncSession, Session, SessionEnded
from daemon.client.claims import claims
from daemon.client.finding import credential, locator
from daemon.client.standing import Time
from tests.support.shared_time import SharedTime

TOKEN = re.compile(r"wai_sess_[\w-]+\.[\w-]+\.[\w-]+\n")
ROUND = 0
"""The number by which the test tells which round it is; the workers' own follow."""
OVER, GIVEN_UP = -1, -2
"""Rounds after which there is none: the session is over, or the test has failed."""
_LOOK = 0.005


def until(fact: Callable[[], object]) -> None:
    """Wait for a fact that comes true in milliseconds, two hundred times; fail after the deadline."""
    deadline = time.monotonic() + 30
    while not fact():
        assert time.monotonic() < deadline, "the fact did not come true in time"
        time.sleep(_LOOK)


def session(token_file: Path, socket: Path, clock: SharedTime) -> Session:
    """Return a session that takes the time of day from the test."""
    return Session(credential(token_file, None, {}), locator(None, socket, None, {}), Time(now=clock.wall))


def work(known: Session, clock: SharedTime, who: int) -> str:
    """Use the session once a round until it is over; return why it is."""
    done = 0.0
    try:
        while True:
            while (now := clock.told(ROUND)) == done:
                time.sleep(_LOOK)
            if now == GIVEN_UP:
                return "given up"
            known.whoami()
            done = now
            clock.tell(who, done)
    except SessionEnded as error:
        return f"{type(error).__name__} {error.code}"


async def work_async(known: AsyncSession, clock: SharedTime, who: int) -> str:
    """As `work`, with two tasks at once."""
    done = 0.0
    try:
        while True:
            while (now := clock.told(ROUND)) == done:
                await asyncio.sleep(_LOOK)
            if now == GIVEN_UP:
                return "given up"
            await asyncio.gather(*(known.whoami() for _ in range(2)))
            done = now
            clock.tell(who, done)
    except SessionEnded as error:
        return f"{type(error).__name__} {error.code}"


def read(token_file: Path, clock: SharedTime) -> str:
    """Read the file in a tight loop; return how often, and how often it was torn or went back."""
    os.nice(19)  # it is not to slow down what it looks at
    reads = torn = back = generation = 0
    while clock.told(ROUND) >= 0:
        text = token_file.read_text()
        reads += 1
        if TOKEN.fullmatch(text) is None:
            torn += 1
        else:
            found = claims(text.strip(), "the file").gen
            back += found < generation
            generation = found
    return json.dumps({"reads": reads, "torn": torn, "back": back})


async def _async_main(token_file: Path, socket: Path, clock: SharedTime, who: int) -> str:
    located = locator(None, socket, None, {})
    async with AsyncSession(credential(token_file, None, {}), located, Time(now=clock.wall)) as known:
        return await work_async(known, clock, who)


if __name__ == "__main__":
    kind, file, socket_path, time_path, number = sys.argv[1:]
    shared = SharedTime(Path(time_path))
    if kind == "read":
        print(read(Path(file), shared))
    elif kind == "async":
        print(asyncio.run(_async_main(Path(file), Path(socket_path), shared, int(number))))
    else:
        with session(Path(file), Path(socket_path), shared) as opened:
            print(work(opened, shared, int(number)))
