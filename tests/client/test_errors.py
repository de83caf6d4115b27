"""What goes wrong: one class a remedy, none of the catalogue's codes forgotten, and no token in any text."""

import json
import logging
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from daemon import client
from daemon.client import (
    ApiError,
    ClientError,
    NotFound,
    OutcomeUnknown,
    Session,
    SessionEnded,
    StrangeAnswer,
    Suspended,
    TooEarly,
    Unavailable,
    Unreachable,
)
from daemon.client.errors import REMEDIES, Problem, refusal
from daemon.domain.errors import CATALOGUE
from tests.client.conftest import OpenAgent
from tests.support.agents import Agent
from tests.support.cutter import Cutter, whole_message
from tests.support.daemon_process import environment
from tests.support.live import LiveDaemon

# --- the catalogue


def test_the_remedy_of_every_kind_of_the_catalogue_is_known() -> None:
    known = [kind for kinds in REMEDIES.values() for kind in kinds]
    assert sorted(kind.title for kind in known) == sorted(kind.title for kind in CATALOGUE)


def test_every_class_of_error_is_public() -> None:
    assert {remedy.__name__ for remedy in REMEDIES} < set(client.__all__)
    assert all(hasattr(client, name) for name in client.__all__)


def test_a_code_of_a_newer_daemon_is_an_api_error() -> None:
    error = refusal(Problem(code="NEW_CODE", status=418, detail="Something new"))
    assert type(error) is ApiError
    assert (error.details, error.errors, error.hint, error.retryable) == ({}, [], None, False)


def test_an_error_survives_the_way_out_of_a_pool_of_processes() -> None:
    problem = Problem(
        code="RENEWAL_TOO_EARLY", status=403, detail="d", hint="h", details={"retryAfter": 5}, retry_after=5
    )
    error = pickle.loads(pickle.dumps(refusal(problem)))
    assert type(error) is TooEarly
    assert (str(error), error.details, error.retry_after) == ("d (RENEWAL_TOO_EARLY) — h", {"retryAfter": 5}, 5)


def test_the_client_needs_no_web_framework() -> None:
    heavy = {"litestar", "uvicorn", "cryptography", "rich_click", "daemon.services", "daemon.cli"}
    script = f"import sys, daemon.client; print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment(Path("/")), check=True
    )
    assert done.stdout.strip() == "[]"


# --- ends


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (lambda live, made: live.owner.delete(f"/v1/sessions/{made['id']}"), ("SESSION_REVOKED", SessionEnded)),
        (lambda live, made: live.time.advance(1000), ("TOKEN_EXPIRED", SessionEnded)),
        (lambda live, made: live.owner.delete(f"/v1/agents/{made['agentId']}"), ("SESSION_REVOKED", SessionEnded)),
        (lambda live, made: live.owner.post(f"/v1/sessions/{made['id']}/suspend"), ("SESSION_SUSPENDED", Suspended)),
        (lambda live, made: live.owner.post(f"/v1/agents/{made['agentId']}/suspend"), ("AGENT_SUSPENDED", Suspended)),
    ],
    ids=["revoked", "expired", "agent terminated", "suspended", "agent suspended"],
)
def test_the_end_of_a_session_is_told_at_once(
    live: LiveDaemon, made: dict[str, Any], agent: Agent, end: Any, told: tuple[str, type[ApiError]]
) -> None:
    agent.do("whoami")
    end(live, made)
    code, kind = told
    for name in ("whoami", "renew", "touch"):
        with pytest.raises(kind) as ended:
            agent.do(name, *(["c"] if name == "touch" else []))
        assert ended.value.code == code


def test_the_kill_switch_ends_every_session(live: LiveDaemon, agent: Agent) -> None:
    agent.do("whoami")
    live.owner.post("/v1/admin/kill-switch", json={"reason": "test"}).raise_for_status()
    try:
        with pytest.raises(SessionEnded) as ended:
            agent.do("whoami")
    finally:
        live.owner.post("/v1/admin/recover").raise_for_status()
    assert ended.value.code == "SYSTEM_LOCKED"
    with pytest.raises(SessionEnded):
        agent.do("whoami")


# --- no daemon, or another


def test_without_a_daemon_a_call_ends_in_time(open_agent: OpenAgent, tmp_path: Path) -> None:
    agent = open_agent(socket=tmp_path / "nobody.sock", timeout=0.3)
    with pytest.raises(Unreachable, match="No daemon answers at "):
        agent.do("whoami")


def test_a_daemon_that_is_silent_is_unreachable(open_agent: OpenAgent, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent.sock"))
        silent.listen()
        agent = open_agent(socket=tmp_path / "silent.sock", timeout=0.3)
        with pytest.raises(Unreachable):
            agent.do("whoami")
        with pytest.raises(OutcomeUnknown):
            agent.do("publish", "AGENT_REPORT")


def test_what_may_not_be_repeated_is_not_when_its_answer_is_lost(
    live: LiveDaemon, made: dict[str, Any], open_agent: OpenAgent, way: Cutter
) -> None:
    agent = open_agent(socket=way.path)
    way.drop = lambda request: b"/events " in request
    with pytest.raises(OutcomeUnknown, match="may have been done"):
        agent.do("publish", "AGENT_REPORT")
    assert (way.dropped, len(live.events(sessionId=made["id"], type="AGENT_REPORT"))) == (1, 1)


def test_what_may_be_repeated_is(open_agent: OpenAgent, way: Cutter) -> None:
    agent = open_agent(socket=way.path)
    for name, arguments in {"whoami": {}, "bind": {"conversation_id": "c", "provider": "p", "model": "m"}}.items():
        way.dropped, way.drop = 0, lambda _request: way.dropped < 3
        assert agent.do(name, **arguments)
        assert way.dropped == 3


@contextmanager
def answering(path: Path, *answers: bytes) -> Iterator[list[bytes]]:
    """A server that is no daemon: it gives these answers, the last one for ever."""
    listening, requests = socket.socket(socket.AF_UNIX), list[bytes]()
    listening.bind(str(path))
    listening.listen()

    def serve() -> None:
        with suppress(OSError):
            while True:
                with listening.accept()[0] as connection:
                    requests.append(whole_message(connection))
                    answer = answers[min(len(requests), len(answers)) - 1]
                    connection.sendall(b"HTTP/1.1 " + answer.replace(b"\n", b"\r\n", answer.count(b"\n")))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield requests
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


def answer(status: str, body: object, **headers: str) -> bytes:
    text = json.dumps(body)
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\n".join([status, *lines, f"Content-Length: {len(text)}", "Connection: close", "", text]).encode()


@pytest.mark.parametrize(
    "strange",
    [
        answer("200 OK", "<html>"),
        answer("502 Bad Gateway", "x"),
        answer("404 Not Found", {"error": "x"}),
        answer("200 OK", []),
    ],
)
def test_what_is_no_daemon_is_said_to_be_none(open_agent: OpenAgent, tmp_path: Path, strange: bytes) -> None:
    with answering(tmp_path / "other.sock", strange):
        agent = open_agent(socket=tmp_path / "other.sock")
        with pytest.raises(StrangeAnswer, match="is not this daemon, or not this version"):
            agent.do("whoami")


def test_a_token_follows_no_redirect(open_agent: OpenAgent, tmp_path: Path) -> None:
    moved = answer("302 Found", "", Location="http://127.0.0.1:9/v1/session")
    with answering(tmp_path / "other.sock", moved) as requests:
        agent = open_agent(socket=tmp_path / "other.sock")
        with pytest.raises(StrangeAnswer):
            agent.do("whoami")
    assert len(requests) == 1


def problem(code: str, status: int, *, retryable: bool) -> dict[str, Any]:
    return {"code": code, "status": status, "detail": "d", "retryable": retryable, "of": "a newer daemon"}


LIMITED = answer("429 Too Many Requests", problem("RATE_LIMIT_EXCEEDED", 429, retryable=True), Retry_After="0")
STOPPING = answer("503 Service Unavailable", problem("SHUTTING_DOWN", 503, retryable=True))
FULL = answer("503 Service Unavailable", problem("STORAGE_UNAVAILABLE", 503, retryable=True), Retry_After="0")
DONE = answer("202 Accepted", {"seq": 7, "of": "a newer daemon"})


def test_what_was_refused_for_the_moment_is_sent_again(open_agent: OpenAgent, tmp_path: Path) -> None:
    with answering(tmp_path / "other.sock", LIMITED, STOPPING, LIMITED, DONE) as requests:
        assert open_agent(socket=tmp_path / "other.sock").do("publish", "AGENT_REPORT").seq == 7
    assert len(requests) == 4


def test_where_it_is_not_sure_that_nothing_was_written_it_is_not_sent_again(
    open_agent: OpenAgent, tmp_path: Path
) -> None:
    with answering(tmp_path / "other.sock", FULL) as requests:
        with pytest.raises(Unavailable):
            open_agent(socket=tmp_path / "other.sock").do("publish", "AGENT_REPORT")
        assert len(requests) == 1


@pytest.mark.parametrize("code", ["SESSION_SUSPENDED", "RENEWAL_TOO_EARLY", "SESSION_BUSY", "CONVERSATION_NOT_FOUND"])
def test_what_the_caller_has_to_decide_is_not_sent_again(open_agent: OpenAgent, tmp_path: Path, code: str) -> None:
    refused = answer("409 Conflict", problem(code, 409, retryable=code != "CONVERSATION_NOT_FOUND"), Retry_After="1")
    with answering(tmp_path / "other.sock", refused) as requests:
        with pytest.raises(ApiError) as told:
            open_agent(socket=tmp_path / "other.sock").do("whoami")
        assert (told.value.code, told.value.retry_after, len(requests)) == (code, 1, 1)


# --- secrets


def test_a_token_is_in_no_repr_no_error_and_no_log(  # noqa: PLR0917 (fixtures)
    live: LiveDaemon,
    made: dict[str, Any],
    file: Path,
    open_agent: OpenAgent,
    caplog: pytest.LogCaptureFixture,
    way: Cutter,
) -> None:
    caplog.set_level(logging.DEBUG)
    agent, told = open_agent(socket=way.path), []
    way.drop = lambda request: b"/renew " in request and way.dropped < 2
    live.time.advance(700)
    for name, arguments in [
        ("whoami", []),
        ("renew", []),
        ("conversation", ["c"]),
        ("publish", ["X"]),
        ("end", []),
        ("whoami", []),
    ]:
        try:
            told.append(repr(agent.do(name, *arguments)))
        except ClientError as error:
            told += [repr(error), str(error), repr(vars(error))]
    session = agent.session
    told += [
        repr(session),
        repr(session._core),
        repr(session._core._standing.look()),
        repr(session._core._renewal.answer),
    ]
    with pytest.raises(ClientError) as refused:
        Session.open(file, token=made["token"])
    told += [repr(refused.value), repr(Session.open(token=made["token"], home=live.root))]
    text = "\n".join([*told, caplog.text])
    assert "renewed, 1 of 30" in text
    assert [part for part in ("wai_sess_ey", *made["token"].split(".")[1:]) if part in text] == []


def test_a_missing_conversation_is_told_with_a_hint(agent: Agent) -> None:
    with pytest.raises(NotFound, match=r"\(CONVERSATION_NOT_FOUND\) — .* bind it again"):
        agent.do("conversation", "none")
