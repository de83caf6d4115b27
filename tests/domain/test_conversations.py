"""The laws of conversations, whatever comes."""

import unicodedata
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.domain import conversations, mirroring, session_creation
from daemon.domain.changes import Rows
from daemon.domain.conversations import MAX_ID, Rebinding, check_id
from daemon.domain.errors import DaemonError
from daemon.domain.facts.conversations import Binding
from daemon.domain.pages import MAX_CURSOR, decode_cursor, encode_cursor
from daemon.domain.rows import Agent, Conversation

NOW, TTL = 1_800_000_000, 600
SESSION = session_creation.blank("session", "agent", expires_at=NOW + 10**6, created_at=NOW - 10, state="ACTIVE")
AGENT = Agent("agent", "researcher", "ACTIVE")
WANTED = Conversation("agent", "conv", "anthropic", "claude", "thread", "session")
NAMES = st.sampled_from(["anthropic", "openai", "mistral"])
STORED = st.none() | st.builds(
    Conversation,
    st.just("agent"), st.just("conv"), NAMES, NAMES, st.none(), st.none(), st.just(NOW - 5000), st.just(NOW - 100),
    st.integers(NOW - 3, NOW + 3), st.integers(1, 9), st.integers(0, 9),
)  # fmt: skip


def rows(stored: Conversation | None) -> Rows:
    return Rows(session=SESSION, agent=AGENT, conversation=stored)


@given(st.text(max_size=300))
def test_an_id_is_kept_as_it_is_or_refused(text: str) -> None:
    bad = {"Cc", "Zl", "Zp", "Cs"}
    good = 1 <= len(text) <= MAX_ID and not any(unicodedata.category(one) in bad for one in text)
    if good:
        assert check_id(text) is text
    else:
        with pytest.raises(DaemonError) as refused:
            check_id(text)
        assert refused.value.code == "VALIDATION_ERROR"


@pytest.mark.parametrize("text", ["", "\x00", "\x1f", "\x7f", "\x80", "\x9f", "\u2028", "\u2029", "\ud800"])
def test_a_character_that_could_hide_is_refused(text: str) -> None:
    with pytest.raises(DaemonError):
        check_id(f"a{text}b" if text else text)


@given(STORED)
def test_a_bind_keeps_what_lives_and_begins_what_does_not(stored: Conversation | None) -> None:
    outcome = conversations.bind(rows(stored), NOW, wanted=WANTED, ttl=TTL)
    assert outcome == conversations.bind(rows(stored), NOW, wanted=WANTED, ttl=TTL)
    made, created = outcome.answer.conversation, outcome.answer.created
    assert created == (stored is None or stored.expires_at <= NOW) == bool(outcome.facts)
    assert outcome.conversation == made
    assert (made.last_activity, made.expires_at) == (NOW, NOW + TTL)
    if created or stored is None:
        assert made == msgspec.structs.replace(
            WANTED, created_at=NOW, last_activity=NOW, expires_at=NOW + TTL, request_count=1
        )
    else:
        kept = {"last_activity": NOW, "expires_at": NOW + TTL, "request_count": stored.request_count + 1}
        assert made == msgspec.structs.replace(stored, **kept)


@given(STORED, NAMES, NAMES, NAMES, NAMES)
def test_a_rebind_changes_what_is_as_expected_and_nothing_else(
    stored: Conversation | None, provider: str, model: str, to: str, other: str
) -> None:
    change = Rebinding(Binding(provider, model), Binding(to, other), "why")
    if stored is None or stored.expires_at <= NOW or (stored.provider, stored.model) != (provider, model):
        with pytest.raises(DaemonError) as refused:
            conversations.rebind(rows(stored), NOW, change=change)
        lives = stored is not None and stored.expires_at > NOW
        assert refused.value.code == ("CONVERSATION_CONFLICT" if lives else "CONVERSATION_NOT_FOUND")
        return
    outcome = conversations.rebind(rows(stored), NOW, change=change)
    rebound = msgspec.structs.replace(stored, provider=to, model=other, rebind_count=stored.rebind_count + 1)
    assert outcome.conversation == outcome.answer == rebound
    assert len(outcome.facts) == 1


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"revoked_at": NOW - 1}, "SESSION_REVOKED"),
        ({"expires_at": NOW}, "TOKEN_EXPIRED"),
        ({"state": "SUSPENDED"}, "SESSION_SUSPENDED"),
    ],
)
def test_every_change_looks_at_the_session_as_it_is_stored(changed: dict[str, Any], code: str) -> None:
    stored = msgspec.structs.replace(WANTED, expires_at=NOW + 9)
    seen = Rows(session=msgspec.structs.replace(SESSION, **changed), agent=AGENT, conversation=stored)
    change = Rebinding(Binding("anthropic", "claude"), Binding("openai", "gpt"), "why")
    for law in (
        lambda: conversations.bind(seen, NOW, wanted=WANTED, ttl=TTL),
        lambda: conversations.rebind(seen, NOW, change=change),
        lambda: conversations.delete(seen, NOW),
    ):
        with pytest.raises(DaemonError) as refused:
            law()
        assert refused.value.code == code


@given(st.integers(0, 10**11), st.uuids(), st.text(min_size=1, max_size=MAX_ID))
def test_a_cursor_carries_any_id(moment: int, agent: Any, text: str) -> None:
    try:
        row = f"{agent}:{check_id(text)}"
    except DaemonError:
        return
    cursor = encode_cursor(moment, row)
    assert len(cursor) <= MAX_CURSOR
    assert decode_cursor(cursor) == (moment, row)


@given(STORED, st.tuples(NAMES, NAMES), st.integers(0, 9))
def test_of_two_bindings_that_follow_from_one_the_stored_one_stays(
    stored: Conversation | None, bound: tuple[str, str], count: int
) -> None:
    provider, model = bound
    held = Conversation("agent", "conv", provider, model, None, None, NOW - 5000, NOW, NOW + TTL, 1, count)
    change = Rebinding(Binding("before", "before"), Binding(provider, model), "529")
    late = stored is not None and stored.rebind_count == count and (stored.provider, stored.model) != bound
    if late and stored is not None and stored.expires_at > NOW:
        for law in (partial(mirroring.rebound, held=held, change=change), partial(mirroring.began, begun=held)):
            with pytest.raises(DaemonError) as refused:
                law(rows(stored), NOW)
            assert refused.value.code == "CONVERSATION_CONFLICT"
    else:
        kept = mirroring.rebound(rows(stored), NOW, held=held, change=change).conversation or stored
        assert kept is not None
        assert kept.rebind_count >= count
