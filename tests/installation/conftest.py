"""A systemd for each module, and a home that has its password."""

import sys
from collections.abc import Iterator

import pytest

from tests.support.daemon_process import CHEAP, PASSWORD
from tests.support.homes import prepare
from tests.support.systemd import UserManager, user_manager

CONFIG = """\
[server]
port = 0
[processes]
workspace_roots = ["{home}"]
"""


@pytest.fixture(scope="module")
def manager() -> Iterator[UserManager]:
    with user_manager() as started:
        home = started.home / "initialised"
        prepare(home)
        (home / "config.toml").write_text(CONFIG.format(home=started.home))
        init = (sys.executable, "-m", "daemon", "--home", str(home), "init")
        assert started.run(*init, **CHEAP, DAEMON_MASTER_PASSWORD=PASSWORD).code == 0
        yield started
