"""The POSIX sh around an agent's command: it holds stdin open and records how the command ended, daemon or none."""

import os
import re
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ENV = "/usr/bin/env"

_OF_A_RUN = ("wrapper", "keeper", "child", "exit")
_SAID = re.compile(rb"(\d{1,19}) (\d{1,10})\n")

_SHELLS_OWN = (
    *("PWD", "OLDPWD", "SHLVL", "_"),
    *("BASH_ENV", "BASHOPTS", "CDPATH", "ENV", "EUID", "IFS", "LINENO", "OPTIND", "PPID", "PS1", "PS2", "PS4"),
    *("RANDOM", "SECONDS", "SHELLOPTS", "UID"),
)
"""What a shell sets or obeys itself: the command gets it past the shells, and nobody else's secret is among it."""

_SHELLS_ADD = _SHELLS_OWN[:4]
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

SCRIPT = """\
umask 077
cd "$1" || exit 125
run=$2 leader=$3 scope=$4 inner=$5
shift 5
signals='HUP INT QUIT USR1 USR2 PIPE ALRM TERM TSTP TTIN TTOU XCPU XFSZ VTALRM PROF'
if [ -n "$scope" ]; then echo 0 >"$scope/cgroup.procs"; fi
echo "$run $$" >wrapper || exit 125
exec 8<>release
trap '' $signals
( exec 7<>stdin; read -r line <&8 ) >/dev/null &
echo "$run $!" >keeper
trap : $signals
${leader:+"$leader"} "$0" -c "$inner" "$0" "$run" "$@" 8<&-
status=$?
trap '' $signals
echo "$run $status" >exit
echo >&8
wait
exit 0
"""
"""What `sh` runs, as `$0`, with the arguments of `arguments`.

- The keeper is the subshell: it holds `stdin` for reading and writing, so neither it nor the command ever waits for the
  other to open it, and ignores from birth what the wrapper later only catches. A line in `release` ends it. `release`
  is open before the keeper is born, so that the line is there for it even if the command ends first; a signal to its
  pid could hit a stranger, since the shell reaps it unnoticed.
- The wrapper catches signals: the command would inherit what it ignored.
- The command is no asynchronous list, which would begin with SIGINT and SIGQUIT ignored. So the wrapper is its parent
  and forks between two lines: `setsid` in front of the inner shell is then no group leader, does not fork and keeps its
  pid.
- `echo` writes a line with one write(2), and who reads it takes nothing but a whole line: no rename is needed, for
  which there is no built-in command.
"""

INNER = """\
run=$1 mask=$2 group=$3 place=$4
shift 4
if [ -n "$group" ]; then echo 0 >"$group/cgroup.procs"; fi
echo "$run $$" >child || exit 125
[ -p started ] || exit 125
exec <stdin >>stdout 2>>stderr 9<>started
umask "$mask"
cd "$place" || exit 125
echo $$ >&9
exec "$@" 9>&-
"""
"""What becomes the command, with the same pid.

`started` is opened here, by name: the wrapper waits in the foreground and could not close a pipe it had inherited, so
its reader would see no end. Opened for reading too, it needs no daemon at its other end. Who gives the run up removes
it first, and then ends the pid in `child`: however slow, this shell escapes neither, nor waits for a keeper that has
gone.
"""


class Found(NamedTuple):
    """The pids that a run has written down; whether they are still its own, only their start times can tell."""

    wrapper: int
    keeper: int | None
    child: int | None


class ExitStatus(NamedTuple):
    """How a command ended: with an exit code, or by a signal."""

    code: int | None
    signal: int | None


def arguments(
    shell: str, directory: str, run: int, inner: Sequence[str], *, leader: str | None, scope: str = ""
) -> list[str]:
    """Return the wrapper's argument vector.

    Args:
        shell: path of a POSIX sh, used for both scripts.
        directory: the session's own, absolute.
        run: which run of the session it is.
        inner: umask in octal, directory of the cgroup or nothing, working directory; then the command.
        leader: path of `setsid`, or None where there is none.
        scope: directory of the cgroup of the wrapper itself, or nothing.
    """
    return [shell, "-c", SCRIPT, shell, directory, str(run), leader or "", scope, INNER, *inner]


def shielded(environment: Mapping[str, str], command: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Split an environment into what may pass through shells and what `env` puts in place behind them.

    Args:
        environment: what the command shall have. A name that is no identifier is dropped: one shell would drop it, and
            another take it for a function.
        command: the argument vector, an absolute path first.

    Returns:
        The wrapper's environment, and the command behind `env`.
    """
    passed = {name: value for name, value in environment.items() if _IDENTIFIER.fullmatch(name)}
    own = {name: passed.pop(name) for name in _SHELLS_OWN if name in passed}
    if "=" in command[0]:  # env would take the path for a variable: a working directory too many does less harm
        return passed, [*command]
    removed = [word for name in _SHELLS_ADD if name not in own for word in ("-u", name)]
    return passed, [ENV, *removed, *(f"{name}={value}" for name, value in own.items()), *command]


def begin(argv: list[str], environment: Mapping[str, str]) -> int:
    """Start the wrapper in a session of its own, with every signal at its default and no descriptor of ours.

    Returns:
        Its pid; it is a child of this process.

    Raises:
        OSError: the kernel refuses it, as when the arguments are too long.
        ValueError: there is a NUL character in a word.
    """
    null = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    closed = [(os.POSIX_SPAWN_CLOSE, fd) for fd in _inheritable()]
    # A shell can never again reset what was ignored when it began, as SIGINT and SIGHUP often are.
    default = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    return os.posix_spawn(
        argv[0], argv, environment, file_actions=[*null, *closed], setsid=True, setsigmask=[], setsigdef=default
    )


def _inheritable() -> list[int]:
    """Return the descriptors a child would get: Python's own are none of them, but our parent may have left us some."""
    fds = [int(path.name) for path in Path("/dev/fd").iterdir()]
    return [fd for fd in fds if fd > 2 and _is_inheritable(fd)]


def _is_inheritable(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:  # the one that listed them
        return False


def found(directory: Path, run: int) -> Found | None:
    """Return the pids that a run has written down; None where its wrapper never came to that."""
    wrapper = read_number(directory, "wrapper", run)
    if wrapper is None:
        return None
    return Found(wrapper, read_number(directory, "keeper", run), read_number(directory, "child", run))


def exit_status(directory: Path, run: int) -> ExitStatus | None:
    """Return how a run's command ended; None as long as its wrapper has not said so, or was itself killed."""
    status = read_number(directory, "exit", run)
    if status is None:
        return None
    return ExitStatus(None, status - 128) if 129 <= status <= 192 else ExitStatus(status, None)


def release(directory: Path) -> bool:
    """Let the keeper of `stdin` go, without ever waiting: its reader sees the end as soon as no writer is left.

    Returns:
        Whether a keeper, or the wrapper that will end it, was there.
    """
    try:
        fd = os.open(directory / "release", os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # ENXIO: nobody has it open any more
        return False
    try:
        return os.write(fd, b"\n") == 1
    except (BlockingIOError, BrokenPipeError):
        return False
    finally:
        os.close(fd)


def forget_run(directory: Path) -> None:
    """Remove what a run wrote down of itself, once the caller has kept what it needs; its output stays."""
    for name in _OF_A_RUN:
        (directory / name).unlink(missing_ok=True)


def read_number(directory: Path, name: str, run: int) -> int | None:
    """Return what a small file says of this run; None where it says nothing, or not yet all of it."""
    try:
        fd = os.open(directory / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            said = _SAID.fullmatch(os.read(fd, 64))
        finally:
            os.close(fd)
    except OSError:
        return None
    return int(said[2]) if said and int(said[1]) == run else None
