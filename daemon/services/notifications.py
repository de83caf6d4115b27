"""The outbox: what the owner is still to be told, and through which channel."""

import os
import secrets
from collections.abc import Sequence

import msgspec

from daemon.domain import answers
from daemon.domain.changes import Outcome, Scope
from daemon.domain.channels import ChannelConfig, NtfyConfig, TelegramConfig
from daemon.domain.events import SYSTEM, Event
from daemon.domain.facts.messages import NotificationFailed
from daemon.domain.filters import AttemptFilter, EventFilter
from daemon.domain.ids import uuid7
from daemon.domain.message_views import AttemptView
from daemon.domain.notifications import Action, Button, Notice, actions_of, context_of, takes
from daemon.domain.pages import Listing, Page, encode_cursor
from daemon.domain.rows import Answer, Attempt, AttemptStatus, Channel, Delivery, Settled
from daemon.services.channel_seals import ChannelSeals
from daemon.settings import Notifications as Settings
from daemon.stores.protocol import Store

GIVE_UP_SECONDS = 86_400
"""How long a message is tried."""
GIVE_UP_ROUNDS = 8
"""How often it is tried at least: a machine that slept for a day wakes up before its network does."""
_DAY = 86_400
_KEPT_SECONDS = 2 * _DAY
"""How long a message that was sent stays known: longer than any `dedup_ttl`."""


class Target(msgspec.Struct, frozen=True):
    """An enabled channel; without a configuration where that cannot be read."""

    channel: Channel
    config: ChannelConfig | None


class Notifications:
    """What a worker drains.

    Args:
        store: the engine.
        settings: the notifications section; may be replaced at any time.
        seals: opens configurations.
        public_url: under which the reject link is reached; empty: there is no link.
    """

    def __init__(self, store: Store, settings: Settings, seals: ChannelSeals, public_url: str) -> None:
        self._store = store
        self.settings = settings
        self._seals = seals
        self._public_url = public_url.rstrip("/")
        self._last_attempt = (0, 0)

    async def due(self, limit: int, without: Sequence[str] = ()) -> list[Delivery]:
        """Return messages to be sent now, the most urgent and then the oldest first.

        Args:
            limit: of each level.
            without: ids of channels whose own messages are left out.
        """
        return await self._store.due_deliveries(limit, without)

    async def targets(self) -> list[Target]:
        """Return every enabled channel, the highest priority first."""
        return [Target(one, self._seals.read(one)) for one in await self._store.channels() if one.enabled]

    def route(self, delivery: Delivery, targets: Sequence[Target]) -> list[Target]:
        """Return the channels that a message may go through, the one to try first at the top."""
        return [
            target
            for target in targets
            if delivery.channel_id in {None, target.channel.id}
            and takes(target.channel, delivery.level, delivery.event, delivery.agent_id, delivery.reference_id)
        ]

    async def compose(self, delivery: Delivery, target: Target) -> Notice | None:
        """Return a message for one channel, its answers stored before it is sent; None if its event is gone.

        Args:
            delivery: what is to be sent.
            target: whereto; its configuration is readable.
        """
        found = await self._store.events(EventFilter(after=delivery.seq - 1), 1)
        if not found or found[0].seq != delivery.seq:
            return None
        event = found[0]
        agent = await self._store.agent(event.agent_id) if event.agent_id else None
        context = context_of(event, agent.name if agent else None)
        offers = _Offers(event, context, self._store.clock.now())
        url, buttons = self._offer(offers, target)
        if offers.made:
            made = tuple(offers.made)
            await self._store.change(
                Scope(while_locked=True), lambda _rows, _now: Outcome(answer=None, new_answers=made), SYSTEM
            )
        return Notice(
            id=f"evt_{event.seq}_{delivery.id}",
            event=event.type,
            level=delivery.level,
            at=event.timestamp,
            context=context,
            reject_url=url,
            buttons=buttons,
        )

    def _offer(self, offers: "_Offers", target: Target) -> tuple[str | None, tuple[Button, ...]]:
        config, url, buttons = target.config, None, tuple[Button, ...]()
        if self._public_url and (token := offers.link()):
            url = f"{self._public_url}/reject/{token}"
        if isinstance(config, TelegramConfig) or (isinstance(config, NtfyConfig) and config.reply_topic):
            buttons = offers.buttons(target.channel.id)
        return url, buttons

    def attempt(
        self, delivery: Delivery, channel_id: str | None, status: AttemptStatus, error: str | None = None
    ) -> Attempt:
        """Return a row of the delivery log about an attempt that was made now."""
        now = self._store.clock.now()
        return Attempt(
            self._attempt_id(now),
            channel_id,
            delivery.event,
            delivery.level,
            delivery.reference_id,
            status,
            error,
            delivery.attempts,
            now,
        )

    def _attempt_id(self, now: int) -> str:
        """Return an id that sorts after those of the same second before it (RFC 9562, section 6.2, method 1)."""
        second, number = self._last_attempt
        number = number + 1 if second == now else 0
        self._last_attempt = (now, number)
        return uuid7(now * 1000 + number // 4096, (number % 4096 << 4).to_bytes(2) + os.urandom(8))

    async def delivered(self, delivery: Delivery, attempts: Sequence[Attempt]) -> None:
        """Record that there is nothing more to send, and what was tried."""
        await self._settle(Settled(delivery.id), attempts)

    async def failed(self, delivery: Delivery, attempts: Sequence[Attempt], wait: float) -> bool:
        """Record a round in which every channel failed; return whether there will be another.

        Args:
            delivery: what could not be sent.
            attempts: what was tried.
            wait: seconds until the next round.
        """
        now = self._store.clock.now()
        end, again = delivery.created_at + GIVE_UP_SECONDS, now + max(1, round(wait))
        if now >= end and delivery.attempts + 1 >= GIVE_UP_ROUNDS:
            await self._give_up(delivery, attempts)
            return False
        if now < end:
            again = min(again, end)
        await self._settle(Settled(delivery.id, delivery.attempts + 1, again), attempts)
        return True

    async def _give_up(self, delivery: Delivery, attempts: Sequence[Attempt]) -> None:
        last = self.attempt(delivery, delivery.channel_id, "ALL_FAILED", attempts[-1].error if attempts else None)
        fact = NotificationFailed(
            agent_id=delivery.agent_id,
            session_id=delivery.session_id,
            event_type=delivery.event,
            event_seq=delivery.seq,
            channel_id=delivery.channel_id,
            attempts=delivery.attempts + 1,
        )
        outcome: Outcome[None] = Outcome(
            answer=None, attempts=(*attempts, last), settled=Settled(delivery.id), facts=(fact,)
        )
        await self._store.change(Scope(while_locked=True), lambda _rows, _now: outcome, SYSTEM)

    async def _settle(self, settled: Settled, attempts: Sequence[Attempt]) -> None:
        outcome: Outcome[None] = Outcome(answer=None, attempts=tuple(attempts), settled=settled)
        await self._store.change(Scope(while_locked=True), lambda _rows, _now: outcome, SYSTEM)

    async def log(self, which: AttemptFilter, page: Page) -> Listing[AttemptView]:
        """Return rows of the delivery log, newest first."""
        found = await self._store.attempts(which, page)
        last = found[-1] if len(found) == page.limit else None
        cursor = encode_cursor(last.sent_at, last.id) if last else None
        return Listing([AttemptView(*msgspec.structs.astuple(one)) for one in found], cursor)

    async def purge(self) -> None:
        """Delete what was sent long ago, answers that ended, and what the delivery log need not keep any more."""
        now = self._store.clock.now()
        await self._store.purge_notifications(now - _KEPT_SECONDS, now - self.settings.retention_days * _DAY)


class _Offers:
    """Makes the answers of one message.

    Args:
        event: what the message tells of.
        context: its fields.
        now: Unix seconds.
    """

    def __init__(self, event: Event, context: dict[str, object], now: int) -> None:
        self._event = event
        self._now = now
        until = context.get("rejectWindowExpiry")
        self._reject_until = until if isinstance(until, int) else None
        self.made: list[Answer] = []

    def link(self) -> str | None:
        """Return the token of a link that rejects a renewal, if there is one that can be rejected."""
        until = self._reject_until
        return self._make(None, ("reject",), until) if until is not None and self._now < until else None

    def buttons(self, channel_id: str) -> tuple[Button, ...]:
        """Return the buttons of a message; one token for all of them, since one answer is enough."""
        offered: tuple[Action, ...] = actions_of(self._event.type, self._event.agent_id)
        if self._reject_until is None or self._now >= self._reject_until:
            offered = tuple(action for action in offered if action != "reject")
        if not offered:
            return ()
        token = self._make(channel_id, offered, self._now + answers.ANSWER_SECONDS)
        return tuple(Button(action, answers.button_token(action, token)) for action in offered)

    def _make(self, channel_id: str | None, offered: tuple[Action, ...], expires_at: int) -> str:
        token = secrets.token_urlsafe(answers.TOKEN_BYTES)
        self.made.append(
            Answer(
                token_hash=answers.token_hash(token),
                channel_id=channel_id,
                seq=self._event.seq,
                session_id=self._event.session_id,
                agent_id=self._event.agent_id,
                actions=msgspec.json.encode(offered).decode(),
                created_at=self._now,
                reject_until=self._reject_until,
                expires_at=expires_at,
            )
        )
        return token
