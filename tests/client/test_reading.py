"""Whatever comes from a file or from another server is read, or refused in the client's own words."""

import base64
import contextlib
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from daemon.client import ClientError, NoSession, StrangeAnswer, calls
from daemon.client.calls import Call
from daemon.client.claims import Claims, claims
from daemon.client.effects import Reply

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(["code", "status", "detail", "retryable", "details", "errors", "hint", "requestId", "x"])
CALLS: list[Call[Any]] = [
    calls.whoami(),
    calls.renew("s"),
    calls.end(),
    calls.publish("AGENT_REPORT", None, None, None),
    calls.bind("c", "p", "m", None),
    calls.conversations(5),
    calls.create_child(None, None, None),
    calls.anything("GET", "/", None),
]


@given(st.text() | st.builds("wai_sess_{}.{}.{}".format, *[st.text(alphabet="abcXYZ019-_=", max_size=30)] * 3))
def test_a_text_is_a_token_or_it_is_refused(text: str) -> None:
    with contextlib.suppress(NoSession):
        assert isinstance(claims(text, "the test"), Claims)


RIGHT = {"sub": "01a3185c-5000-7657-a465-21d8adcf3560", "agt": "a", "gen": 1, "iat": 2, "exp": 3}


@given(JSON | st.dictionaries(st.sampled_from([*RIGHT, "x"]), JSON, max_size=2).map(lambda other: {**RIGHT, **other}))
def test_the_claims_of_a_token_are_right_or_it_is_refused(said: Any) -> None:
    payload = base64.urlsafe_b64encode(json.dumps(said).encode()).decode().rstrip("=")
    with contextlib.suppress(NoSession):
        found = claims(f"wai_sess_a.{payload}.c", "the test")
        assert {name: getattr(found, name) for name in RIGHT} == {name: said[name] for name in RIGHT}


@given(st.binary(max_size=60) | st.dictionaries(NAMES, JSON).map(lambda said: json.dumps(said).encode()))
def test_an_answer_is_read_or_is_no_daemon_s(body: bytes) -> None:
    reply = Reply(200, {}, body, "the test")
    for call in CALLS:
        with contextlib.suppress(StrangeAnswer):
            call.read(reply)
    with contextlib.suppress(StrangeAnswer):
        assert calls.problem(reply).code is not None


@given(st.text(max_size=40) | st.builds('<{}{}>; rel="next"'.format, st.sampled_from(["/", "//", ""]), st.text()))
def test_a_list_is_followed_within_the_daemon_alone(link: str) -> None:
    following = calls.following(calls.conversations(5), Reply(200, {"link": link}, b"[]", "the test"))
    assert following is None or (following.target.startswith("/") and not following.target.startswith("//"))


@given(st.text(st.characters(exclude_categories=()), min_size=1, max_size=30) | st.sampled_from([".", "..", "..."]))
def test_an_id_stays_one_segment_of_the_path(conversation_id: str) -> None:
    with contextlib.suppress(ClientError):
        target = calls.conversation(conversation_id).target.removeprefix("/v1/conversations/")
        assert target.isascii()
        assert not set(target) & set("/?# ")
        assert target not in {".", ".."}
