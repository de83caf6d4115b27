"""Webhook: the event itself as signed JSON, for programs (Standard Webhooks, https://www.standardwebhooks.com)."""

import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode
from datetime import UTC, datetime
from typing import Any

import msgspec

from daemon.domain.channels import WebhookConfig
from daemon.domain.notifications import Notice
from daemon.notify.client import Http
from daemon.notify.failure import refusal


async def send(http: Http, config: WebhookConfig, notice: Notice, now: int) -> str:
    """Post an event and return the id under which the receiver knows it: the same at every attempt.

    Args:
        http, config: whom to tell.
        notice: what.
        now: Unix seconds, for the signature.

    Raises:
        SendFailed: the receiver did not answer with success.
    """
    data: dict[str, Any] = {"level": notice.level, **notice.context}
    if notice.reject_url:
        data["rejectUrl"] = notice.reject_url
    await _post(http, config, notice.id, now, {"type": notice.event, "timestamp": _rfc3339(notice.at), "data": data})
    return notice.id


async def check(http: Http, config: WebhookConfig, now: int) -> None:
    """Post a signed `ping`.

    Raises:
        SendFailed: the receiver did not answer with success.
    """
    body = {"type": "ping", "timestamp": _rfc3339(now), "data": {}}
    await _post(http, config, f"ping_{secrets.token_hex(12)}", now, body)


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the `webhook-signature` of a message.

    Args:
        secret: `whsec_` and Base64.
        message_id, timestamp: as in the headers.
        body: as it is sent.
    """
    key = b64decode(secret.removeprefix("whsec_"))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


async def _post(http: Http, config: WebhookConfig, message_id: str, now: int, body: dict[str, Any]) -> None:
    content = msgspec.json.encode(body)
    headers = {
        "Content-Type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(now),
        "webhook-signature": signature(config.secret, message_id, now, content),
    }
    answer = await http.request("POST", config.url, content=content, headers=headers)
    if not answer.good:
        raise refusal(answer.status, answer.headers, http.wall())


def _rfc3339(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
