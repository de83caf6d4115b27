"""A systemd scope for each session's tree, so that what is done to the daemon's service is not done to the tree."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from daemon.supervision import cgroup

SLICE = "app-agents.slice"
"""What all scopes are in, so that the owner can look at them, and limit them, together."""

_SECONDS = 5.0
"""How long systemd may take; a session must not wait longer for what it can do without."""
_HELD = b"0::"
"""How the line of /proc/PID/cgroup begins that tells where a process is (cgroups(7))."""


def unit(session_id: str, run: int) -> str:
    """Return the name of the scope of one run of a session."""
    return f"agent-session-{session_id}-{run}.scope"


@contextlib.asynccontextmanager
async def opened(
    session_id: str, run: int, environment: Mapping[str, str], failed: Callable[[str], None], *, processes: int
) -> AsyncIterator[Path | None]:
    """Make a scope, and keep it until a process has entered it; from then on it stays for as long as that runs.

    Args:
        session_id: whose it is.
        run: which of the session's.
        environment: tells where the owner's systemd is.
        failed: told why there is none.
        processes: that may be in it, threads counted too.

    Yields:
        The directory of its control group; None where there is none.
    """
    # A scope begins with a process: `cat` tells where it is, and waits. What systemd-run becomes is its own child.
    command = ["systemd-run", "--user", "--scope", "--quiet", "--collect", f"--unit={unit(session_id, run)}"]
    command += [f"--slice={SLICE}", "--property=Delegate=yes", f"--property=TasksMax={processes}"]
    command += [f"--description=Agent session {session_id}", "--", "cat", "/proc/self/cgroup", "-"]
    try:
        holder = await asyncio.create_subprocess_exec(
            *command,
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        failed(f"systemd-run: {error.strerror}")
        yield None
        return
    try:
        place = await _place(holder)
        if isinstance(place, str):
            failed(place)
        yield place if isinstance(place, Path) else None
    finally:
        await _let_go(holder)


async def _place(holder: asyncio.subprocess.Process) -> Path | str:
    """Return the control group that a holder says it is in, or why it is in none of its own."""
    assert holder.stdout is not None  # noqa: S101 - asked for above
    assert holder.stderr is not None  # noqa: S101 - likewise
    try:
        async with asyncio.timeout(_SECONDS):
            while line := await holder.stdout.readline():
                if line.startswith(_HELD):
                    return (
                        cgroup.directory(line[len(_HELD) :].decode().strip()) or "its control group is not to be seen"
                    )
            said = (await holder.stderr.read()).decode(errors="replace").strip()
    except TimeoutError:
        return f"systemd did not answer within {_SECONDS:g} s"
    return said.partition("\n")[0] or "systemd-run ended"


async def _let_go(holder: asyncio.subprocess.Process) -> None:
    """Let a holder end, by the end of its input or, where it does not come to that, without."""
    assert holder.stdin is not None  # noqa: S101 - asked for above
    holder.stdin.close()
    try:
        async with asyncio.timeout(_SECONDS):
            await holder.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            holder.kill()
        await holder.wait()
