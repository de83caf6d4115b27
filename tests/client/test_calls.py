"""What an agent can ask for, with threads and with asyncio: typed results, typed refusals."""

from typing import Any

import pytest

from daemon.client import (
    ClientError,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    SessionEnded,
    TooEarly,
)
from daemon.client.finding import credential
from daemon.domain.conversation_views import BoundConversation, ConversationView
from daemon.domain.views import CreatedChild, OwnSession, PublishedEvent, RenewedSession, RevokedSession
from tests.client.conftest import OpenAgent
from tests.support.agents import Agent, of_file, token_file
from tests.support.live import LiveDaemon

ODD_IDS = ["a/b", "a?b=c", "#", "%41", "ü 日本", ".", "..", "%2e%2e", "a\\b", "x" * 256]


def test_a_session_knows_who_it_is(agent: Agent, made: dict[str, Any]) -> None:
    own = agent.do("whoami")
    assert isinstance(own, OwnSession)
    assert (own.id, own.agent_id, own.agent_name) == (made["id"], made["agentId"], "agent")
    assert (agent.session.id, agent.session.agent_id, agent.session.token) == (own.id, own.agent_id, made["token"])


def test_a_renewal_is_refused_with_the_seconds_to_wait(agent: Agent) -> None:
    with pytest.raises(TooEarly) as refused:
        agent.do("renew")
    assert (refused.value.code, refused.value.status, refused.value.retryable) == ("RENEWAL_TOO_EARLY", 403, True)
    assert refused.value.retry_after == refused.value.details["retryAfter"] == 500


def test_a_renewal_answers_with_the_next_token_which_is_in_the_file(agent: Agent, live: LiveDaemon, file: Any) -> None:
    live.time.advance(501)
    answer = agent.do("renew")
    assert isinstance(answer, RenewedSession)
    assert answer.renewal_count == 1
    assert file.read_text() == f"{answer.token}\n"
    assert agent.session.token == answer.token
    assert file.stat().st_mode & 0o777 == 0o600


def test_what_is_published_is_an_event(agent: Agent, live: LiveDaemon, made: dict[str, Any]) -> None:
    told = agent.do("publish", "AGENT_REPORT", reference_id="r-1", title="Done", details={"files": 3})
    assert isinstance(told, PublishedEvent)
    (event,) = live.events(sessionId=made["id"], type="AGENT_REPORT")
    assert event["seq"] == told.seq
    assert event["details"] == {"referenceId": "r-1", "title": "Done", "details": {"files": 3}}


def test_a_conversation_is_bound_shown_kept_rebound_and_deleted(agent: Agent) -> None:
    bound = agent.do("bind", "c-1", provider="anthropic", model="sonnet", external_id="x-1")
    assert isinstance(bound, BoundConversation)
    assert (bound.provider, bound.model, bound.external_id, bound.matched) == ("anthropic", "sonnet", "x-1", True)
    assert not agent.do("bind", "c-1", provider="openai", model="o9").matched
    shown = agent.do("conversation", "c-1")
    assert isinstance(shown, ConversationView)
    assert agent.do("touch", "c-1").expires_at == shown.expires_at
    assert agent.do("touch", "none").expires_at is None
    expected = ("anthropic", "sonnet")
    moved = agent.do("rebind", "c-1", expected=expected, provider="openai", model="o9", reason="overloaded")
    assert (moved.provider, moved.model, moved.rebind_count) == ("openai", "o9", 1)
    with pytest.raises(Conflict) as refused:
        agent.do("rebind", "c-1", expected=expected, provider="openai", model="o9", reason="overloaded")
    assert refused.value.details["provider"] == "openai"
    assert agent.do("delete_conversation", "c-1") is None
    with pytest.raises(NotFound):
        agent.do("conversation", "c-1")


def test_a_conversation_may_have_any_id(agent: Agent) -> None:
    for odd in ODD_IDS:
        assert agent.do("bind", odd, provider="p", model="m").conversation_id == odd
        assert agent.do("conversation", odd).conversation_id == odd
    assert sorted(one.conversation_id for one in agent.do("conversations")) == sorted(ODD_IDS)


def test_a_list_follows_its_pages(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.client.calls.PAGE", 3)
    for number in range(7):
        agent.do("bind", f"c-{number}", provider="p", model="m")
    assert len(agent.do("conversations")) == 7
    assert len(agent.do("conversations", limit=5)) == 5
    assert len(agent.do("conversations", limit=2)) == 2


def test_a_session_makes_lists_and_ends_sessions_below_it(agent: Agent, open_agent: OpenAgent) -> None:
    child = agent.do("create_child", ttl=900, constraints={"maxRequests": 5}, metadata={"part": 1})
    assert isinstance(child, CreatedChild)
    assert (child.depth, child.ttl, child.parent_id) == (1, 900, agent.session.id)
    assert child.token not in repr(child)
    below = open_agent(credential(None, child.token, {}))
    assert below.do("whoami").parent_id == agent.session.id
    assert [one.id for one in agent.do("children")] == [child.id]
    assert agent.do("end_child", child.id).status == "REVOKED"
    with pytest.raises(SessionEnded):
        below.do("whoami")
    assert agent.do("children") == []
    with pytest.raises(NotFound):
        agent.do("end_child", "../../session")
    assert agent.do("whoami").status == "ACTIVE"


def test_any_other_route_answers_with_its_json(agent: Agent, made: dict[str, Any]) -> None:
    assert agent.do("request", "get", "/v1/session")["id"] == made["id"]
    told = agent.do("request", "POST", "/v1/session/events", json={"type": "AGENT_REPORT"})
    assert told["seq"] > 0
    agent.do("bind", "c", provider="p", model="m")
    assert agent.do("request", "DELETE", "/v1/conversations/c") is None


@pytest.mark.parametrize(
    "path", ["http://127.0.0.1:1/v1/session", "v1/session", "", "@evil/v1", "//evil.example/v1/session"]
)
def test_a_token_is_sent_to_no_other_host(agent: Agent, path: str) -> None:
    with pytest.raises(ClientError, match="must begin with one /"):
        agent.do("request", "GET", path)


@pytest.mark.parametrize("body", [{"x": object()}, {"x": float("nan")}, {"x": "\ud800"}])
def test_what_is_no_json_is_refused_here(agent: Agent, body: Any) -> None:
    with pytest.raises((ClientError, Invalid)):
        agent.do("request", "POST", "/v1/session/events", json=body)


@pytest.mark.parametrize(("method", "path"), [("GE T", "/v1/session"), ("GET", "/v1/\n"), ("", "/v1/session")])
def test_what_is_no_request_is_refused_here(agent: Agent, method: str, path: str) -> None:
    with pytest.raises(ClientError) as refused:
        agent.do("request", method, path)
    assert type(refused.value) in {ClientError, NotFound}


def test_what_is_too_large_is_told_so(agent: Agent) -> None:
    with pytest.raises(Invalid) as refused:
        agent.do("request", "POST", "/v1/session/events", json={"details": "x" * 2_000_000})
    assert refused.value.code == "BODY_TOO_LARGE"


def test_every_invalid_field_is_named(agent: Agent) -> None:
    with pytest.raises(Invalid) as refused:
        agent.do("publish", "NO_SUCH_TYPE", title="")
    assert {problem["path"] for problem in refused.value.errors} == {"type", "title"}
    assert refused.value.request_id


def test_what_a_constraint_forbids_is_forbidden(live: LiveDaemon, open_agent: OpenAgent, tmp_path: Any) -> None:
    made = live.new_session(constraints={"allowedOperations": ["session.read"]})
    agent = open_agent(of_file(token_file(tmp_path, made["token"], "other")))
    with pytest.raises(Forbidden) as refused:
        agent.do("publish", "AGENT_REPORT")
    assert refused.value.details["constraint"] == "allowedOperations"


def test_a_session_ends_itself_and_again_without_an_error(agent: Agent) -> None:
    ended = agent.do("end")
    assert isinstance(ended, RevokedSession)
    assert ended.status == "REVOKED"
    assert agent.do("end").status == "REVOKED"
    with pytest.raises(SessionEnded):
        agent.do("whoami")


def test_a_closed_session_makes_no_calls(agent: Agent) -> None:
    agent.do("whoami")
    agent.do("close")
    with pytest.raises(ClientError, match="open it again"):
        agent.do("whoami")
