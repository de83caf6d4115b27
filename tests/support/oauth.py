"""A service beside the daemon that accepts its tokens."""

from typing import Any

import httpx

from tests.support.live import LiveDaemon
from tests.support.pair import Site

VERIFIERS = "/v1/owner/verifiers"
INTROSPECT = "/v1/oauth/introspect"
REVOKE = "/v1/oauth/revoke"
INACTIVE = b'{"active":false}'


class Service:
    """A service with a verifier's credential, made by the owner.

    Args:
        live: the daemon that it asks.
        body: of the verifier, e.g. `mayRevoke`.
    """

    def __init__(self, live: LiveDaemon | Site, name: str = "gateway", **body: Any) -> None:
        self.live = live
        answer = live.owner.post(VERIFIERS, json={"name": name, **body})
        assert answer.status_code == 201, answer.text
        self.added: dict[str, Any] = answer.json()
        self.id, self.credential = str(self.added["id"]), str(self.added["credential"])
        self.client = self.at(live)

    def at(self, live: LiveDaemon | Site) -> httpx.Client:
        """Return a client with its credential, of this daemon or of another one."""
        return live.client(Authorization=f"Bearer {self.credential}")

    def introspect(self, token: str) -> httpx.Response:
        """Ask about a token."""
        return self.client.post(INTROSPECT, data={"token": token})

    def told(self, token: str) -> dict[str, Any]:
        """Return what is told of a token."""
        answer: dict[str, Any] = self.introspect(token).raise_for_status().json()
        return answer

    def is_active(self, token: str) -> bool:
        """Return whether a token is good; of one that is not, nothing else may be told."""
        answer = self.introspect(token)
        assert answer.status_code == 200, answer.text
        active = bool(answer.json()["active"])
        assert active or answer.content == INACTIVE
        return active

    def revoke(self, token: str, **more: str) -> httpx.Response:
        """Ask for the end of a token."""
        return self.client.post(REVOKE, data={"token": token, **more})
