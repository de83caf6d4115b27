"""Starting a session's process: its configuration, its token, its environment, its tree."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from daemon.domain import usage
from daemon.domain.errors import DaemonError
from daemon.domain.process_config import ProcessConfig
from daemon.domain.process_rows import Supervised
from daemon.supervision import cgroup, launch, scope, workspace
from daemon.supervision.adapters import adapter_for
from daemon.supervision.adapters.adapter import Resumption
from daemon.supervision.cgroup import Cgroup
from daemon.supervision.house import House
from daemon.supervision.identity import Identity, identify
from daemon.supervision.tree import Tree

MOST_PROCESSES = 1_000
"""Processes of the system in one tree: whoever forks without end is stopped there."""
_LAST_RESORT = 2 * MOST_PROCESSES
"""How many the kernel allows, where it counts them for us; we count, too, and say why it ended."""


class StartError(Exception):
    """A process could not be started.

    Args:
        reason: a word for the session's process; None: its session has ended meanwhile.
        message: one sentence.
    """

    def __init__(self, reason: str | None, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Begun(msgspec.Struct, frozen=True):
    """A process that was just started: all of it, and the pid of its command."""

    tree: Tree
    pid: int
    config: ProcessConfig


async def start(row: Supervised, house: House) -> Begun:
    """Start the process of a session whose start was noted.

    Raises:
        StartError: it cannot be started, and nothing of it runs.
    """
    config = house.reports.config(row.process)
    if config is None:
        raise StartError("sealed", "The key that sealed the secrets of the process is missing.")
    async with _scope(row, house) as scoped:
        prepared = await asyncio.to_thread(_prepare, row, config, house, scoped)
        if not prepared.has_token:
            with contextlib.suppress(DaemonError):  # a session that is over by now does without
                await house.settle(row.session.id)
        try:
            begun = await launch.spawn(prepared.launch)
        except launch.LaunchError as error:
            raise StartError("spawn", str(error)) from None
    # It may be over already; then its pid is not anybody's until it is waited for, which has not been done yet.
    wrapper = identify(begun.wrapper) or Identity(begun.wrapper, "", "")
    keeper = identify(begun.keeper) if begun.keeper is not None else None
    tree = Tree(row.session.id, wrapper, [keeper] if keeper is not None else [], prepared.group)
    return Begun(tree, begun.child, config)


async def start_unless_ended(row: Supervised, house: House, woken: asyncio.Event) -> Begun:
    """Start a process as `start` does, unless its session is ended meanwhile: who ends it need not wait for the start.

    Args:
        row: the session with its process.
        house: the surroundings.
        woken: set when there is something new about the session.

    Raises:
        StartError: it cannot be started, or is not to be; nothing of it runs.
    """
    starting = asyncio.create_task(start(row, house))
    try:
        while not starting.done():
            woken.clear()
            waking = asyncio.create_task(woken.wait())
            either: set[asyncio.Task[Any]] = {starting, waking}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            waking.cancel()
            seen = None if starting.done() else await house.reports.look(row.session.id)
            if seen is not None and seen.session.state == "CLOSING" and not starting.done():
                raise StartError(None, "The session was ended before its process began.")
        return starting.result()
    finally:
        starting.cancel()
        await asyncio.wait({starting})


@contextlib.asynccontextmanager
async def _scope(row: Supervised, house: House) -> AsyncIterator[Path | None]:
    """Yield the directory of a scope for a process; None where systemd does not run us, or makes none."""
    if not house.scoped:
        yield None
        return

    def failed(reason: str) -> None:
        house.report("process.unscoped", session_id=row.session.id, reason=reason)

    run = row.process.run
    async with scope.opened(row.session.id, run, house.environment, failed, processes=_LAST_RESORT) as place:
        yield place


class _Prepared(msgspec.Struct, frozen=True):
    """What to start, and whether it will find a valid token; a crash may have left it none."""

    launch: launch.Launch
    group: Cgroup | None
    has_token: bool


def _prepare(row: Supervised, config: ProcessConfig, house: House, scoped: Path | None) -> _Prepared:
    session = row.session
    if problems := workspace.problems(config, house.settings.workspace_roots):
        raise StartError("spawn", "; ".join(f"{path} {message}" for path, message in problems))
    try:
        has_token = house.files.settle(session.id, session.token_hash)
        group = cgroup.make(session.id, scoped)
        return _Prepared(_launch(row, config, house, group, scoped), group, has_token)
    except OSError as error:
        raise StartError("spawn", f"{error.filename} cannot be used: {error.strerror}") from None


def _launch(
    row: Supervised, config: ProcessConfig, house: House, group: Cgroup | None, scoped: Path | None
) -> launch.Launch:
    session, process = row.session, row.process
    spent = usage.read(session.usage_stats).cost_usd
    if group is not None:
        group.limit(processes=_LAST_RESORT)
    return launch.Launch(
        directory=house.files.directory(session.id),
        run=process.run,
        argv=adapter_for(config).arguments(Resumption(process.external_id, process.resumable, spent)),
        environment=workspace.environment(
            house.environment,
            config,
            session_id=session.id,
            agent_id=session.agent_id,
            token_file=house.files.token_file(session.id),
            url=house.url,
        ),
        working_dir=str(workspace.resolved(config)),
        umask=house.umask,
        cgroup=group.path if group is not None else None,
        scope=scoped,
    )
