"""Control groups: one for each session where there can be one, and no harm where there can be none."""

import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemon.supervision import cgroup
from daemon.supervision.cgroup import Cgroup
from tests.support.daemon_process import wait_for

Start = Callable[..., subprocess.Popen[bytes]]

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
MOUNTS = """\
31 23 0:28 / {root}/v1 rw - cgroup cgroup rw,cpu
32 23 0:29 /outer {root}/with\\040space rw,relatime shared:7 - cgroup2 cgroup2 rw
"""


@pytest.fixture
def group() -> Iterator[Cgroup]:
    """A real group of the test's own."""
    made = cgroup.make(str(uuid.uuid4()))
    if made is None:
        pytest.skip("no cgroup v2 that we may write")
    yield made
    made.kill()
    wait_for(made.remove, 5)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Our own group, in a directory that looks like a mount of cgroup v2 but makes no files."""
    (tmp_path / "mountinfo").write_text(MOUNTS.format(root=tmp_path))
    (tmp_path / "cgroup").write_text("1:cpu:/elsewhere\n0::/outer/ours\n")
    ours = tmp_path / "with space" / "ours"
    ours.mkdir(parents=True)
    (ours / "cgroup.procs").touch()
    monkeypatch.setattr(cgroup, "_PROC", tmp_path)
    return ours


def test_a_process_enters_and_the_group_ends_it(group: Cgroup, start: Start) -> None:
    assert group.pids() == set()
    process = start("sh", "-c", f"echo 0 >{group.procs}; sleep 60 & exec sleep 60")
    wait_for(lambda: len(group.pids()) == 2, 5)
    assert process.pid in group.pids()
    assert group.freeze()
    assert group.is_frozen()
    assert group.thaw()
    assert not group.is_frozen()
    assert not group.remove()
    assert group.kill()
    assert process.wait(5) == -9
    wait_for(group.remove, 5)
    assert not group.freeze()
    assert group.pids() == set()


def test_groups_below_count(group: Cgroup, start: Start) -> None:
    below = group.path / "made by the program" / "and below"
    below.mkdir(parents=True)
    process = start("sh", "-c", f"echo 0 >'{below}/cgroup.procs'; exec sleep 60")
    wait_for(lambda: group.pids() == {process.pid}, 5)
    assert group.kill()
    wait_for(group.remove, 5)


def test_it_is_found_by_the_session_alone(group: Cgroup) -> None:
    found = cgroup.find(group.path.name.removeprefix("daemon-"))
    assert found is not None
    assert found.path == group.path
    assert cgroup.find(str(uuid.uuid4())) is None


def test_a_daemon_leaves_the_group_of_its_session(group: Cgroup) -> None:
    session_id = group.path.name.removeprefix("daemon-")
    code = f"from daemon.supervision import cgroup; print(cgroup.leave({session_id!r}), cgroup.leave({session_id!r}))"
    script = f'echo 0 >{group.procs}; exec "$@"'
    command = ["sh", "-c", script, "sh", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_a_part_of_the_hierarchy_may_be_mounted(place: Path) -> None:
    assert list(cgroup._places()) == [(place.parent, place)]
    assert cgroup.find(ID) is None
    elsewhere = place.parent / "user.slice" / "earlier" / f"daemon-{ID}"
    elsewhere.mkdir(parents=True)
    found = cgroup.find(ID)
    assert found is not None
    assert found.path == elsewhere
    (place / f"daemon-{ID}").mkdir()
    assert (ours := cgroup.find(ID)) is not None
    assert ours.path.parent == place


def test_a_group_that_takes_no_processes_is_none(place: Path) -> None:
    assert cgroup.make(ID) is None
    assert not (place / f"daemon-{ID}").exists()
    (place / f"daemon-{ID}").mkdir()
    (place / f"daemon-{ID}" / "cgroup.type").write_text("domain\n")
    assert cgroup.make(ID) is not None
    (place / f"daemon-{ID}" / "cgroup.type").write_text("domain invalid\n")
    assert cgroup.make(ID) is None


@pytest.mark.parametrize("text", ["", "nonsense\n", "1:cpu:/\n", "0::/gone (deleted)\n"])
def test_without_cgroup_v2_there_is_none(place: Path, text: str) -> None:
    (place.parents[1] / "cgroup").write_text(text)
    assert cgroup.make(ID) is None
    assert cgroup.find(ID) is None
    assert not cgroup.leave(ID)


@pytest.mark.parametrize("wrong", ["", "../other", "a/b"])
def test_a_name_stays_within(place: Path, wrong: str) -> None:
    with pytest.raises(ValueError, match="not the id"):
        cgroup.make(wrong)


def test_limits_are_set_where_the_controllers_are(tmp_path: Path) -> None:
    group = Cgroup(tmp_path)
    assert group.limit(processes=5, memory_bytes=1 << 30, cpus=1.5) == set()
    for name in ("pids.max", "cpu.max"):
        (tmp_path / name).touch()
    assert group.limit(processes=5, memory_bytes=1 << 30, cpus=1.5) == {"processes", "cpus"}
    assert (tmp_path / "pids.max").read_text() == "5"
    assert (tmp_path / "cpu.max").read_text() == "150000 100000"
    assert group.limit() == set()


def test_nothing_is_asked_of_what_is_not_there(tmp_path: Path) -> None:
    group = Cgroup(tmp_path / "none")
    assert group.pids() == set()
    assert not group.freeze()
    assert not group.kill()
    assert not group.is_frozen()
    assert group.cpu_seconds() == 0
    assert group.remove()
