"""A person at a terminal: a program in a pseudo-terminal, and what is typed when it asks."""

import os
import pty
import select
import time
from collections.abc import Callable, Mapping, Sequence

Reply = str | Callable[[str], str]


def at_terminal(
    command: Sequence[str], env: Mapping[str, str], replies: Mapping[str, Reply], *, seconds: float = 60
) -> tuple[int, str]:
    """Run a program at a terminal and return its exit code and all that was on the screen.

    Args:
        command: the program and its arguments.
        env: its environment.
        replies: what is typed when the screen ends with this text; a function gets the screen so far.
        seconds: until it is given up.
    """
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(command[0], list(command), dict(env))
    screen, answered, deadline = b"", 0, time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            if not select.select([terminal], [], [], 0.1)[0]:
                continue
            try:
                chunk = os.read(terminal, 65_536)
            except OSError:  # Linux says so when the program has ended
                break
            screen += chunk
            shown = screen[answered:].decode(errors="replace").rstrip()
            for question, reply in replies.items():
                if shown.endswith(question):
                    typed = reply if isinstance(reply, str) else reply(screen.decode(errors="replace"))
                    os.write(terminal, f"{typed}\n".encode())
                    answered = len(screen)
    finally:
        os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), screen.decode().replace("\r\n", "\n")
