"""The client for threads."""

import os
import signal
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, TypeVar
from weakref import WeakSet

from daemon.client import calls
from daemon.client.core import Core
from daemon.client.effects import Credential, Pause, Send, Steps, Work
from daemon.client.finding import TIMEOUT, Locate, StrPath, credential, locator
from daemon.client.standing import Time
from daemon.client.wire import Wire
from daemon.domain.conversation_views import BoundConversation, ConversationView, TouchedView
from daemon.domain.views import CreatedChild, OwnSession, PublishedEvent, RenewedSession, RevokedSession, SessionSummary

T = TypeVar("T")

_CLOSING = 5.0
"""Seconds that `close` waits for a renewal that is under way."""


class Session:
    """An agent's session, renewed in a thread of its own; every method may be called from any thread.

    Make one with `open`. Every method raises ApiError or one of its subclasses where the daemon refuses, Unreachable
    where none answers in time, and TokenFileError or NoSession where there is no token.
    """

    def __init__(
        self, credential: Credential, locate: Locate, clock: Time | None = None, timeout: float = TIMEOUT
    ) -> None:
        self._credential = credential
        self._locate = locate
        self._core = Core(credential, clock or Time(), timeout, self._wake)
        self._prepare()
        _all.add(self)

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
    ) -> "Session":
        """Find the session and the daemon; nothing is sent yet.

        Args:
            token_file: the file with the token; it is replaced at each renewal. Else `DAEMON_TOKEN_FILE`.
            token: the token itself; renewed in memory alone. Else `DAEMON_SESSION_TOKEN`, which is not renewed.
            url: of the daemon. Else `DAEMON_URL`.
            socket: of the daemon.
            home: of the daemon, whose `daemon.json` says where it listens. Else `DAEMON_HOME`, or the user's own.
            timeout: seconds that a call may take, everything that is tried again included.

        Raises:
            NoSession: there is no token, or what is given is none.
            ClientError: what is given does not fit together.
        """
        return cls(credential(token_file, token, os.environ), locator(url, socket, home, os.environ), timeout=timeout)

    def __repr__(self) -> str:
        """Return it without the token."""
        return f"Session({self._credential.origin})"

    def __enter__(self) -> "Session":
        """Begin to renew."""
        self._keep()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

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

    def whoami(self) -> OwnSession:
        """Show the session: its agent, its state, until when it lasts and when it may be renewed."""
        return self._do(self._core.call(calls.whoami()))

    def renew(self) -> RenewedSession:
        """Renew now instead of when it is due; whoever does so at once with others gets the same answer."""
        return self._do(self._core.renew())

    def publish(
        self,
        type: str,  # noqa: A002 (the field's name)
        reference_id: str | None = None,
        title: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> PublishedEvent:
        """Tell the owner something.

        Args:
            type: AGENT_REPORT, or one of the TX_… kinds.
            reference_id: of what it is about.
            title: one line.
            details: a JSON object.
        """
        return self._do(self._core.call(calls.publish(type, reference_id, title, details)))

    def bind(
        self, conversation_id: str, *, provider: str, model: str, external_id: str | None = None
    ) -> BoundConversation:
        """Bind a conversation to a provider and model unless it is bound already; what is stored wins."""
        return self._do(self._core.call(calls.bind(conversation_id, provider, model, external_id)))

    def conversation(self, conversation_id: str) -> ConversationView:
        """Show a conversation; raises NotFound where there is none."""
        return self._do(self._core.call(calls.conversation(conversation_id)))

    def conversations(self, limit: int | None = None) -> list[ConversationView]:
        """List the agent's conversations, newest first.

        Args:
            limit: how many at most; None is all of them.
        """
        return self._do(self._core.pages(calls.conversations(min(limit or calls.PAGE, calls.PAGE)), limit))

    def touch(self, conversation_id: str) -> TouchedView:
        """Keep a conversation from expiring; one that is missing is no error."""
        return self._do(self._core.call(calls.touch(conversation_id)))

    def rebind(
        self, conversation_id: str, *, expected: tuple[str, str], provider: str, model: str, reason: str
    ) -> ConversationView:
        """Bind a conversation to another provider or model, if it is bound as expected.

        Args:
            conversation_id: of the conversation.
            expected: the provider and model that it is believed to be bound to; Conflict where it is not.
            provider, model: what it goes on with.
            reason: for the owner.
        """
        return self._do(self._core.call(calls.rebind(conversation_id, expected, provider, model, reason)))

    def delete_conversation(self, conversation_id: str) -> None:
        """Delete a conversation; raises NotFound where there is none."""
        self._do(self._core.call(calls.delete_conversation(conversation_id)))

    def create_child(
        self,
        *,
        ttl: int | None = None,
        constraints: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> CreatedChild:
        """Make a session for whoever does a part of the work: it lasts no longer than this one and may do no more.

        Args:
            ttl: seconds until it has to be renewed.
            constraints, metadata: JSON objects; what goes beyond this session's constraints is cut to them.
        """
        return self._do(self._core.call(calls.create_child(ttl, constraints, metadata)))

    def children(self, limit: int | None = None) -> list[SessionSummary]:
        """List the sessions right below this one that are not revoked, newest first.

        Args:
            limit: how many at most; None is all of them.
        """
        return self._do(self._core.pages(calls.children(min(limit or calls.PAGE, calls.PAGE)), limit))

    def end_child(self, session_id: str) -> RevokedSession:
        """End a session below this one, with all that descends from it."""
        return self._do(self._core.call(calls.end_child(session_id)))

    def end(self) -> RevokedSession:
        """End the session, for good; that it was ended so already is no error."""
        return self._do(self._core.end())

    def request(self, method: str, path: str, json: object = None) -> Any:
        """Ask for any other route of agents and return the answer's JSON; None where it has no body.

        Args:
            method: GET, PUT and DELETE are repeated after a lost answer, others are not.
            path: with its query, quoted.
            json: the body.
        """
        return self._do(self._core.call(calls.anything(method, path, json)))

    def close(self) -> None:
        """Stop renewing and end the connections; the session itself goes on."""
        self._core.close()
        if self._keeper is not None and self._keeper is not threading.current_thread():
            self._keeper.join(_CLOSING)
        self._wire.close()

    def _prepare(self) -> None:
        self._condition = threading.Condition()
        self._wire = Wire(self._locate)
        self._keeper: threading.Thread | None = None

    def _keep(self) -> None:
        with self._condition:
            if not self._core.renews or (self._keeper is not None and self._keeper.is_alive()):
                return
            self._keeper = threading.Thread(target=self._renew, name="renewal", daemon=True)
            self._keeper.start()

    def _renew(self) -> None:
        # Signals are for the main thread, which may be waiting for one.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self._drive(self._core.keep())

    def _wake(self) -> None:
        with self._condition:
            self._condition.notify_all()

    def _do(self, steps: Steps[T]) -> T:
        self._keep()
        return self._drive(steps)

    def _drive(self, steps: Steps[T]) -> T:
        """Do what the core asks for until it has its result."""
        try:
            effect = next(steps)
            while True:
                try:
                    done = self._perform(effect)
                except Exception as error:  # noqa: BLE001 (the core decides)
                    effect = steps.throw(error)
                else:
                    effect = steps.send(done)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            steps.close()

    def _perform(self, effect: Send | Pause | Work) -> object:
        match effect:
            case Send():
                return self._wire.send(effect)
            case Pause(seconds, version):
                with self._condition:
                    return self._condition.wait_for(lambda: self._core.version != version, seconds)
            case Work(do):
                return do()


_all: WeakSet[Session] = WeakSet()


def _forked() -> None:
    """Give a child connections, a lock and a thread of its own: the parent's are not to be touched."""
    for session in list(_all):
        session._prepare()


os.register_at_fork(after_in_child=_forked)
