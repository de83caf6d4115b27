"""How soon the single file starts, beside the installed package: of each the best time of several, taken in turns."""

import math
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from tests.bench.measure import REPOSITORY, UNLIMITED, Row, ratio
from tests.bench.prepare import PASSWORD

FILE = REPOSITORY / "dist" / "daemon"
PACKAGE = Path(sys.executable).with_name("daemon")

_UNPACKED = "first start of the single file, which unpacks it"
_COMMANDS = {
    "`--version` of the single file, CPU of the package's": ["--version"],
    "`status` of the single file, CPU of the package's": ["status"],
    "start to ready of the single file, of the package's": ["start", "--detach"],
}


class Took(NamedTuple):
    """What a command took, in seconds; of a daemon that it left running `cpu` knows nothing."""

    wall: float
    cpu: float


def single_file(root: Path, *, rounds: int) -> list[Row]:
    """Start both; where `.ci/binary` has not built the file there is nothing to measure."""
    if not FILE.exists():
        return [Row(what, "no dist/daemon", "–", True) for what in (_UNPACKED, *_COMMANDS)]
    root.mkdir()
    home, unpacked = root / "home", [root / str(number) for number in range(rounds)]
    first = min(_took(FILE, home, ["--version"], into).wall for into in unpacked)
    _took(PACKAGE, home, ["init"], unpacked[0])
    rows = [ratio(_UNPACKED, first, 4, least=False, unit=" s")]
    for what, command in _COMMANDS.items():
        starts = command[0] == "start"
        best = {FILE: math.inf, PACKAGE: math.inf}
        for program in [FILE, PACKAGE] * rounds:
            took = _took(program, home, command, unpacked[0])
            best[program] = min(best[program], took.wall if starts else took.cpu)
            if starts:
                _took(program, home, ["stop"], unpacked[0])
        rows.append(ratio(what, best[FILE] / best[PACKAGE], 1.2, least=False))
    return rows


def _took(program: Path, home: Path, command: list[str], unpacked: Path) -> Took:
    env = {name: value for name, value in os.environ.items() if not name.startswith("DAEMON_")} | UNLIMITED
    env |= {"DAEMON_HOME": str(home), "DAEMON_MASTER_PASSWORD": PASSWORD, "DAEMON_UNPACK_DIR": str(unpacked)}
    started, used = time.perf_counter(), _cpu_of_children()
    done = subprocess.run([program, *command], env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    took = Took(time.perf_counter() - started, _cpu_of_children() - used)
    assert done.returncode == 0 or command == ["status"], done.stderr  # nothing runs, and it says so
    return took


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
