"""The README's section about the service: its commands run under a real systemd, and say what it says."""

import re
import sys
from collections.abc import Iterator

import pytest

from tests.support.daemon_process import CHEAP, PASSWORD
from tests.support.readme import README
from tests.support.systemd import UserManager, user_manager

SECTION = README.read_text().partition("## Run it as a service\n")[2].partition("\n## ")[0]
BLOCKS = re.findall(r"```sh\n(.*?)```\n```\n(.*?)```", SECTION, re.DOTALL)


@pytest.fixture
def manager() -> Iterator[UserManager]:
    with user_manager() as started:
        home = started.home / ".local" / "share" / "agent-daemon"
        home.mkdir(parents=True, mode=0o700)
        settings = "".join(
            f"{name.lower().removeprefix('daemon_security_')} = {CHEAP[name]}\n" for name in CHEAP if "ARGON2" in name
        )
        (home / "config.toml").write_text(f"[server]\nport = 0\n[security]\n{settings}")
        program = started.home / "bin" / "daemon"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m daemon "$@"\n')
        program.chmod(0o755)
        yield started


def as_shown(text: str, home: str) -> list[str]:
    """Return lines without what differs from one machine to the next."""
    text = re.sub(r"(?m)^pid .*$", "pid", text.replace(home, "/home/me"))
    return re.sub(r"http://127.0.0.1:\d+", "URL", text).splitlines()


def test_every_command_about_the_service_says_what_the_readme_says(manager: UserManager) -> None:
    assert len(BLOCKS) == 2
    for commands, shown in BLOCKS:
        script = f'PATH="$HOME/bin:$PATH"\nset -eu\nexec 2>&1\n{commands}'
        done = manager.run("sh", "-c", script, timeout=110, DAEMON_MASTER_PASSWORD=PASSWORD)
        assert done.code == 0, done.out
        said = iter(as_shown(done.out, str(manager.home)))
        wanted = [line for line in as_shown(shown, "/home/me") if line != "…"]
        assert [line for line in wanted if line not in said] == []
