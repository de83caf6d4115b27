"""Finding again what an earlier daemon has started, and what became of it."""

from pathlib import Path

from daemon.domain.process_ends import End
from daemon.domain.process_rows import Supervised
from daemon.supervision import cgroup, wrapper
from daemon.supervision.identity import Identity, identify, is_alive
from daemon.supervision.stdin import Entered, entered
from daemon.supervision.table import snapshot
from daemon.supervision.tree import Tree

_NOBODY = Identity(0, "", "")


def was_begun(directory: Path, row: Supervised) -> bool:
    """Return whether the last run came so far as to start its wrapper, and its end is not stored."""
    process = row.process
    return process.pid is not None or (
        process.run > 0 and process.ended_at is None and wrapper.found(directory, process.run) is not None
    )


def find(directory: Path, row: Supervised) -> tuple[Tree, int] | None:
    """Return the tree of the last run and the command's pid; None where the wrapper is gone.

    A run that was begun without anybody having stored so is known by what its wrapper wrote down, and by its mark.
    """
    known = _wrapper(directory, row)
    if known is None:
        return None
    session_id, (wrapper_of, pid) = row.process.session_id, known
    keeper = wrapper.read_number(directory, "keeper", row.process.run)
    found = identify(keeper) if keeper is not None else None
    # A recycled pid must not be spared: the keeper has the session's mark.
    spared = [found] if found is not None and snapshot().mark(found.pid) == session_id else []
    return Tree(session_id, wrapper_of, spared, cgroup.find(session_id)), pid


def _wrapper(directory: Path, row: Supervised) -> tuple[Identity, int] | None:
    process = row.process
    if process.pid is not None and process.wrapper_pid is not None:
        stored = Identity(process.wrapper_pid, process.wrapper_started or "", process.boot_id or "")
        return (stored, process.pid) if is_alive(stored) else None
    found = wrapper.found(directory, process.run)
    alive = identify(found.wrapper) if found is not None else None
    if found is None or found.child is None or alive is None:
        return None
    return (alive, found.child) if snapshot().mark(alive.pid) == process.session_id else None


def leftovers(session_id: str) -> Tree:
    """Return the tree of a session whose wrapper is gone: what still has its mark, or is in its control group."""
    return Tree(session_id, _NOBODY, (), cgroup.find(session_id))


def end_of(directory: Path, row: Supervised) -> End:
    """Return how a run ended that no daemon was there for."""
    status = wrapper.exit_status(directory, row.process.run)
    turn = next((turn.turn for turn in row.turns if turn.state == "RUNNING"), None)
    reached = turn is not None and entered(directory, turn) is not Entered.NEVER
    if status is None:
        return End(reason="lost", entered=reached)
    return End(status.code, status.signal, entered=reached)


def clean_up(session_id: str) -> None:
    """Remove what a session that is over leaves behind in the system: its control group."""
    group = cgroup.find(session_id)
    if group is not None:
        group.remove()


def step_out(session_id: str) -> None:
    """Leave a session's control group: a daemon that was started from inside of a session is no part of it."""
    cgroup.leave(session_id)
