"""How soon the single file starts, beside the installed package: of each the best time of several, taken in turns."""

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.bench.measure import REPOSITORY, UNLIMITED, Row, ratio
from tests.bench.prepare import PASSWORD

FILE = REPOSITORY / "dist" / "daemon"
PACKAGE = Path(sys.executable).with_name("daemon")

_UNPACKED = "first start of the single file, which unpacks it"
_RATIOS = {
    "`--version`": ["--version"],
    "`status`": ["status"],
    "start to ready": ["start", "--detach"],
}


def single_file(root: Path, *, rounds: int) -> list[Row]:
    """Start both; where `.ci/binary` has not built the file there is nothing to measure."""
    names = {what: f"{what} of the single file, of that of the package" for what in _RATIOS}
    if not FILE.exists():
        return [Row(what, "no dist/daemon", "–", True) for what in (_UNPACKED, *names.values())]
    root.mkdir()
    home, unpacked = root / "home", [root / str(number) for number in range(rounds)]
    first = min(_seconds(FILE, home, ["--version"], into) for into in unpacked)
    _seconds(PACKAGE, home, ["init"], unpacked[0])
    rows = [ratio(_UNPACKED, first, 4, least=False, unit=" s")]
    for what, arguments in _RATIOS.items():
        pairs = [_pair(home, arguments, unpacked[0]) for _ in range(rounds)]
        file, package = (min(times) for times in zip(*pairs, strict=True))
        rows.append(ratio(names[what], file / package, 1.2, least=False))
    return rows


def _pair(home: Path, arguments: list[str], unpacked: Path) -> tuple[float, float]:
    def seconds(program: Path) -> float:
        took = _seconds(program, home, arguments, unpacked)
        if arguments[0] == "start":
            _seconds(program, home, ["stop"], unpacked)
        return took

    return seconds(FILE), seconds(PACKAGE)


def _seconds(program: Path, home: Path, arguments: list[str], unpacked: Path) -> float:
    env = {name: value for name, value in os.environ.items() if not name.startswith("DAEMON_")} | UNLIMITED
    env |= {"DAEMON_HOME": str(home), "DAEMON_MASTER_PASSWORD": PASSWORD, "DAEMON_UNPACK_DIR": str(unpacked)}
    started = time.perf_counter()
    done = subprocess.run([program, *arguments], env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    took = time.perf_counter() - started
    assert done.returncode == 0 or arguments == ["status"], done.stderr  # nothing runs, and it says so
    return took
