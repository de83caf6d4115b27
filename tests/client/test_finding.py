"""Where the session and the daemon are found: arguments, else the environment, else the home."""

from pathlib import Path
from typing import Any

import pytest

from daemon.client import AsyncSession, ClientError, NoSession, NotRenewable, Session, Unreachable
from daemon.client.finding import Address, credential, locator
from tests.client.conftest import SETTINGS
from tests.support.agents import token_file
from tests.support.live import LiveDaemon

VARIABLES = ("DAEMON_TOKEN_FILE", "DAEMON_SESSION_TOKEN", "DAEMON_URL", "DAEMON_HOME")


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_what_daemon_run_hands_out_is_enough(
    live: LiveDaemon, file: Path, made: dict[str, Any], monkeypatch: Any
) -> None:
    monkeypatch.setenv("DAEMON_TOKEN_FILE", str(file))
    monkeypatch.setenv("DAEMON_URL", live.url)
    with Session.open() as session:
        assert session.whoami().id == made["id"]


def test_what_session_create_exports_is_enough(live: LiveDaemon, made: dict[str, Any], monkeypatch: Any) -> None:
    monkeypatch.setenv("DAEMON_SESSION_TOKEN", made["token"])
    monkeypatch.setenv("DAEMON_URL", live.url)
    with Session.open() as session:
        assert session.whoami().id == made["id"]


def test_a_token_that_others_find_in_the_environment_too_is_not_renewed(
    live: LiveDaemon, made: dict[str, Any], monkeypatch: Any
) -> None:
    monkeypatch.setenv("DAEMON_SESSION_TOKEN", made["token"])
    monkeypatch.setenv("DAEMON_HOME", str(live.root))
    live.time.advance(700)
    with Session.open() as session:
        assert session.whoami().renewal_count == 0
        with pytest.raises(NotRenewable):
            session.renew()
    assert Session.open().whoami().id == made["id"]


async def test_asyncio_finds_the_same(live: LiveDaemon, file: Path, made: dict[str, Any], monkeypatch: Any) -> None:
    monkeypatch.setenv("DAEMON_TOKEN_FILE", str(file))
    monkeypatch.setenv("DAEMON_HOME", str(live.root))
    async with AsyncSession.open() as session:
        assert (await session.whoami()).id == made["id"]


def test_arguments_come_before_variables_and_files_before_tokens(live: LiveDaemon, tmp_path: Path) -> None:
    tokens = [live.new_session()["token"] for _ in range(3)]
    files = [token_file(tmp_path, token, str(number)) for number, token in enumerate(tokens)]
    both = {"DAEMON_TOKEN_FILE": str(files[1]), "DAEMON_SESSION_TOKEN": tokens[2]}
    assert credential(files[0], None, both).read() == tokens[0]
    assert credential(None, tokens[0], both).read() == tokens[0]
    assert credential(None, None, both).read() == tokens[1]
    assert credential(None, None, {**both, "DAEMON_TOKEN_FILE": ""}).read() == tokens[2]


def test_the_address_is_given_or_in_a_variable_or_in_the_home(live: LiveDaemon) -> None:
    environ = {"DAEMON_URL": "http://127.0.0.1:9/", "DAEMON_HOME": str(live.root)}
    own = Address(live.url, str(live.home.socket_path))
    assert locator("http://[::1]:8", None, None, environ)() == Address("http://[::1]:8")
    assert locator("http://agent_daemon:8/", None, None, environ)() == Address("http://agent_daemon:8")
    assert locator(None, "/x.sock", None, environ)().socket == "/x.sock"
    assert locator(None, None, live.root, environ)() == own
    assert locator(None, None, None, environ)() == Address("http://127.0.0.1:9")
    assert locator(None, None, None, {**environ, "DAEMON_URL": ""})() == own


def test_without_a_session_it_says_how_to_get_one() -> None:
    with pytest.raises(NoSession, match="set DAEMON_TOKEN_FILE, or start this program with `daemon run`"):
        Session.open()


def test_what_does_not_fit_together_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoSession, match="not both"):
        Session.open(tmp_path / "token", token="wai_sess_x")
    with pytest.raises(ClientError, match="one of url, socket and home"):
        Session.open(tmp_path / "token", url="http://127.0.0.1:1", home=tmp_path)


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:3100", "ftp://127.0.0.1", "http://", "http://h/path", "http://u:p@h", "x", "http://h:x", "http://[::1"],
)
def test_what_is_no_address_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ClientError, match="write http://HOST:PORT"):
        Session.open(tmp_path / "token", url=url)


def test_a_home_without_a_daemon_says_how_to_start_one(file: Path, tmp_path: Path) -> None:
    with Session.open(file, home=tmp_path, timeout=0.2) as session, pytest.raises(Unreachable, match="daemon start"):
        session.whoami()


def test_a_daemon_that_listens_elsewhere_after_a_restart_is_found_again(tmp_path: Path) -> None:
    live = LiveDaemon(tmp_path / "home", **SETTINGS, DAEMON_SERVER_UNIX_SOCKET="false")
    try:
        file = token_file(tmp_path, live.new_session()["token"])
        with Session.open(file, home=live.root) as session:
            before = session.whoami()
            first = live.url
            live.restart()
            assert session.whoami().id == before.id
            assert live.url != first
    finally:
        live.stop()


def test_over_tcp_it_works_as_over_the_socket(live: LiveDaemon, file: Path, made: dict[str, Any]) -> None:
    with Session.open(file, url=live.url) as session:
        assert session.whoami().id == made["id"]
