"""The daemon with one more route, for comparison: same wrapper, same log line, same answer, no guard."""

import asyncio
import os
import sys
from pathlib import Path

import msgspec
import uvloop
from litestar import Router, get

from daemon import config
from daemon.domain.views import OwnSession
from daemon.home import Home
from daemon.running import Daemon
from daemon.web.routes.common import AnyRequest

_ANSWER = OwnSession(
    id="01980e5a-7c00-7a2b-9c4d-5e6f708192a3",
    agent_id="01980e59-3a10-7f00-8b1c-2d3e4f506172",
    status="ACTIVE",
    state="ACTIVE",
    renewal_count=0,
    max_renewals=30,
    expires_at=1_767_312_000,
    absolute_expires_at=1_769_817_600,
    created_at=1_767_225_600,
    last_renewed_at=None,
    last_activity=1_767_225_600,
    request_count=1,
    user_id=None,
    workspace_id=None,
    metadata=msgspec.Raw(b"{}"),
    constraints=None,
    ttl=86_400,
    generation=1,
    reject_window_expiry=None,
    revoked_at=None,
    revoked_reason=None,
    state_changed_at=1_767_225_600,
    created_by="api",
    usage=None,
    process=None,
    parent_id=None,
    depth=0,
    agent_name="bench",
    renewable_at=1_767_268_800,
    remaining_renewals=30,
)


@get("/bench/bare")
async def bare(request: AnyRequest) -> OwnSession:
    """Answer what `GET /v1/session` answers, without asking who is there."""
    return _ANSWER


async def main(root: Path) -> None:
    """Serve until a line arrives on standard input."""
    daemon = Daemon(Home.resolve(root, {}), config.load(root, os.environ, {}))
    await daemon.start()
    daemon.parts.app.register(Router("/", route_handlers=[bare]))
    print(daemon.url.rpartition(":")[2], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    await daemon.stop()


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1])))
