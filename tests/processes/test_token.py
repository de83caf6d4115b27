"""The token of a supervised session: its process finds the current one in a file, whoever renews or replaces it."""

import os
import shutil
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from daemon.client import Session
from daemon.client.finding import locator
from tests.support.agents import in_time_of, of_file
from tests.support.daemon_process import wait_for
from tests.support.services.webhook import FakeWebhook
from tests.support.supervised import (
    BEGIN,
    CAT,
    Desk,
    Supervised,
    arguments_of,
    code,
    environment_of,
    heard,
    pass_time,
    ticked,
)

SETTINGS = {"DAEMON_SECURITY_SESSION_ABSOLUTE_LIFETIME": "200000"}
ENVIRON = {
    "LC_TIME": "C",
    "XDG_DATA_DIRS": "/usr/share",
    "HTTPS_PROXY": "http://proxy.invalid",
    "no_proxy": "localhost",
    "AWS_SECRET_ACCESS_KEY": "not-for-agents",
    "ANTHROPIC_API_KEY": "not-for-agents",
    "DAEMON_MASTER_PASSWORD": "not-for-agents",
    "LD_DEBUG_OUTPUT": "/dev/null",
    "HTTP_PROXY_PASSWORD": "not-for-agents",
}
KEPT = {"HOME", "PATH", "USER", "LOGNAME", "SHELL", "LANG", "TERM", "TZ", "TMPDIR"}
KEPT_PROXIES = {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"}
ALWAYS = {"idleTimeout": 0, "maxDuration": 0}


def long_lived(desk: Desk, *, ttl: int = 1000, renewals: int = 30) -> Supervised:
    made = desk.make(*CAT, ttl=ttl, constraints={"maxRenewals": renewals}, process=ALWAYS)
    return made.wait("READY")


def use(session: Supervised, token: str | None = None) -> tuple[int, str | None]:
    """Return what a token gets; the one in the file when None."""
    return code(session.live.agent(token or session.token_in_file).get("/v1/session"))


def assert_found(session: Supervised) -> None:
    """The process finds a token that is accepted, and nobody else can read it."""
    assert use(session) == (200, None)
    for path, mode in ((session.directory / "token", 0o600), (session.directory, 0o700)):
        assert stat.S_IMODE(path.stat().st_mode) == mode


def renewals(session: Supervised) -> list[str]:
    return [one["actor"] for one in session.events() if one["type"] == "SESSION_RENEWED"]


# --- where it is


def test_a_process_finds_its_token_in_its_file_when_it_starts(desk: Desk) -> None:
    session = desk.sh('cat "$DAEMON_TOKEN_FILE"; read -r line').says("wai_sess_")
    assert session.output().strip() == session.token == session.token_in_file
    assert_found(session)


def test_a_process_s_environment_is_the_allowed_one_its_own_and_the_daemon_s(desk: Desk) -> None:
    session = desk.run(*CAT, environment={"OWN": "1", "HOME": "/elsewhere"}, oauthToken="oauth")
    kept = {name for name in os.environ if name in KEPT or name.upper() in KEPT_PROXIES}
    kept |= {name for name in os.environ if name.startswith(("LC_", "XDG_"))} | {"LC_TIME", "XDG_DATA_DIRS"}
    kept |= {"HTTPS_PROXY", "no_proxy"}
    found = environment_of(session.pid)
    own = {
        "OWN": "1",
        "HOME": "/elsewhere",
        "CLAUDE_CODE_OAUTH_TOKEN": "oauth",
        "DAEMON_TOKEN_FILE": str(session.directory / "token"),
        "DAEMON_URL": desk.live.url,
        "DAEMON_SESSION_ID": session.id,
        "DAEMON_AGENT_ID": session.agent_id,
        "DAEMON_PROCESS_MARK": session.id,
    }
    assert found.keys() == kept | own.keys()
    assert {name: found[name] for name in own} == own


def test_a_token_is_in_no_environment_and_in_no_arguments(desk: Desk) -> None:
    session = desk.sh("sleep 300 & wait")
    secret = session.token_in_file
    assert len(session.pids) >= 3
    for pid in session.pids:
        assert secret not in environment_of(pid).values()
        assert secret.encode() not in arguments_of(pid)


def test_a_closed_session_s_token_is_not_kept(desk: Desk) -> None:
    session = desk.run(*CAT)
    session.do("kill")
    wait_for(lambda: not (session.directory / "token").exists())
    assert use(session, session.token) == (401, "SESSION_REVOKED")


# --- how it changes


def test_the_daemon_renews_it_a_little_after_the_guards_allow_it(desk: Desk, hook: FakeWebhook) -> None:
    session = long_lived(desk)
    pass_time(desk.live, 599)
    assert session.token_in_file == session.token
    pass_time(desk.live, 1)
    assert session.token_in_file != session.token
    assert_found(session)
    assert use(session, session.token) == (401, "TOKEN_ROTATED")
    shown = session.show()
    assert (shown["renewalCount"], shown["generation"]) == (1, 2)
    assert shown["expiresAt"] == shown["lastRenewedAt"] + 1000
    assert session.story() == [*BEGIN, "renewed"]
    assert renewals(session) == ["system"]
    assert [one["type"] for one in heard(desk.live, hook, session)].count("SESSION_RENEWED") == 1


def test_a_session_lives_on_for_as_long_as_it_may_be_renewed(desk: Desk) -> None:
    session = long_lived(desk, renewals=5)
    for _ in range(5):
        pass_time(desk.live, 600)
        assert_found(session)
    assert renewals(session) == ["system"] * 5
    pass_time(desk.live, 600)
    assert session.state == "READY"
    pass_time(desk.live, 400)
    session.wait_closed()
    assert session.process["reason"] == "expired"
    told = [one for one in session.story() if one not in {"renewed", "expiring_soon"}]
    assert told == [*BEGIN, "expired ttl", "closed expired exit 0"]
    assert session.story().count("expiring_soon") == 1


def test_a_session_that_may_not_be_renewed_expires(desk: Desk) -> None:
    session = long_lived(desk, renewals=0)
    pass_time(desk.live, 999)
    assert session.state == "READY"
    pass_time(desk.live, 1)
    session.wait_closed()
    assert renewals(session) == []


def test_no_renewal_leads_past_the_absolute_end(desk: Desk) -> None:
    session = long_lived(desk, ttl=150_000)
    pass_time(desk.live, 90_000)
    shown = session.show()
    assert shown["expiresAt"] == shown["absoluteExpiresAt"]
    assert_found(session)
    pass_time(desk.live, 109_999)
    assert session.state == "READY"
    pass_time(desk.live, 1)
    session.wait_closed()
    assert renewals(session) == ["system"]


def test_a_suspended_session_is_not_renewed_until_it_is_resumed(desk: Desk) -> None:
    session = long_lived(desk)
    session.do("suspend")
    pass_time(desk.live, 700)
    assert session.token_in_file == session.token
    session.do("resume")

    def renewed() -> bool:
        ticked(desk.live)
        return session.token_in_file != session.token

    wait_for(renewed)
    assert_found(session)


def test_its_owner_replaces_it(desk: Desk) -> None:
    session = desk.run(*CAT)
    answer = session.do("rotate")
    assert session.token_in_file == answer["token"] != session.token
    assert_found(session)
    assert use(session, session.token) == (401, "TOKEN_ROTATED")


def test_a_client_in_its_process_and_the_daemon_renew_it_at_once(desk: Desk) -> None:
    session, live = long_lived(desk), desk.live
    file, located = of_file(session.directory / "token"), locator(None, None, live.root, {})
    with Session(file, located, in_time_of(live)) as own, ThreadPoolExecutor(3) as pool:
        for number in range(1, 9):
            live.time.advance(700)
            for done in [pool.submit(work) for work in (own.whoami, partial(ticked, live), own.whoami)]:
                done.result()
            wait_for(lambda number=number: own.whoami().renewal_count == number)
            assert session.token_in_file == own.token
    assert_found(session)
    assert session.story() == [*BEGIN, *["renewed"] * 8]


def test_its_own_process_renews_it(desk: Desk) -> None:
    session = long_lived(desk)
    desk.live.time.advance(500)
    answer = desk.live.agent(session.token).put(f"{session.path}/renew").raise_for_status().json()
    assert session.token_in_file == answer["token"]
    assert_found(session)
    assert renewals(session) == [f"agent:{session.agent_id}"]


def test_a_refused_renewal_leaves_it_as_it_is(desk: Desk) -> None:
    session = long_lived(desk)
    assert code(desk.live.agent(session.token).put(f"{session.path}/renew")) == (403, "RENEWAL_TOO_EARLY")
    assert session.token_in_file == session.token
    assert use(session) == (200, None)
    desk.live.time.advance(500)
    answer = desk.live.agent(session.token).put(f"{session.path}/renew").raise_for_status().json()
    assert session.token_in_file == answer["token"]


def test_the_daemon_renews_a_token_that_its_process_has_removed(desk: Desk) -> None:
    session = long_lived(desk)
    (session.directory / "token").unlink()
    pass_time(desk.live, 600)
    assert_found(session)


def at_once(session: Supervised, count: int) -> list[str]:
    """Renew with the same token several times at once, and return the tokens that are answered."""
    clients = [session.live.agent(session.token_in_file) for _ in range(count)]
    ready = threading.Barrier(count)

    def renew(number: int) -> str:
        ready.wait()
        return str(clients[number].put(f"{session.path}/renew").raise_for_status().json()["token"])

    with ThreadPoolExecutor(count) as several:
        return list(several.map(renew, range(count)))


def test_workers_that_renew_at_once_leave_a_token_in_the_file_that_is_accepted(desk: Desk) -> None:
    session = long_lived(desk)
    for _ in range(5):
        desk.live.time.advance(500)
        answered = at_once(session, 8)
        assert len(set(answered)) == 1
        assert session.token_in_file == answered[0]
        assert_found(session)


def test_whoever_reads_the_file_never_sees_a_part_of_a_token(desk: Desk) -> None:
    session = desk.run(*CAT)
    issued, seen, over = {session.token}, set[str](), threading.Event()

    def read() -> None:
        while not over.is_set():
            seen.add((session.directory / "token").read_text())

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for _ in range(40):
        issued.add(session.do("rotate")["token"])
    over.set()
    for reader in readers:
        reader.join()
    assert len(seen) > 5
    assert seen <= {f"{token}\n" for token in issued}


# --- after a crash


def crashed_before_it_was_published(session: Supervised, old: str) -> None:
    """Leave the session's directory as a crash between the commit and the publication does."""
    (session.directory / "token").replace(session.directory / "token.next")
    (session.directory / "token").write_text(f"{old}\n")
    (session.directory / "token").chmod(0o600)


def test_a_token_that_was_never_made_the_current_one_is_not_published(desk: Desk) -> None:
    session = desk.run(*CAT)
    desk.live.stop()
    staged = session.directory / "token.next"
    shutil.copy(session.directory / "token", staged)
    staged.write_text("wai_sess_never.committed.token\n")
    desk.live.start()
    assert session.token_in_file == session.token
    assert use(session) == (200, None)
    session.do("rotate")
    assert_found(session)


def test_a_token_that_a_crash_kept_from_its_file_is_published_for_a_process_that_runs(desk: Desk) -> None:
    session = desk.run(*CAT)
    session.do("rotate")
    desk.live.stop()
    crashed_before_it_was_published(session, session.token)
    desk.live.start()
    wait_for(lambda: session.pid)
    assert_found(session)


def test_a_token_that_a_crash_kept_from_its_file_is_published_for_a_process_that_starts(desk: Desk) -> None:
    session = desk.make("sh", "-c", "exit 3").wait("ERROR")
    fresh = session.do("rotate")["token"]
    desk.live.stop()
    crashed_before_it_was_published(session, session.token)
    desk.live.start()
    session.patch(process={"command": [*CAT]}).raise_for_status()
    session.do("resume")
    session.wait("READY")
    assert session.token_in_file == fresh
    assert_found(session)


def test_a_token_that_is_lost_is_replaced_for_a_process_that_starts(desk: Desk) -> None:
    session = desk.make("sh", "-c", "exit 3").wait("ERROR")
    (session.directory / "token").unlink()
    session.patch(process={"command": [*CAT]}).raise_for_status()
    session.do("resume")
    session.wait("READY")
    assert session.token_in_file != session.token
    assert_found(session)
    (rotated,) = [one for one in session.events() if one["type"] == "SESSION_ROTATED"]
    assert rotated["actor"] == "system"
