"""Programs of a session's processes: `family.py <token> <file> <program> [arguments]`; each says in the file who it is.

The token is in the command line of each of them, whatever becomes of its environment, and each ends after a minute.
"""

import functools
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import NoReturn

TOKEN, FILE = sys.argv[1:3]
LIFE = 60  # seconds
EXPONENTIAL = 400


def said(what: str) -> None:
    """Add a line to the file: what, and our pid."""
    descriptor = os.open(FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{what} {os.getpid()}\n".encode())
    os.close(descriptor)


def pause() -> NoReturn:
    """Wait for the end."""
    while True:
        signal.pause()


def fork(program: Callable[[], object]) -> int:
    """Run the program in a child, and return its pid."""
    if pid := os.fork():
        return pid
    signal.alarm(LIFE)
    program()
    os._exit(0)


def sleep() -> None:
    """Say who we are, and wait."""
    said("sleep")
    pause()


def generations() -> None:
    """A child, a grandchild and one more."""

    def grandchild() -> None:
        said("grandchild")
        fork(sleep)
        pause()

    def child() -> None:
        said("child")
        fork(grandchild)
        pause()

    said("parent")
    fork(child)
    pause()


def wide(count: str) -> None:
    """So many descendants, in three generations."""

    def some(number: int) -> None:
        for _ in range(number - 1):
            fork(pause)
        said("wide")
        pause()

    whole, rest = divmod(int(count), 5)
    for part in (whole, whole, whole, whole, whole + rest):
        fork(functools.partial(some, part))
    pause()


def escaping(program: Callable[[], object]) -> None:
    """Run the program in a process that init has adopted, in a session of its own."""

    def between() -> None:
        os.setsid()
        fork(program)

    os.waitpid(fork(between), 0)


def setsid() -> None:
    """A child in a session of its own."""

    def child() -> None:
        os.setsid()
        said("setsid")
        pause()

    fork(child)
    pause()


def orphan() -> None:
    """A process that init has adopted."""
    escaping(sleep)
    said("parent")
    pause()


def become_bare() -> NoReturn:
    """Run `sleep` with an empty environment."""
    os.execve(sys.executable, [sys.executable, "-IS", __file__, TOKEN, FILE, "sleep"], {})


def bare() -> None:
    """A process that init has adopted, and whose environment is empty."""
    escaping(become_bare)
    said("parent")
    pause()


def bare_when_told() -> None:
    """A child with an empty environment, that init adopts once its parent is told to end."""

    def child() -> None:
        os.setsid()
        become_bare()

    signal.signal(signal.SIGUSR1, lambda *_: os._exit(0))
    fork(child)
    said("parent")
    pause()


def bare_in_session() -> None:
    """A process that init has adopted, whose environment is empty, and that is in the session of the first."""
    os.setsid()

    os.waitpid(fork(lambda: fork(become_bare)), 0)
    said("parent")
    pause()


def stubborn() -> None:
    """Ignore what asks to end."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    sleep()


def polite() -> None:
    """Say that we were asked to end, and end."""

    def end(*_: object) -> NoReturn:
        said("ended")
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    sleep()


def linear() -> None:
    """Fork children without end, each of which lives for 50 ms."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    said("parent")
    while True:
        fork(lambda: time.sleep(0.05))


def exponential() -> None:
    """Fork in every process, until there are some hundred."""

    def grow() -> None:
        said("one")
        while os.stat(FILE).st_size < EXPONENTIAL * len("one 12345\n"):
            fork(grow)
        pause()

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    grow()


def hopping() -> None:
    """Hand over to a child without end, at once each time."""
    end = time.monotonic() + LIFE
    said("parent")
    while time.monotonic() < end and not os.path.exists(f"{FILE}.stop"):
        if os.fork():
            os._exit(0)


def waking() -> None:
    """Let a child run again, whoever stops it."""
    child = fork(sleep)
    said("parent")
    while True:
        os.kill(child, signal.SIGCONT)


def zombie() -> None:
    """Leave a dead child unreaped."""
    said("parent")
    fork(lambda: said("zombie"))
    pause()


def headless() -> None:
    """End the first thread, while another goes on."""
    import ctypes
    import threading

    threading.Thread(target=sleep_in_thread).start()
    ctypes.CDLL(None).syscall(60, 0)


def sleep_in_thread() -> None:
    """Say who we are, and wait, in a thread that gets no signals."""
    said("sleep")
    time.sleep(LIFE)


def authority(session_id: str, wrapper: str) -> None:
    """A daemon that was started inside of a session: it ends that session, but neither itself nor its own child."""
    from daemon.supervision.identity import identify
    from daemon.supervision.tree import Tree, kill

    child = fork(sleep)
    top = identify(int(wrapper) or os.getppid())
    assert top is not None
    left = kill([Tree(session_id, top)], 5)
    assert left == {session_id: []}, left
    assert os.waitpid(child, os.WNOHANG) == (0, 0)
    said("done")
    pause()


def unprivileged(session_id: str, wrapper: str) -> None:
    """A daemon that may not signal the session's processes."""
    from daemon.supervision.identity import identify
    from daemon.supervision.tree import Tree, freeze, kill, terminate

    top = identify(int(wrapper))
    assert top is not None
    os.setresuid(65534, 65534, 65534)
    tree = Tree(session_id, top)
    answers = [freeze([tree]), terminate([tree]), kill([tree], 0.2, wrapper=True)]
    print(*(len(answer[session_id]) for answer in answers))


if __name__ == "__main__":
    signal.alarm(LIFE)
    globals()[sys.argv[3]](*sys.argv[4:])
