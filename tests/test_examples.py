"""The programs of the README in curl, Python and TypeScript: they do what it says, and what is hard about tokens."""

import re
import shlex
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import typescript
from tests.support.daemon_process import environment
from tests.support.live import PASSWORD, LiveDaemon
from tests.support.readme import README
from tests.support.relay import Relay

SECTION = README.read_text().partition("\n## From any language\n")[2].partition("\n## ")[0]
TITLES = {"sh": "curl", "python": "Python", "typescript": "TypeScript"}
SUFFIXES = {"sh": "sh", "python": "py", "typescript": "mts"}
RUNNABLE = {".sh": ["bash", "-euo", "pipefail"], ".py": [sys.executable, "-I"], ".mjs": ["node"]}
"""What runs a file of this suffix."""


pytestmark = pytest.mark.parametrize("written", TITLES, indirect=True)


def blocks(language: str) -> list[str]:
    """Return the owner's and the agent's program."""
    part = SECTION.partition(f"### {TITLES[language]}\n")[2].partition("\n### ")[0]
    found = re.findall(rf"```{language}\n(.*?)```", part, re.DOTALL)
    assert len(found) == 2
    return found


@pytest.fixture(scope="module")
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the programs of a language, as the README says that they are named and made."""
    language = request.param
    directory = tmp_path_factory.mktemp(language)
    for name, program in zip(("owner", "agent"), blocks(language), strict=True):
        (directory / f"{name}.{SUFFIXES[language]}").write_text(program)
    if language == "typescript":
        modules = typescript.require()
        (directory / "node_modules").symlink_to(modules)
        (command,) = re.findall(r"`npx (tsc [^`]+)`", SECTION)
        compiler, *options = shlex.split(command)
        made = [modules / ".bin" / compiler, *options, "--erasableSyntaxOnly"]
        done = subprocess.run(made, cwd=directory, capture_output=True, text=True, check=False)
        assert (done.stdout, done.returncode) == ("", 0)
    return directory


class Programs:
    """The two programs in one language, run in a directory of their own.

    Args:
        written: where they are.
        directory: where they run.
    """

    def __init__(self, written: Path, directory: Path) -> None:
        (self._owner,) = {path for path in written.iterdir() if path.suffix in RUNNABLE and path.stem == "owner"}
        self.suffix = self._owner.suffix
        self.directory = directory
        self.token = directory / "token"
        if self.suffix == ".sh":
            self._note_arguments()

    def _note_arguments(self) -> None:
        """Let a `curl` that notes its arguments stand before the real one."""
        curl = shutil.which("curl")
        if curl is None or shutil.which("jq") is None:
            pytest.skip("the README's commands need curl and jq")
        (self.directory / "bin").mkdir()
        noting = self.directory / "bin" / "curl"
        noting.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >>{self.directory}/arguments\nexec {curl} "$@"\n')
        noting.chmod(0o755)

    def start(self, name: str, url: str) -> subprocess.Popen[str]:
        """Start one of them."""
        command = [*RUNNABLE[self.suffix], self._owner.with_stem(name)]
        env = environment(self.directory, DAEMON_URL=url, PYTHONPATH=None)
        if name == "owner":
            env["DAEMON_MASTER_PASSWORD"] = PASSWORD
        env["PATH"] = f"{self.directory / 'bin'}:{env['PATH']}"
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=env, cwd=self.directory, stdout=pipe, stderr=pipe, text=True)

    def run(self, name: str, url: str) -> str:
        """Run one of them and return what it printed."""
        return ended(self.start(name, url))


def ended(process: subprocess.Popen[str]) -> str:
    """Return what a program printed that ended well."""
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, ""), err
    return out


@pytest.fixture
def programs(written: Path, tmp_path: Path) -> Programs:
    """The programs in each language."""
    directory = tmp_path / "work"
    directory.mkdir()
    return Programs(written, directory)


@pytest.fixture
def through(live: LiveDaemon) -> Iterator[Callable[[Callable[[str, int], None]], Relay]]:
    """Make a relay to the daemon; it is closed after the test."""
    made: list[Relay] = []

    def make(meanwhile: Callable[[str, int], None]) -> Relay:
        made.append(Relay(live.url, meanwhile))
        return made[-1]

    yield make
    for one in made:
        one.close()


def story() -> str:
    """Return what the README says that every agent prints, numbers left out."""
    (shown,) = re.findall(r"\n```\n(I am .*?)```", SECTION, re.DOTALL)
    return without_numbers(shown)


def without_numbers(text: str) -> str:
    """Return text whose numbers may be any."""
    return re.sub(r"(?<= )\d+\b", "N", text)


def test_the_owner_makes_a_session_and_the_agent_does_what_the_readme_says(
    live: LiveDaemon, programs: Programs
) -> None:
    assert programs.run("owner", live.url) == ""
    assert stat.S_IMODE(programs.token.stat().st_mode) == 0o600
    said = programs.run("agent", live.url)
    assert without_numbers(said) == story()
    assert f"in {86_400 // 2} s" in said
    happened = [event["type"] for event in live.events()]
    for wanted in ("CONVERSATION_BOUND", "AGENT_REPORT", "SESSION_REVOKED"):
        assert happened.count(wanted) == 1
    assert "SESSION_RENEWED" not in happened
    if programs.suffix == ".sh":
        arguments = (programs.directory / "arguments").read_text()
        assert "/v1/session" in arguments
        assert [secret for secret in (PASSWORD, programs.token.read_text().strip()) if secret in arguments] == []


def session(live: LiveDaemon, programs: Programs, **body: object) -> str:
    """Make a session whose token is in the programs' file, and return its id."""
    made = live.new_session(live.new_agent("courier"), **body)
    programs.token.touch(mode=0o600)
    programs.token.write_text(f"{made['token']}\n")
    return str(made["id"])


def test_a_renewal_that_is_due_is_made_and_its_token_used(live: LiveDaemon, programs: Programs) -> None:
    session(live, programs)
    before = programs.token.read_text()
    live.time.advance(86_400 // 2)
    assert without_numbers(programs.run("agent", live.url)) == story()
    assert programs.token.read_text() != before
    assert stat.S_IMODE(programs.token.stat().st_mode) == 0o600
    happened = [event["type"] for event in live.events()]
    assert [happened.count(one) for one in ("SESSION_RENEWED", "SESSION_REVOKED", "TOKEN_REUSED")] == [1, 1, 0]
    assert [path.name for path in programs.directory.glob("token*")] == ["token"]


def test_who_was_overtaken_reads_the_file_again(
    live: LiveDaemon, programs: Programs, through: Callable[[Callable[[str, int], None]], Relay]
) -> None:
    identity = session(live, programs)
    following = live.owner.post(f"/v1/sessions/{identity}/rotate").json()["token"]

    def others_write_the_next_token(_request: str, status: int) -> None:
        if status == 401:
            programs.token.write_text(following)

    relay = through(others_write_the_next_token)
    assert without_numbers(programs.run("agent", relay.url)) == story()
    assert [status for _, status in relay.seen].count(401) == 1


def test_who_is_told_to_wait_waits(
    live: LiveDaemon, programs: Programs, through: Callable[[Callable[[str, int], None]], Relay]
) -> None:
    session(live, programs, constraints={"requestsPerMinute": 3})

    def time_passes(request: str, status: int) -> None:
        if request == "GET /v1/session":
            live.time.advance(59)
        elif status == 429:
            live.time.advance(60)

    relay = through(time_passes)
    assert without_numbers(programs.run("agent", relay.url)) == story()
    assert 429 in {status for _, status in relay.seen}


def test_what_is_refused_for_good_is_not_repeated(
    live: LiveDaemon, programs: Programs, through: Callable[[Callable[[str, int], None]], Relay]
) -> None:
    identity = session(live, programs)
    live.owner.delete(f"/v1/sessions/{identity}").raise_for_status()
    relay = through(lambda _request, _status: None)
    process = programs.start("agent", relay.url)
    out, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert (out, "SESSION_REVOKED" in err) == ("", True)
    assert programs.token.read_text().strip() not in err
    assert relay.seen == [("GET /v1/session", 401)]


def test_a_daemon_that_is_away_for_a_moment_is_asked_again(live: LiveDaemon, programs: Programs) -> None:
    session(live, programs)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens there: connections are refused
        port = taken.getsockname()[1]
        process = programs.start("agent", f"http://127.0.0.1:{port}")
        with pytest.raises(subprocess.TimeoutExpired):  # it has not given up
            process.wait(1.5)
    relay = Relay(live.url, port=port)
    try:
        assert without_numbers(ended(process)) == story()
    finally:
        relay.close()
