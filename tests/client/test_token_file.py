"""The token file: whose it must be, and what is left of it whatever happens."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.client import ClientError, NoSession, Session, TokenFileError
from daemon.client.claims import claims
from daemon.client.token_file import TokenFile
from tests.support.agents import token_file
from tests.support.daemon_process import REPOSITORY, untraced, wait_for
from tests.support.live import LiveDaemon

UNFIT: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: path.unlink(), "No such file"),
    "a symbolic link": (lambda path: path.symlink_to(path.rename(path.with_name("target"))), "it is a symbolic link"),
    "a directory": (lambda path: (path.unlink(), path.mkdir()), "is not a file|Is a directory"),
    "a pipe": (lambda path: (path.unlink(), os.mkfifo(path, 0o600)), "is not a file"),
    "readable by the group": (lambda path: path.chmod(0o640), "run: chmod 600 "),
    "writable by all": (lambda path: path.chmod(0o602), "run: chmod 600 "),
    "of another user": (lambda path: os.chown(path, 12345, -1), "belongs to another user"),
}
NO_TOKENS = [b"", b"\n", b"wai_sess_", b"wai_sess_a.b.c", b"wai_own_x", b"\xff\xfe", b"x" * 5000, b"wai_sess_a.e30.c"]


def as_another_program(live: LiveDaemon, file: Path, script: str) -> "subprocess.Popen[str]":
    """Run a script that knows `session` and `file`, whose time of day is the daemon's."""
    head = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from daemon.client import *\n"
        "from daemon.client.standing import Time\n"
        "from daemon.client.finding import credential, locator\n"
        "file = Path(sys.argv[1])\n"
        "known, locate = credential(file, None, {}), locator(None, sys.argv[2], None, {})\n"
        "session = Session(known, locate, Time(now=lambda: float(sys.argv[3])))\n"
    )
    command = [sys.executable, "-c", head + script, str(file), str(live.home.socket_path), str(live.time.wall)]
    return subprocess.Popen(command, cwd=REPOSITORY, env=untraced(), stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("unfit", UNFIT)
@pytest.mark.parametrize("what", ["token", "token.lock"])
def test_a_file_that_others_may_have_written_is_refused(live: LiveDaemon, file: Path, unfit: str, what: str) -> None:
    if unfit == "of another user" and os.geteuid() != 0:
        pytest.skip("only root can make a file of another user")
    path = file.with_name(what)
    path.touch(mode=0o600)
    spoil, says = UNFIT[unfit]
    spoil(path)
    live.time.advance(501)
    session = Session.open(file, home=live.root)
    if what == "token":
        with pytest.raises(TokenFileError, match=says) as refused:
            session.whoami()
        assert str(path) in str(refused.value)
    elif unfit == "missing":
        assert session.whoami()
    else:
        with pytest.raises(TokenFileError, match=says):
            session.renew()
        assert claims(file.read_text().strip(), "it").gen == 1
    session.close()


@pytest.mark.parametrize("text", NO_TOKENS, ids=range(len(NO_TOKENS)))
def test_a_file_without_a_token_is_refused_and_its_text_not_told(live: LiveDaemon, file: Path, text: bytes) -> None:
    file.write_bytes(text)
    with Session.open(file, home=live.root) as session, pytest.raises(NoSession) as refused:
        session.whoami()
    assert str(refused.value) == f"What the token file {file} holds is no session token (wai_sess_…)"


def test_one_at_a_time_may_renew_whoever_asks(file: Path) -> None:
    first, second = TokenFile(file), TokenFile(file)
    claim = first.claim()
    assert claim is not None
    assert (first.claim(), second.claim()) == (None, None)
    claim.release()
    again = second.claim()
    assert again is not None
    again.release()


def test_a_token_is_replaced_whole_and_private_and_nothing_else_is_left(file: Path) -> None:
    claim = TokenFile(file).claim()
    assert claim is not None
    claim.stage()
    claim.store("wai_sess_next")
    claim.release()
    assert file.read_text() == "wai_sess_next\n"
    assert file.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in file.parent.iterdir()) == ["token", "token.lock"]


def test_a_crash_between_the_answer_and_the_file_strands_nobody(live: LiveDaemon, file: Path) -> None:
    live.time.advance(501)
    die = (
        "from daemon.client.token_file import FileClaim\n"
        "FileClaim.store = lambda claim, token: os.kill(os.getpid(), signal.SIGKILL)\n"
        "session.renew()\n"
    )
    process = as_another_program(live, file, die)
    assert process.wait(20) == -signal.SIGKILL
    assert claims(file.read_text().strip(), "it").gen == 1
    live.time.advance(200)
    with Session.open(file, home=live.root) as session:
        own = session.whoami()
    assert (own.renewal_count, own.generation) == (1, 2)
    assert claims(file.read_text().strip(), "it").gen == 2
    assert sorted(path.name for path in file.parent.iterdir()) == ["token", "token.lock"]


def test_with_a_full_disk_the_old_token_is_kept_and_used(live: LiveDaemon, file: Path) -> None:
    live.time.advance(501)
    script = (
        "import resource\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))\n"
        "try: session.renew()\n"
        "except TokenFileError as error: print(error, end=';')\n"
        "print(session.whoami().renewal_count, end=';')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "print(session.renew().renewal_count)\n"
    )
    process = as_another_program(live, file, script)
    assert process.communicate(timeout=20)[0] == f"{file} cannot be replaced: File too large;0;1\n"
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_a_forked_child_goes_on_with_connections_of_its_own(live: LiveDaemon, file: Path) -> None:
    live.time.advance(501)
    script = (
        "with session:\n"
        "    session.whoami()\n"
        "    read, write = os.pipe()\n"
        "    if os.fork() == 0:\n"
        "        first = session.whoami().renewal_count\n"
        "        os.write(write, f'{first} {session.renew().renewal_count}'.encode())\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
        "    print(os.read(read, 99).decode(), session.whoami().renewal_count)\n"
    )
    assert as_another_program(live, file, script).communicate(timeout=20)[0] == "0 1 1\n"


def test_a_forked_child_keeps_no_lock_of_its_dead_parent(live: LiveDaemon, file: Path) -> None:
    script = (
        "claim = known.claim()\n"
        "read, write = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    print(os.getpid(), flush=True)\n"
        "    signal.pause()\n"
        "os.waitpid(-1, 0)\n"
    )
    process = as_another_program(live, file, script)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    assert TokenFile(file).claim() is None
    process.kill()
    process.wait(20)
    try:
        claim = wait_for(TokenFile(file).claim)
        claim.release()
        os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_token_in_memory_is_renewed_once_however_often_it_is_opened(live: LiveDaemon) -> None:
    token = live.new_session(ttl=1000)["token"]
    first, second = Session.open(token=token, home=live.root), Session.open(token=token, home=live.root)
    live.time.advance(501)
    answer = first.renew()
    live.time.advance(60)
    assert second.token == first.token == answer.token
    assert second.whoami().renewal_count == 1
    third = Session.open(token=token, home=live.root)
    assert third.token == answer.token
    for session in (first, second, third):
        session.close()


def test_a_forked_child_renews_no_token_that_its_parent_could_not_hear_of(live: LiveDaemon, file: Path) -> None:
    script = (
        "known = credential(None, file.read_text().strip(), {})\n"
        "session = Session(known, locate)\n"
        "read, write = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    try: session.renew()\n"
        "    except NotRenewable as error: os.write(write, f'{session.whoami().renewal_count} {error}'.encode())\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "print(os.read(read, 99).decode(), session.renew().renewal_count)\n"
    )
    live.time.advance(501)
    said = as_another_program(live, file, script).communicate(timeout=20)[0]
    assert said == "0 This process may not renew a token that lies in no file; use a token file 1\n"


def test_a_wrong_token_is_refused_before_anything_is_sent(live: LiveDaemon) -> None:
    for token in ("", "wai_sess_x", "Bearer wai_sess_a.b.c", "wai_sess_é.b.c"):
        with pytest.raises(ClientError):
            Session.open(token=token, home=live.root).whoami()


def test_the_file_may_be_named_relative_to_where_the_program_was_started(
    live: LiveDaemon, file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(file.parent)
    session = Session.open(file.name, home=live.root)
    monkeypatch.chdir("/")
    assert session.whoami()
    session.close()
    assert token_file(tmp_path, "x", "unused").exists()
