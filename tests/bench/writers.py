"""A steady flow of events, from a process of its own: `python -m tests.bench.writers PORT EVERY < agent ids`."""

import asyncio
import sys

import uvloop

from tests.bench.prepare import PASSWORD
from tests.support.http import load, request


async def main(port: int, every: float) -> None:
    """End one agent after the other; each end is an event of its own and two for each of its sessions."""
    loop, agents = asyncio.get_running_loop(), sys.stdin.read().split()
    print("ready", flush=True)
    due = loop.time()
    for agent in agents:
        await asyncio.sleep(due - loop.time())
        due += every
        ended = request("DELETE", f"/v1/agents/{agent}", X_Master_Password=PASSWORD)
        ((answer,),) = await load(port, [[ended]], keep_bodies=False)
        assert answer.status == 200, answer.status


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), float(sys.argv[2])))
