"""Answers from the phone and through the reject link."""

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial

import msgspec

from daemon.domain import answers, kill_switch
from daemon.domain.changes import Outcome as Changed
from daemon.domain.changes import Scope
from daemon.domain.events import Origin
from daemon.domain.facts.messages import OwnerAnswered
from daemon.domain.message_views import Rejectable
from daemon.domain.notifications import Action, Outcome, Press
from daemon.domain.rows import Answer, Channel
from daemon.services.latch import Latch
from daemon.stores.protocol import Store

_OWNER = Origin("owner")
_SYSTEM = Origin("system")
_STRANGERS = 1000
_STRANGER_SECONDS = 60.0
"""A stranger who presses again and again fills no log: one event a minute."""


class Answered(msgspec.Struct, frozen=True):
    """What came of a press.

    Args:
        outcome: what happened.
        action: what was chosen, as far as it is known.
    """

    outcome: Outcome
    action: Action | None = None


class Answers:
    """What the owner decides without a terminal.

    Args:
        store: the engine.
        latch: refuses agents while everything is being stopped.
    """

    def __init__(self, store: Store, latch: Latch) -> None:
        self._store = store
        self._latch = latch
        self._strangers: dict[tuple[str, str], float] = {}

    async def press(self, channels: Sequence[Channel], press: Press) -> Answered:
        """Do what was chosen on the phone, once; nothing it can do grants or restores anything.

        Args:
            channels: those that the message may have come through, more than one where they share a chat.
            press: what was pressed.
        """
        known = answers.read_button(press.token)
        if not press.allowed:
            await self._report(channels[0], press.who, known[0] if known else "unknown")
            return Answered("not_allowed", known[0] if known else None)
        if known is None:
            return Answered("unknown")
        action, token = known
        answer = await self._store.answer(answers.token_hash(token))
        channel = next((one for one in channels if answer is not None and one.id == answer.channel_id), None)
        if answer is None or channel is None:
            return Answered("unknown", action)
        decide = partial(answers.press, action=action, channel=channel.name, channel_id=channel.id, who=press.who)
        stops = action == "kill_switch" and answers.refused(answer, action, self._store.clock.now()) is None
        with self._latch.closing() if stops else nullcontext():
            return Answered(await self._store.change(_scope(answer, action), decide, _OWNER), action)

    async def show(self, token: str) -> Rejectable | None:
        """Return what a link would reject, changing nothing; None where it would reject nothing any more."""
        answer = await self._link(token)
        now = self._store.clock.now()
        if answer is None or answer.session_id is None or answers.refused(answer, "reject", now) is not None:
            return None
        session = await self._store.session(answer.session_id)
        agent = await self._store.agent(session.agent_id) if session else None
        if session is None or agent is None or session.revoked_at is not None:
            return None
        return Rejectable(
            session_id=session.id,
            agent_name=agent.name,
            renewal_count=session.renewal_count,
            max_renewals=session.max_renewals,
            last_renewed_at=session.last_renewed_at,
            reject_until=answer.reject_until or answer.expires_at,
        )

    async def reject(self, token: str, origin: Origin) -> Outcome:
        """Reject through a link, once.

        Args:
            token: of the link.
            origin: address and id of the request.
        """
        answer = await self._link(token)
        if answer is None:
            return "unknown"
        decide = partial(
            answers.press, action="reject", channel="link", channel_id=None, who=origin.ip_address or "unix socket"
        )
        return await self._store.change(
            _scope(answer, "reject"), decide, Origin("owner", origin.request_id, origin.ip_address)
        )

    async def _link(self, token: str) -> Answer | None:
        answer = await self._store.answer(answers.token_hash(token))
        return answer if answer is not None and answer.channel_id is None else None

    async def _report(self, channel: Channel, who: str, action: str) -> None:
        """Record that somebody else pressed a button."""
        key, now = (channel.id, who), self._store.clock.monotonic()
        if now - self._strangers.get(key, now - _STRANGER_SECONDS) < _STRANGER_SECONDS:
            return
        while len(self._strangers) >= _STRANGERS:
            del self._strangers[next(iter(self._strangers))]
        self._strangers[key] = now
        fact = OwnerAnswered(channel_id=channel.id, channel=channel.name, answer=action, outcome="not_allowed", who=who)
        await self._store.change(
            Scope(while_locked=True), lambda _rows, _now: Changed(answer=None, facts=(fact,)), _SYSTEM
        )


def _scope(answer: Answer, action: Action) -> Scope:
    """Return what an action needs to see."""
    everything = action == "kill_switch"
    return Scope(
        answer=answer.token_hash,
        session=answer.session_id if action == "reject" else None,
        agent=answer.agent_id if action == "suspend_agent" else None,
        ends=action == "reject",
        values=(kill_switch.KEY,) if everything else (),
        pick="every" if everything else None,
        active_agents=everything,
        while_locked=True,
    )
