"""Answers: what the owner decides on the phone or through a link. None of them grants or restores anything."""

import hashlib
import re
from typing import Any

import msgspec

from daemon.domain import agents, kill_switch, lifecycle
from daemon.domain import changes as changing
from daemon.domain.changes import Rows
from daemon.domain.facts.messages import OwnerAnswered
from daemon.domain.notifications import Action, Outcome
from daemon.domain.rows import Answer

TOKEN_BYTES = 16
"""128 random bits."""
ANSWER_SECONDS = 86_400
"""How long what a message offers, but for rejecting, may be chosen."""

_LETTERS: dict[Action, str] = {"keep": "k", "reject": "r", "suspend_agent": "s", "kill_switch": "x"}
_ACTIONS = {letter: action for action, letter in _LETTERS.items()}
_BUTTON = re.compile(r"([krsx]):([A-Za-z0-9_-]{22})")

Pressed = changing.Outcome[Outcome]


def button_token(action: Action, token: str) -> str:
    """Return what a button carries: the action and the message's token."""
    return f"{_LETTERS[action]}:{token}"


def read_button(text: str) -> tuple[Action, str] | None:
    """Return the action and the token that a button carried; None if it is none of ours."""
    match = _BUTTON.fullmatch(text)
    return (_ACTIONS[match[1]], match[2]) if match else None


def token_hash(token: str) -> str:
    """Return all that is stored of a token: random enough to need no slow hash."""
    return hashlib.sha256(token.encode()).hexdigest()


def refused(answer: Answer | None, action: Action, now: int) -> Outcome | None:
    """Return why an answer does not count any more; None if it does.

    Args:
        answer: as stored; None if its token is unknown.
        action: what was chosen.
        now: Unix seconds.
    """
    if answer is None or now >= answer.expires_at or action not in _offered(answer):
        return "unknown"
    if answer.used_at is not None:
        return "already_answered"
    if action == "reject" and answer.reject_until is not None and now >= answer.reject_until:
        return "unknown"
    return None


def _offered(answer: Answer) -> list[str]:
    return msgspec.json.decode(answer.actions, type=list[str])


def press(rows: Rows, now: int, *, action: Action, channel: str, channel_id: str | None, who: str) -> Pressed:
    """Do what was chosen, once, and record it; a dead or used button changes nothing.

    Args:
        rows: the answer and what its action needs to see.
        now: Unix seconds.
        action: what was chosen.
        channel, channel_id: where it was chosen.
        who: the service's name of who chose.
    """
    answer = rows.answer
    reason = refused(answer, action, now)
    if reason is not None or answer is None:
        return changing.Outcome(answer=reason or "unknown")
    outcome, done = _ACT[action](rows, now, channel)
    fact = OwnerAnswered(
        agent_id=answer.agent_id,
        session_id=answer.session_id,
        channel_id=channel_id,
        channel=channel,
        answer=action,
        outcome=outcome,
        who=who,
    )
    used = msgspec.structs.replace(answer, used_at=now, used_action=action)
    return msgspec.structs.replace(
        done,
        answer=outcome,
        used_answer=used,
        spent_answers_of=answer.session_id if outcome == "rejected" else None,
        facts=(*done.facts, fact),
    )


_Done = tuple[Outcome, changing.Outcome[Any]]
_NOTHING: changing.Outcome[Any] = changing.Outcome(answer=None)


def _keep(_rows: Rows, _now: int, _channel: str) -> _Done:
    return "kept", _NOTHING


def _reject(rows: Rows, now: int, _channel: str) -> _Done:
    session = rows.session
    if session is None or session.revoked_at is not None:
        return "already_done", _NOTHING
    ended, facts = lifecycle.reject(session, now)
    return "rejected", changing.Outcome(answer=None, session=ended, facts=facts)


def _suspend_agent(rows: Rows, now: int, channel: str) -> _Done:
    agent = rows.agent
    if agent is None or agent.status != "ACTIVE":
        return "already_done", _NOTHING
    stopped, fact = agents.suspended(agent, now, by="owner", reason=f"answered through {channel}")
    return "agent_suspended", changing.Outcome(answer=None, agent=stopped, facts=(fact,))


def _kill_switch(rows: Rows, now: int, channel: str) -> _Done:
    if kill_switch.read(rows.values.get(kill_switch.KEY)).state == "ACTIVATED":
        return "already_done", _NOTHING
    return "kill_switch_activated", kill_switch.activate(rows, now, reason=f"answered through {channel}")


_ACT = {"keep": _keep, "reject": _reject, "suspend_agent": _suspend_agent, "kill_switch": _kill_switch}
