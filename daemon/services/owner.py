"""The owner: master password, lockout, tickets."""

import asyncio
import hashlib
import hmac
import os
import secrets
import unicodedata
from collections.abc import Callable

import msgspec

from daemon.crypto.passwords import PasswordHasher
from daemon.domain.changes import Outcome, Rows, Scope
from daemon.domain.errors import INVALID_MASTER_PASSWORD, MASTER_AUTH_LOCKED, RATE_LIMIT_EXCEEDED, DaemonError
from daemon.domain.events import Fact, Origin
from daemon.domain.facts.daemon import MasterAuthFailed, MasterAuthLocked, OwnerLogin, PasswordChanged
from daemon.domain.passwords import MAX_BYTES, check_password
from daemon.domain.tokens import TICKET_PREFIX
from daemon.domain.views import LoggedOut, PasswordSet, Ticket
from daemon.settings import Security
from daemon.stores.protocol import Store

PASSWORD_KEY = "master_password"  # noqa: S105 - the name of a row
MAX_TICKETS = 1000
_IN_LOCKOUT = (
    "Try again in a second. If others use up the attempts: an owner ticket is accepted at any time, and `daemon stop`,"
    " then `daemon kill-switch on`, needs no password."
)


class _Issued(msgspec.Struct, frozen=True):
    ends: float


class OwnerAuth:
    """Knows whether the owner is asking.

    Args:
        store: the engine.
        hasher: verifies off the event loop.
        settings: the security section.
        stored: the password's hash.
        first_success: called at each success until it has done its work (removes the initial password's file).
    """

    def __init__(
        self, store: Store, hasher: PasswordHasher, settings: Security, stored: str, first_success: Callable[[], None]
    ) -> None:
        self._store = store
        self._hasher = hasher
        self._settings = settings
        self._stored = stored
        self._doubts = 0
        self._settled = 0
        self.changes = 0
        """How often the password was changed since the start, here or elsewhere."""
        self._first_success: Callable[[], None] | None = first_success
        self._key = os.urandom(32)
        self._remembered: tuple[bytes, float] | None = None
        self._wrong: set[bytes] = set()
        self._locked_until = 0.0
        self._next_attempt = 0.0
        self._verifying: dict[bytes, asyncio.Future[bool]] = {}
        self._tickets: dict[bytes, _Issued] = {}

    def doubt(self) -> None:
        """Note that another daemon may have changed the password."""
        self._doubts += 1

    async def refresh(self) -> None:
        """Read the stored hash again where another daemon may have changed it; a new one ends what the old one did.

        Raises:
            DaemonError: STORAGE_UNAVAILABLE.
        """
        certain = self._settled == self._doubts and self._store.is_current
        while not certain:
            doubts = self._doubts
            stored = await self._store.value(PASSWORD_KEY)
            certain = doubts == self._doubts
            if certain:
                self._settled = doubts
                if stored is not None and stored != self._stored:
                    self._replace(stored)

    def _replace(self, stored: str) -> None:
        """Take the hash of another password; tickets end, and what was remembered is forgotten."""
        self._stored = stored
        self.changes += 1
        self._forget()
        self._tickets.clear()
        self._wrong.clear()

    async def check_password(self, presented: str, request: Origin, *, urgent: bool = False) -> None:
        """Accept the master password.

        The same wrong password again counts once: a script with a stale one never locks the owner out.

        Args:
            presented: the password.
            request: who asks.
            urgent: a lockout leaves one attempt a second, so that the owner can always stop everything.

        Raises:
            DaemonError: INVALID_MASTER_PASSWORD, MASTER_AUTH_LOCKED, RATE_LIMIT_EXCEEDED, STORAGE_UNAVAILABLE.
        """
        await self.refresh()
        if urgent and not self._is_unlocked():
            await self._check_in_lockout(presented)
            return
        self.check_lock()
        digest = self._digest(presented)
        now = self._store.clock.monotonic()
        if self._remembered and now < self._remembered[1] and hmac.compare_digest(self._remembered[0], digest):
            self._wrong.clear()
            return
        if digest in self._wrong or len(presented) > MAX_BYTES:
            raise DaemonError(INVALID_MASTER_PASSWORD, "The master password is wrong.")
        if await self._verify(digest, presented):
            await self._succeed(digest, presented)
            return
        self.check_lock()
        if digest not in self._wrong:
            await self._fail(digest, request)
        raise DaemonError(INVALID_MASTER_PASSWORD, "The master password is wrong.")

    async def _check_in_lockout(self, presented: str) -> None:
        """Accept the master password in a lockout, at one attempt a second; nothing is counted or remembered."""
        now = self._store.clock.monotonic()
        if now < self._next_attempt:
            raise DaemonError(RATE_LIMIT_EXCEEDED, hint=_IN_LOCKOUT, retry_after=1)
        self._next_attempt = now + 1.0
        normal = unicodedata.normalize("NFC", presented)
        if len(presented) > MAX_BYTES or not await self._hasher.verify(self._stored, normal):
            raise DaemonError(INVALID_MASTER_PASSWORD, "The master password is wrong.")

    def check_lock(self) -> None:
        """Refuse while owner routes are locked: nothing is verified then.

        Raises:
            DaemonError: MASTER_AUTH_LOCKED.
        """
        wait = self._locked_until - self._store.clock.monotonic()
        if wait > 0:
            raise DaemonError(MASTER_AUTH_LOCKED, retry_after=int(wait) + 1)

    async def check_ticket(self, ticket: str, *, urgent: bool = False) -> None:
        """Accept an owner ticket.

        Args:
            ticket: with its prefix.
            urgent: a lockout does not matter: nobody guesses a ticket, and who floods the one attempt a second that a
                lockout leaves for passwords must not keep the owner from stopping everything.

        Raises:
            DaemonError: INVALID_MASTER_PASSWORD, MASTER_AUTH_LOCKED, STORAGE_UNAVAILABLE.
        """
        await self.refresh()
        if not urgent:
            self.check_lock()
        issued = self._tickets.get(_ticket_digest(ticket))
        if issued is None or self._store.clock.monotonic() >= issued.ends:
            raise DaemonError(INVALID_MASTER_PASSWORD, "The owner ticket is not valid any more.")

    async def login(self, ttl: int, request: Origin) -> Ticket:
        """Issue a ticket that stands for the master password; it lives in memory only.

        Args:
            ttl: seconds.
            request: who asks.
        """
        ticket = TICKET_PREFIX + secrets.token_urlsafe(32)
        expires_at = self._store.clock.now() + ttl
        await self._record(OwnerLogin(expires_at=expires_at), request)
        now = self._store.clock.monotonic()
        self._tickets = {key: issued for key, issued in self._tickets.items() if now < issued.ends}
        while len(self._tickets) >= MAX_TICKETS:
            del self._tickets[next(iter(self._tickets))]
        self._tickets[_ticket_digest(ticket)] = _Issued(now + ttl)
        return Ticket(ticket=ticket, expires_at=expires_at)

    def logout(self, ticket: str | None) -> LoggedOut:
        """End the ticket that was presented; every ticket when the password was."""
        if ticket is None:
            count, self._tickets = len(self._tickets), {}
        else:
            count = int(self._tickets.pop(_ticket_digest(ticket), None) is not None)
        return LoggedOut(tickets_revoked=count)

    async def change_password(self, new: str, request: Origin) -> PasswordSet:
        """Replace the master password; tickets end, and what was remembered is forgotten.

        Raises:
            DaemonError: VALIDATION_ERROR, RATE_LIMIT_EXCEEDED.
        """
        stored = await self._hasher.hash(check_password(new, "newPassword"))
        changed_at = await self._store.change(
            Scope(values=(PASSWORD_KEY,), while_locked=True),
            lambda _rows, now: Outcome(
                answer=now, values={PASSWORD_KEY: stored}, facts=(PasswordChanged(initial=False),)
            ),
            request,
        )
        self._replace(stored)
        self.doubt()  # another daemon may have changed it once more
        return PasswordSet(changed_at=changed_at)

    def _digest(self, presented: str) -> bytes:
        normal = unicodedata.normalize("NFC", presented)
        return hmac.digest(self._key, normal.encode(errors="surrogatepass"), "sha256")

    async def _verify(self, digest: bytes, presented: str) -> bool:
        """Verify a password against a hash that nobody has replaced meanwhile."""
        while True:
            changes = self.changes
            right = await self._verify_once(digest, presented)
            await self.refresh()
            if changes == self.changes:
                return right

    async def _verify_once(self, digest: bytes, presented: str) -> bool:
        """Verify a password; requests that bring the same one meanwhile wait for the same hash."""
        waiting = self._verifying.get(digest)
        if waiting is not None:
            return await asyncio.shield(waiting)
        normal = unicodedata.normalize("NFC", presented)
        task = asyncio.ensure_future(self._hasher.verify(self._stored, normal, self._is_unlocked))
        self._verifying[digest] = task
        task.add_done_callback(lambda _: self._verifying.pop(digest, None))
        return await asyncio.shield(task)

    def _is_unlocked(self) -> bool:
        return self._store.clock.monotonic() >= self._locked_until

    async def _succeed(self, digest: bytes, presented: str) -> None:
        self._wrong.clear()
        ttl = self._settings.master_cache_ttl
        self._remembered = (digest, self._store.clock.monotonic() + ttl) if ttl else None
        if self._first_success is not None:
            self._first_success()
            self._first_success = None
        if self._hasher.is_outdated(self._stored):
            await self._upgrade(unicodedata.normalize("NFC", presented))

    async def _upgrade(self, password: str) -> None:
        """Hash the password with today's parameters, unless it has been changed meanwhile."""
        old, stored = self._stored, await self._hasher.hash(password)

        def decide(rows: Rows, _now: int) -> Outcome[bool]:
            if rows.values.get(PASSWORD_KEY) != old:
                return Outcome(answer=False)
            return Outcome(answer=True, values={PASSWORD_KEY: stored})

        if await self._store.change(Scope(values=(PASSWORD_KEY,), while_locked=True), decide, Origin("system")):
            self._stored = stored

    async def _fail(self, digest: bytes, request: Origin) -> None:
        self._wrong.add(digest)
        failures = len(self._wrong)
        facts: list[Fact] = [MasterAuthFailed(failures=failures)]
        if failures >= self._settings.master_lockout_attempts:
            seconds = self._settings.master_lockout_seconds
            self._locked_until = self._store.clock.monotonic() + seconds
            self._wrong.clear()
            self._forget()
            facts.append(MasterAuthLocked(seconds=seconds))
        for fact in facts:
            await self._record(fact, request)

    def _forget(self) -> None:
        self._remembered = None

    async def _record(self, fact: Fact, request: Origin) -> None:
        scope = Scope(while_locked=True)
        await self._store.change(scope, lambda _rows, _now: Outcome(answer=None, facts=(fact,)), request)


async def set_initial_password(store: Store, hasher: PasswordHasher, password: str, request: Origin) -> bool:
    """Set the master password unless there is one; return whether it was set.

    Raises:
        DaemonError: VALIDATION_ERROR.
    """
    stored = await hasher.hash(check_password(password))

    def decide(rows: Rows, _now: int) -> Outcome[bool]:
        if PASSWORD_KEY in rows.values:
            return Outcome(answer=False)
        return Outcome(answer=True, values={PASSWORD_KEY: stored}, facts=(PasswordChanged(initial=True),))

    return await store.change(Scope(values=(PASSWORD_KEY,), while_locked=True), decide, request)


def _ticket_digest(ticket: str) -> bytes:
    return hashlib.sha256(ticket.encode()).digest()
