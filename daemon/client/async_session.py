"""The client for asyncio."""

import asyncio
import contextlib
import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any, TypeVar

from daemon.client import calls
from daemon.client.core import Core
from daemon.client.effects import Credential, Pause, Send, Steps, Work
from daemon.client.errors import ClientError
from daemon.client.finding import TIMEOUT, Locate, StrPath, credential, locator
from daemon.client.standing import Time
from daemon.client.wire import AsyncWire
from daemon.domain.conversation_views import BoundConversation, ConversationView, TouchedView
from daemon.domain.views import CreatedChild, OwnSession, PublishedEvent, RenewedSession, RevokedSession, SessionSummary

T = TypeVar("T")


class AsyncSession:
    """An agent's session, renewed in a task of its own, for one event loop; methods and errors as of `Session`."""

    def __init__(
        self, credential: Credential, locate: Locate, clock: Time | None = None, timeout: float = TIMEOUT
    ) -> None:
        self._credential = credential
        self._core = Core(credential, clock or Time(), timeout, self._wake)
        self._wire = AsyncWire(locate)
        self._changed = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._pid = os.getpid()

    @classmethod
    def open(
        cls,
        token_file: StrPath | None = None,
        *,
        token: str | None = None,
        url: str | None = None,
        socket: StrPath | None = None,
        home: StrPath | None = None,
        timeout: float = TIMEOUT,
    ) -> "AsyncSession":
        """Find the session and the daemon, as `Session.open`."""
        return cls(credential(token_file, token, os.environ), locator(url, socket, home, os.environ), timeout=timeout)

    def __repr__(self) -> str:
        """Return it without the token."""
        return f"AsyncSession({self._credential.origin})"

    async def __aenter__(self) -> "AsyncSession":
        """Begin to renew."""
        self._keep()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        await self.close()

    @property
    def token(self) -> str:
        """The current token, to be shown to other local services."""
        return self._core.token()

    @property
    def id(self) -> str:
        """The session's id."""
        return self._core.claims().sub

    @property
    def agent_id(self) -> str:
        """The id of the agent whose session it is."""
        return self._core.claims().agt

    async def whoami(self) -> OwnSession:
        """As `Session.whoami`."""
        return await self._do(self._core.call(calls.whoami()))

    async def renew(self) -> RenewedSession:
        """As `Session.renew`."""
        return await self._do(self._core.renew())

    async def publish(
        self,
        type: str,  # noqa: A002 (the field's name)
        reference_id: str | None = None,
        title: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> PublishedEvent:
        """As `Session.publish`."""
        return await self._do(self._core.call(calls.publish(type, reference_id, title, details)))

    async def bind(
        self, conversation_id: str, *, provider: str, model: str, external_id: str | None = None
    ) -> BoundConversation:
        """As `Session.bind`."""
        return await self._do(self._core.call(calls.bind(conversation_id, provider, model, external_id)))

    async def conversation(self, conversation_id: str) -> ConversationView:
        """As `Session.conversation`."""
        return await self._do(self._core.call(calls.conversation(conversation_id)))

    async def conversations(self, limit: int | None = None) -> list[ConversationView]:
        """As `Session.conversations`."""
        return await self._do(self._core.pages(calls.conversations(min(limit or calls.PAGE, calls.PAGE)), limit))

    async def touch(self, conversation_id: str) -> TouchedView:
        """As `Session.touch`."""
        return await self._do(self._core.call(calls.touch(conversation_id)))

    async def rebind(
        self, conversation_id: str, *, expected: tuple[str, str], provider: str, model: str, reason: str
    ) -> ConversationView:
        """As `Session.rebind`."""
        return await self._do(self._core.call(calls.rebind(conversation_id, expected, provider, model, reason)))

    async def delete_conversation(self, conversation_id: str) -> None:
        """As `Session.delete_conversation`."""
        await self._do(self._core.call(calls.delete_conversation(conversation_id)))

    async def create_child(
        self,
        *,
        ttl: int | None = None,
        constraints: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> CreatedChild:
        """As `Session.create_child`."""
        return await self._do(self._core.call(calls.create_child(ttl, constraints, metadata)))

    async def children(self, limit: int | None = None) -> list[SessionSummary]:
        """As `Session.children`."""
        return await self._do(self._core.pages(calls.children(min(limit or calls.PAGE, calls.PAGE)), limit))

    async def end_child(self, session_id: str) -> RevokedSession:
        """As `Session.end_child`."""
        return await self._do(self._core.call(calls.end_child(session_id)))

    async def end(self) -> RevokedSession:
        """As `Session.end`."""
        return await self._do(self._core.end())

    async def request(self, method: str, path: str, json: object = None) -> Any:
        """As `Session.request`."""
        return await self._do(self._core.call(calls.anything(method, path, json)))

    async def close(self) -> None:
        """Stop renewing and end the connections; the session itself goes on."""
        self._core.close()
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        await self._wire.close()

    def _keep(self) -> None:
        if self._pid != os.getpid():
            raise ClientError("A forked process needs a session of its own: open one in it")
        if self._core.renews and (self._keeper is None or self._keeper.done()):
            self._keeper = asyncio.create_task(self._drive(self._core.keep()), name="renewal")

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _do(self, steps: Steps[T]) -> T:
        self._keep()
        return await self._drive(steps)

    async def _drive(self, steps: Steps[T]) -> T:
        """Do what the core asks for until it has its result."""
        try:
            effect = next(steps)
            while True:
                try:
                    done = await self._perform(effect)
                except Exception as error:  # noqa: BLE001 (the core decides)
                    effect = steps.throw(error)
                else:
                    effect = steps.send(done)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            steps.close()

    async def _perform(self, effect: Send | Pause | Work) -> object:
        match effect:
            case Send():
                return await self._wire.send(effect)
            case Pause(seconds, version):
                if self._core.version == version:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._changed.wait(), seconds)
                return None
            case Work(do):
                return await _whole(do)


async def _whole(do: Any) -> object:
    """Call something in a thread and wait for its end even where the caller is cancelled: a file is written whole."""
    task = asyncio.ensure_future(asyncio.to_thread(do))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        task.exception()
        raise
