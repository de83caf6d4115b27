"""A receiver of webhooks that are signed as Standard Webhooks."""

import base64
import hashlib
import hmac
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.support.services.base import FakeService, Received, Reply, TooMany, json_reply

TOLERANCE = 300  # seconds


@dataclass(frozen=True)
class Delivery:
    """A webhook that was signed well.

    Args:
        webhook_id: the same for every attempt.
        timestamp: of the attempt, in Unix seconds.
        body: as JSON.
    """

    webhook_id: str
    timestamp: int
    body: Any


class FakeWebhook(FakeService):
    """A receiver at any path.

    Args:
        secret: `whsec_` and the key in base64.
        clock: Unix seconds.

    Attributes:
        messages: the first delivery of each id, in order.
        duplicates: further deliveries of an id that was seen.
        rejected: why deliveries were refused.
    """

    def __init__(self, secret: str, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self.expect(secret)
        self._clock = clock
        self.messages: list[Delivery] = []
        self.duplicates: list[Delivery] = []
        self.rejected: list[str] = []

    def expect(self, secret: str) -> None:
        """Verify what comes from now on by this secret."""
        self._key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)

    def sends(self, request: Received) -> bool:
        """Return whether a request delivers something."""
        return request.method == "POST"

    def too_many(self, fault: TooMany) -> Reply:
        """Return 429 with `Retry-After`, which is all that the standard knows, or without."""
        headers = {} if fault.where == "body" else {"Retry-After": str(math.ceil(fault.seconds))}
        return json_reply(429, {"error": "too many requests"}, headers)

    def answer(self, request: Received) -> Reply:
        """Verify and record a delivery; https://www.standardwebhooks.com/ (its specification, "Verifying webhooks")."""
        if request.method != "POST":
            return json_reply(405, {"error": "only POST"})
        problem = self._problem(request)
        with self.changed:
            if problem:
                self.rejected.append(problem)
                return json_reply(401, {"error": problem})
            try:
                self._record(request)
            except ValueError:
                self.rejected.append("the body is not JSON")
                return json_reply(400, {"error": self.rejected[-1]})
            self.changed.notify_all()
        return Reply(204)

    def _record(self, request: Received) -> None:
        webhook_id, timestamp = request.headers["webhook-id"], int(request.headers["webhook-timestamp"])
        delivery = Delivery(webhook_id, timestamp, request.json())
        seen = any(message.webhook_id == webhook_id for message in self.messages)
        (self.duplicates if seen else self.messages).append(delivery)

    def _problem(self, request: Received) -> str | None:
        names = ("webhook-id", "webhook-timestamp", "webhook-signature")
        webhook_id, timestamp, signatures = (request.headers.get(name, "") for name in names)
        if not webhook_id or not timestamp.isdigit() or not signatures:
            return "a header is missing"
        if abs(self._clock() - int(timestamp)) > TOLERANCE:
            return "the timestamp is too old or too new"
        signed = f"{webhook_id}.{timestamp}.".encode() + request.body
        expected = "v1," + base64.b64encode(hmac.digest(self._key, signed, hashlib.sha256)).decode()
        if not any(hmac.compare_digest(expected, signature) for signature in signatures.split(" ")):
            return "no signature matches"
        return None
