"""The nine states: every edge of the table, every step that is none, and the one event of each step."""

import msgspec
import pytest

from daemon.domain.errors import DaemonError
from daemon.domain.facts.sessions import SessionRevoked
from daemon.domain.lifecycle import transition
from daemon.domain.rows import Session
from daemon.domain.states import STATES, TRANSITIONS, State, advance

EDGES = [(source, to) for source, allowed in TRANSITIONS.items() for to in allowed]
NON_EDGES = [(source, to) for source in STATES for to in STATES if to not in TRANSITIONS[source]]
EVENTS = {
    ("READY", "ACTIVE"): "SESSION_STARTED",
    ("SUSPENDED", "READY"): "SESSION_RESUMED",
}
SESSION = Session(*[None] * len(Session.__struct_fields__))


def session(state: State) -> Session:
    return msgspec.structs.replace(SESSION, id="s", agent_id="a", state=state)


def test_the_table_is_the_designs() -> None:
    assert len(STATES) == 9
    assert len(EDGES) == 29
    assert TRANSITIONS["CLOSED"] == ()
    assert TRANSITIONS["ERROR"] == ("INITIALIZING", "CLOSING", "CLOSED")


@pytest.mark.parametrize(("source", "to"), EDGES)
def test_an_edge_changes_the_state_with_its_one_event(source: State, to: State) -> None:
    assert advance(source, to) == to
    cause = SessionRevoked(agent_id="a", session_id="s", reason="manual_revoke") if to == "CLOSING" else None
    changed, facts = transition(session(source), to, 7, cause)
    assert (changed.state, changed.state_changed_at) == (to, 7)
    by_target = {
        "SUSPENDED": "SESSION_SUSPENDED",
        "ERROR": "SESSION_ERROR",
        "CLOSED": "SESSION_CLOSED",
        "CLOSING": "SESSION_REVOKED",
    }
    expected = by_target.get(to) or EVENTS.get((source, to), "SESSION_STATE_CHANGED")
    assert [fact.type for fact in facts] == [expected]
    assert {(fact.agent_id, fact.session_id) for fact in facts} == {("a", "s")}


@pytest.mark.parametrize(("source", "to"), NON_EDGES)
def test_any_other_step_is_refused_with_from_to_and_allowed(source: State, to: State) -> None:
    with pytest.raises(DaemonError) as refused:
        transition(session(source), to, 7)
    assert refused.value.code == "INVALID_STATE_TRANSITION"
    assert refused.value.details == {"from": source, "to": to, "allowed": list(TRANSITIONS[source])}


def test_only_the_first_step_from_ready_to_active_starts_the_session() -> None:
    started, _ = transition(session("READY"), "ACTIVE", 7)
    again, facts = transition(msgspec.structs.replace(started, state="READY"), "ACTIVE", 9)
    assert (again.started_at, [fact.type for fact in facts]) == (7, ["SESSION_STATE_CHANGED"])
