"""What is secret of a process reaches its command and nobody else: no file, no log, no answer, no event."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon_process import wait_for
from tests.support.live import LiveDaemon
from tests.support.owner import WEBHOOK_SECRET, add, webhook
from tests.support.services.webhook import FakeWebhook
from tests.support.supervised import BEGIN, CAT, Desk, Supervised, arguments_of, code, environment_of, heard

SETTINGS = {"DAEMON_LOG_LEVEL": "debug"}

OAUTH, VALUE = "oauth-4f1d0c6e", "value-9b27a1d5"
LATER_OAUTH, LATER_VALUE = "oauth-later-77e0", "value-later-51c3"
ALL = (OAUTH, VALUE, LATER_OAUTH, LATER_VALUE)
SECRETS: dict[str, Any] = {"oauthToken": OAUTH, "environment": {"API_KEY": VALUE}}
LATER: dict[str, Any] = {"oauthToken": LATER_OAUTH, "environment": {"API_KEY": LATER_VALUE}}


def assert_kept(text: str | bytes, where: object) -> None:
    data = text.encode() if isinstance(text, str) else text
    for secret in ALL:
        assert secret.encode() not in data, (secret, where)


def lived(desk: Desk) -> Supervised:
    """Return a session that has had many a thing happen to it, with secrets all the while."""
    session = desk.run(*CAT, quietAfter=50, **SECRETS)
    assert environment_of(session.pid)["API_KEY"] == VALUE
    session.turn("hello")
    pid = session.pid
    session.patch(process=LATER).raise_for_status()
    wait_for(lambda: session.process["pid"] not in {None, pid})
    assert environment_of(session.pid)["CLAUDE_CODE_OAUTH_TOKEN"] == LATER_OAUTH
    session.patch(process={"command": ["no-such-command"]}).raise_for_status()
    session.wait("ERROR")
    session.patch(process={"command": [*CAT]}).raise_for_status()
    session.do("resume")
    return session.wait("READY")


def test_secrets_are_in_no_file_of_the_home(desk: Desk) -> None:
    lived(desk)
    desk.live.restart()
    files = [path for path in desk.live.root.rglob("*") if path.is_file()]
    assert {"daemon.db", "daemon.log", "seal.key", "stdout"} <= {path.name for path in files}
    for path in files:
        assert_kept(path.read_bytes(), path)
    ((sealed,),) = desk.live.query("SELECT secrets FROM processes WHERE session_id = ?", desk.made[0].id)
    assert sealed


def test_secrets_are_in_no_answer_and_in_no_event(desk: Desk, hook: FakeWebhook) -> None:
    session = lived(desk)
    owner, agent = desk.live.owner, desk.live.agent(session.token)
    for answer in (
        owner.get(session.path),
        owner.get("/v1/sessions", params={"agentId": session.agent_id}),
        owner.get("/v1/owner/sessions"),
        owner.get("/v1/owner/processes"),
        agent.get("/v1/session"),
        owner.get("/v1/admin/audit", params={"sessionId": session.id}),
        owner.get("/v1/owner/notifications"),
        owner.get("/v1/admin/status"),
        owner.get("/health"),
    ):
        assert answer.status_code == 200
        assert_kept(answer.text, answer.url)
        assert "API_KEY" not in answer.text
    assert_kept(str(session.events()), "events")
    assert heard(desk.live, hook, session)
    assert_kept(str([one.body for one in hook.messages]), "messages")


def test_secrets_are_in_no_arguments(desk: Desk) -> None:
    session = desk.sh("sleep 300 & wait", **SECRETS)
    wait_for(lambda: len(session.pids) == 4)
    for pid in session.pids:
        assert_kept(arguments_of(pid), pid)


@pytest.mark.parametrize("name", ["ENV", "PS1", "UID"])
def test_a_variable_that_a_shell_would_take_for_its_own_is_refused(desk: Desk, name: str) -> None:
    answer = desk.ask(*CAT, process={"environment": {name: VALUE}})
    assert code(answer) == (400, "VALIDATION_ERROR")
    assert [one["path"] for one in answer.json()["errors"]] == [f"process.environment.{name}"]
    assert VALUE not in answer.text


@pytest.mark.parametrize(
    "process",
    [
        {"command": [*CAT], "oauthToken": f"{OAUTH} blank"},
        {"command": [*CAT], "oauthToken": OAUTH, "environment": {"BAD-NAME": VALUE}},
        {"command": [*CAT], "oauthToken": OAUTH, "environment": {"API_KEY": [VALUE]}},
        {"command": [*CAT], "oauthToken": [OAUTH], "environment": VALUE},
        {"command": [*CAT], "workingDir": "/etc", **SECRETS},
        {"command": "no", **SECRETS},
        {"command": [*CAT], "environment": {"API_KEY": VALUE, "LD_PRELOAD": OAUTH, "PATH": OAUTH}},
    ],
    ids=range(7),
)
def test_a_refusal_repeats_no_secret(desk: Desk, process: dict[str, Any]) -> None:
    session = desk.run(*CAT)
    for answer in (desk.ask(process=process), session.patch(process=process)):
        assert code(answer) == (400, "VALIDATION_ERROR")
        assert_kept(answer.text, answer.url)
    assert_kept((desk.live.root / "logs" / "daemon.log").read_bytes(), "log")


def test_nobody_sees_another_session_s_environment(desk: Desk) -> None:
    session = desk.run(*CAT, **SECRETS)
    other = desk.run(*CAT, agent=session.agent_id)
    assert not {"API_KEY", "CLAUDE_CODE_OAUTH_TOKEN"} & environment_of(other.pid).keys()
    client = desk.live.agent(other.token)
    for answer in (
        client.get(session.path),
        client.get(f"{session.path}/output", params={"follow": "false"}),
        client.get("/v1/session"),
        client.get("/v1/owner/processes"),
        client.patch(session.path, json={"process": {"environment": {}}}),
    ):
        assert_kept(answer.text, answer.url)
        assert answer.status_code == (200 if answer.url.path == "/v1/session" else answer.status_code)
        assert answer.status_code in {200, 401, 404}


# --- without the key


def test_a_process_whose_secrets_cannot_be_opened_is_an_error_that_is_told(
    launch: Callable[..., LiveDaemon], tmp_path: Path
) -> None:
    live = launch(DAEMON_PROCESSES_WORKSPACE_ROOTS=f'["{tmp_path}"]')
    desk = Desk(live, tmp_path)
    session = desk.make("sh", "-c", "exit 3", process=SECRETS).wait("ERROR")
    running = desk.run(*CAT, quietAfter=50, **SECRETS)
    live.stop()
    shutil.move(live.root / "seal.key", tmp_path / "seal.key")
    live.start()
    with FakeWebhook(WEBHOOK_SECRET, lambda: live.time.wall) as hook:
        add(live, webhook(hook))  # sealed with a new key
        live.time.advance(1000)
        session.do("resume")
        session.tells(*BEGIN, "error crashed exit 3", "updated process", "ERROR>INITIALIZING", "error sealed")
        assert session.process["reason"] == "sealed"
        (message,) = [one for one in heard(live, hook, session) if one["type"] == "SESSION_ERROR"]
        assert message["reason"] == "sealed"
    assert code(session.patch(process={"environment": {"API_KEY": "x"}})) == (503, "STORAGE_UNAVAILABLE")
    assert running.turn("hello").output() == "hello\n"  # what runs has what it needs
    assert code(running.patch(process={"maxDuration": 3600})) == (503, "STORAGE_UNAVAILABLE")
    desk.close()
