"""What belongs to a session, and that all of it stops, runs again and ends."""

import os
import resource
import signal
import time
from collections.abc import Callable

import msgspec
import pytest

from daemon.supervision import identity
from daemon.supervision.identity import identify, is_alive
from daemon.supervision.table import snapshot
from daemon.supervision.tree import Tree, freeze, kill, members, terminate, thaw, usage
from tests.supervision.session import Session, runs, state
from tests.support.daemon_process import wait_for

Sessions = Callable[..., Session]

FAMILIES = {
    "generations": ["parent", "child", "grandchild", "sleep"],
    "setsid": ["setsid"],
    "orphan": ["parent", "sleep"],
    "stubborn": ["sleep"],
    "zombie": ["parent"],
    "headless": ["sleep"],
}


def _pids(tree: Tree) -> set[int]:
    return {one.pid for one in members([tree])[tree.session_id]}


def _spared(tree: Tree) -> list[int]:
    return [one.pid for one in tree.spared]


@pytest.mark.parametrize("program", FAMILIES)
def test_every_descendant_stops_runs_and_ends(sessions: Sessions, grouped: bool, program: str) -> None:
    session = sessions(grouped=grouped)
    tree = session.start(program, stay=True)
    said = {session.wait(what)[0] for what in FAMILIES[program]}
    assert said <= _pids(tree)
    assert freeze([tree]) == {session.id: []}
    if program != "headless":
        assert grouped or {state(pid) for pid in _pids(tree)} == {"T"}
    assert {state(pid) for pid in _spared(tree)} <= {"S", "R"}
    assert thaw([tree]) == {session.id: []}
    wait_for(lambda: not any(state(pid) == "T" for pid in _pids(tree)), 5)
    assert kill([tree], 5) == {session.id: []}
    assert not any(runs(pid) for pid in said)
    assert {state(pid) for pid in _spared(tree)} <= {"S", "R"}
    assert kill([tree], 5, wrapper=True) == {session.id: []}
    assert not session.running()


def test_a_dead_child_is_no_member(sessions: Sessions) -> None:
    session = sessions()
    tree = session.start("zombie")
    [dead] = session.wait("zombie")
    wait_for(lambda: state(dead) == "Z", 5)
    assert _pids(tree) == {*session.wait("parent")}


def test_the_wrapper_ends_by_itself(sessions: Sessions) -> None:
    session = sessions()
    tree = session.start("generations")
    session.wait("sleep")
    assert kill([tree], 5) == {session.id: []}
    wait_for(lambda: not session.running(), 5)


def test_what_cleans_its_environment_is_found_in_the_group(sessions: Sessions, grouped: bool) -> None:
    session = sessions(grouped=grouped)
    tree = session.start("bare")
    [bare] = session.wait("sleep")
    session.wait("parent")
    assert (bare in _pids(tree)) == grouped
    assert kill([tree], 5) == {session.id: []}
    assert runs(bare) != grouped


def test_what_cleans_its_environment_is_known_from_before(sessions: Sessions) -> None:
    session = sessions()
    tree = session.start("bare_when_told", stay=True)
    [bare], [parent] = session.wait("sleep"), session.wait("parent")
    assert _pids(tree) == {bare, parent}
    os.kill(parent, signal.SIGUSR1)
    wait_for(lambda: not runs(parent), 5)
    again = Tree(session.id, tree.wrapper, tree.spared, seen=tree.seen)
    assert _pids(session.tree(tree.wrapper)) == set(_spared(tree)) - {tree.wrapper.pid}
    assert _pids(again) == {bare}
    assert kill([tree], 5) == {session.id: []}
    assert not runs(bare)


def test_what_cleans_its_environment_is_known_by_its_session(sessions: Sessions) -> None:
    session = sessions()
    tree = session.start("bare_in_session")
    said = {*session.wait("sleep"), *session.wait("parent")}
    assert _pids(tree) == said
    assert kill([tree], 5) == {session.id: []}
    assert not any(runs(pid) for pid in said)


def test_a_new_tree_finds_what_the_wrapper_left_behind(sessions: Sessions, grouped: bool) -> None:
    session = sessions(grouped=grouped)
    tree = session.start("orphan")
    said = {*session.wait("sleep"), *session.wait("parent")}
    os.kill(tree.wrapper.pid, signal.SIGKILL)
    wait_for(lambda: not runs(tree.wrapper.pid), 5)
    again = session.tree(tree.wrapper, *tree.spared)
    assert _pids(again) == said
    assert freeze([again]) == {session.id: []}
    assert kill([session.tree(tree.wrapper, *tree.spared)], 5) == {session.id: []}
    assert not any(runs(pid) for pid in said)


def test_what_is_stopped_is_asked_to_end(sessions: Sessions, grouped: bool) -> None:
    polite, stubborn = sessions(grouped=grouped), sessions(grouped=grouped)
    trees = [polite.start("polite"), stubborn.start("stubborn")]
    [stubborn_pid] = stubborn.wait("sleep")
    polite.wait("sleep")
    freeze(trees)
    again = [session.tree(tree.wrapper, *tree.spared) for session, tree in ((polite, trees[0]), (stubborn, trees[1]))]
    assert terminate(again) == {polite.id: [], stubborn.id: []}
    polite.wait("ended")
    wait_for(lambda: not _pids(trees[0]), 5)
    wait_for(lambda: state(stubborn_pid) == "S", 5)
    assert kill(trees, 5) == {polite.id: [], stubborn.id: []}
    assert not runs(stubborn_pid)


def test_another_session_goes_on(sessions: Sessions, grouped: bool) -> None:
    ended, other = sessions(grouped=grouped), sessions(grouped=grouped)
    trees = [ended.start("orphan"), other.start("orphan")]
    ended.wait("sleep")
    said = {*other.wait("sleep"), *other.wait("parent")}
    assert kill(trees[:1], 5) == {ended.id: []}
    assert {state(pid) for pid in said} <= {"S", "R"}
    assert _pids(trees[1]) == said


@pytest.mark.parametrize("program", ["linear", "exponential", "hopping"])
def test_what_goes_on_forking_is_caught(sessions: Sessions, grouped: bool, program: str) -> None:
    session = sessions(grouped=grouped)
    tree = session.start(program)
    session.wait("one" if program == "exponential" else "parent", 20 if program == "exponential" else 1)
    assert kill([tree], 8) == {session.id: []}
    wait_for(lambda: not session.running(), 5)


def test_a_group_that_a_spared_process_is_in_is_not_frozen(sessions: Sessions) -> None:
    session = sessions(grouped=True)
    tree = session.start("generations", stay=True)
    session.wait("sleep")
    keeper = session.identity("keeper")
    if not tree.cgroup.pids():
        pytest.skip("no cgroup v2 that we may write")
    tree.cgroup.procs.write_text(str(keeper.pid))
    assert freeze([tree]) == {session.id: []}
    assert not tree.cgroup.is_frozen()
    assert {state(pid) for pid in _pids(tree)} == {"T"}
    assert kill([tree], 5) == {session.id: []}
    assert is_alive(keeper)


def test_what_forks_stays_stopped(sessions: Sessions, grouped: bool) -> None:
    session = sessions(grouped=grouped)
    tree = session.start("linear")
    session.wait("parent")
    assert freeze([tree]) == {session.id: []}
    before = _pids(tree)
    assert _pids(tree) == before
    thaw([tree])
    wait_for(lambda: _pids(tree) - before, 5)


def test_who_is_woken_by_a_member_stops(sessions: Sessions) -> None:
    session = sessions()
    tree = session.start("waking")
    session.wait("sleep")
    assert freeze([tree]) == {session.id: []}
    assert {state(pid) for pid in _pids(tree)} == {"T"}


@pytest.mark.parametrize("within", [True, False])
def test_a_daemon_that_has_the_mark_is_no_member(sessions: Sessions, within: bool) -> None:
    session = sessions()
    if within:
        session.start("authority", session.id, "0", stay=True)
    else:
        tree = session.start("generations", stay=True)
        session.wait("sleep")
        session.run_outside("authority", session.id, str(tree.wrapper.pid))
    [pid] = session.wait("done")
    assert runs(pid)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_what_may_not_be_signalled_is_left(sessions: Sessions) -> None:
    session = sessions()
    tree = session.start("generations")
    session.wait("sleep")
    asking = session.run_outside("unprivileged", session.id, str(tree.wrapper.pid))
    assert asking.communicate(timeout=10)[0].split() == [b"5", b"5", b"6"]


def test_usage_is_that_of_all_members(sessions: Sessions, grouped: bool) -> None:
    session = sessions(grouped=grouped)
    tree = session.start("linear")
    session.wait("parent")
    found = wait_for(lambda: (one := usage([tree])[session.id]).cpu_seconds > 0.1 and one, 10)
    assert found.processes >= 2
    assert found.rss_bytes > 5_000_000
    kill([tree], 5)
    assert usage([tree])[session.id].processes == 0


def test_a_recycled_pid_is_nobody_known(sessions: Sessions) -> None:
    session, other = sessions(), sessions()
    other.start("generations")
    innocent = other.identity("sleep")
    tree = session.start("generations")
    session.wait("sleep")
    tree.seen = {
        msgspec.structs.replace(innocent, started=str(int(innocent.started) - 1)),
        msgspec.structs.replace(other.identity("child"), boot="another"),
    }
    assert kill([tree], 5, wrapper=True) == {session.id: []}
    forged = Tree(session.id, msgspec.structs.replace(other.identity("parent"), started="1"), tree.seen)
    assert kill([forged], 1, wrapper=True) == {session.id: []}
    assert all(runs(other.pids(what)[0]) for what in FAMILIES["generations"])


def test_neither_we_nor_init_are_members(sessions: Sessions) -> None:
    session = sessions()
    tree = session.start("generations")
    session.wait("sleep")
    us, init = identify(os.getpid()), identify(1)
    assert us is not None
    tree.seen = {us, *([init] if init else [])}
    assert len(_pids(tree)) == 4


def test_a_table_that_cannot_be_read_is_not_an_empty_one(sessions: Sessions) -> None:
    session = sessions()
    tree = session.start("generations")
    session.wait("sleep")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(OSError, match="open files"):
            kill([tree], 1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert kill([tree], 5) == {session.id: []}


def test_psutil_finds_the_same(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    session = sessions()
    session.start("orphan", stay=True)
    said = {*session.wait("sleep"), *session.wait("parent")}
    monkeypatch.setattr(identity, "PROCFS", False)
    tree = session.tree(session.identity("wrapper"), session.identity("keeper"))
    assert _pids(tree) == said
    assert usage([tree])[session.id].rss_bytes > 5_000_000
    assert freeze([tree]) == {session.id: []}
    assert {state(pid) for pid in said} == {"T"}
    assert kill([tree], 5, wrapper=True) == {session.id: []}
    assert not session.running()


def _cost() -> tuple[int, float]:
    """Return the size of the process table, and the processor seconds that a snapshot takes for each process."""
    costs = []
    for _ in range(5):
        before = time.process_time()
        size = len(snapshot().entries)
        costs.append((time.process_time() - before) / size)
    return size, min(costs)


def test_fifty_sessions_of_twenty_processes_end(sessions: Sessions, grouped: bool) -> None:
    made = [sessions(grouped=grouped) for _ in range(50)]
    trees = [session.start("wide", "20") for session in made]
    found = wait_for(lambda: (seen := members(trees)) and sum(map(len, seen.values())) >= 1050 and seen, 10)
    size, cost = _cost()
    before = time.perf_counter()
    left = kill(trees, 10)
    seconds = time.perf_counter() - before
    everyone = [one for some in found.values() for one in some]
    assert left == {session.id: [] for session in made}
    assert not any(runs(one.pid) and is_alive(one) for one in everyone)
    print(
        f"kill of {len(everyone)} processes in 50 sessions, with control groups: {grouped}: {seconds:.3f} s; "
        f"snapshot of {size} processes: {cost * 1e6:.1f} us for each"
    )
    assert cost < 40e-6
