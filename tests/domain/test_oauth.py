"""The laws of introspection, without an engine."""

from fnmatch import fnmatchcase
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.domain import oauth, session_creation
from daemon.domain.body import json_text
from daemon.domain.constraints import OPERATIONS
from daemon.domain.rows import Agent, Session

AGENT = Agent("a", "agent", "ACTIVE")
NAMES = (*OPERATIONS, "wallet.sign", "wallet.read", "sessionX", "x")
PATTERN = st.sampled_from((*NAMES, "*", "session.*", "*.read", "wallet.*", "s*", "[sw]*", "?", "좋다", "with blank"))
ALLOWED = st.none() | st.lists(PATTERN, max_size=5)


def constraints(allowed: list[str] | None) -> str | None:
    return None if allowed is None else json_text({"allowedOperations": allowed})


def session(**more: Any) -> Session:
    made = session_creation.blank("s", "a", created_by="api", max_renewals=3)
    times = {"created_at": 100, "expires_at": 1000, "absolute_expires_at": 9000, "ttl_seconds": 900, "state": "READY"}
    return msgspec.structs.replace(made, **times | more)


@given(st.lists(ALLOWED, min_size=1, max_size=4))
def test_a_scope_matches_nothing_that_any_session_of_the_lineage_does_not_allow(
    lineage: list[list[str] | None],
) -> None:
    told = oauth.told(session(), AGENT, 1000, tuple(map(constraints, lineage)))
    scope = str(told.scope).split(" ")
    for name in NAMES:
        allowed = all(one is None or any(fnmatchcase(name, pattern) for pattern in one) for one in lineage)
        matched = any(fnmatchcase(name, pattern) for pattern in scope)
        assert not matched or allowed, (name, scope)
        if name in OPERATIONS:
            assert matched == allowed, (name, scope)


@pytest.mark.parametrize(
    ("allowed", "scope"),
    [
        (None, "*"), ([], ""), (["session.*", "wallet.sign"], "session.* wallet.sign"),
        (["fine", "not fine", 'a"quote', "back\\slash", "좋다", "[ab]?!"], "fine [ab]?!"),
    ],
)  # fmt: skip
def test_a_scope_is_the_patterns_of_allowed_operations_that_a_scope_can_hold(
    allowed: list[str] | None, scope: str
) -> None:
    assert oauth.told(session(), AGENT, 1000, (constraints(allowed),)).scope == scope


@pytest.mark.parametrize(
    ("changed", "good"),
    [
        ({}, True), ({"expires_at": 200}, False), ({"revoked_at": 150}, False), ({"expired_at": 150}, False),
        ({"state": "SUSPENDED"}, False), ({"idle_timeout": 60}, False), ({"idle_timeout": 101}, True),
        ({"constraints": '{"maxRequests":5}'}, False), ({"constraints": '{"maxRequests":6}'}, True),
    ],
)  # fmt: skip
def test_a_session_is_good_while_the_session_check_would_let_it_pass(changed: dict[str, Any], good: bool) -> None:
    assert oauth.is_good(session(**changed), AGENT, 200, None, 5) is good
    suspended = msgspec.structs.replace(AGENT, status="SUSPENDED")
    assert oauth.is_good(session(**changed), suspended, 200, None, 5) is False


def test_what_is_made_of_secrets_shows_none() -> None:
    from daemon.domain.oauth_views import AddedVerifier
    from daemon.domain.requests import TokenForm
    from daemon.domain.rows import Verifier

    shown = [
        TokenForm(token="wai_sess_x"),
        AddedVerifier("v", "n", False, 1, "wai_verf_x"),
        Verifier("v", "n", "h", True),
    ]
    assert [repr(one) for one in shown] == ["TokenForm(***)", "AddedVerifier(v)", "Verifier(v)"]
