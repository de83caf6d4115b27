"""The fake receiver of webhooks takes what is signed well, and knows what it has seen."""

import base64
import hashlib
import hmac
from collections.abc import Iterator

import httpx
import pytest

from tests.services.fake_client import client
from tests.support.services import Drop
from tests.support.services.webhook import FakeWebhook

SECRET = b"0123456789abcdef0123456789abcdef"
NOW = 1_800_000_000


def deliver(fake: FakeWebhook, body: bytes = b'{"a": 1}', *, at: int = NOW, key: bytes = SECRET) -> int:
    signature = base64.b64encode(hmac.digest(key, b"msg_1.%d.%b" % (at, body), hashlib.sha256)).decode()
    signed = {"webhook-id": "msg_1", "webhook-timestamp": str(at), "webhook-signature": f"v1,AAAA v1,{signature}"}
    with client(fake, **signed) as http:
        return http.post("/hook", content=body).status_code


@pytest.fixture
def webhook() -> Iterator[FakeWebhook]:
    with FakeWebhook("whsec_" + base64.b64encode(SECRET).decode(), clock=lambda: NOW) as fake:
        yield fake


def test_a_webhook_is_taken_once_and_its_repetition_is_known(webhook: FakeWebhook) -> None:
    webhook.script(Drop(before=False))
    with pytest.raises(httpx.RemoteProtocolError):
        deliver(webhook)
    assert deliver(webhook, at=NOW + 1) == 204
    assert [(one.webhook_id, one.timestamp, one.body) for one in webhook.messages] == [("msg_1", NOW, {"a": 1})]
    assert [one.timestamp for one in webhook.duplicates] == [NOW + 1]


def test_a_webhook_that_is_not_signed_well_is_rejected(webhook: FakeWebhook) -> None:
    assert deliver(webhook, key=b"another") == 401
    assert deliver(webhook, at=NOW - 301) == 401
    assert deliver(webhook, at=NOW + 301) == 401
    with client(webhook) as http:
        assert http.post("/hook", content=b"{}").status_code == 401
    assert deliver(webhook, b"no json") == 400
    assert (len(webhook.rejected), webhook.messages) == (5, [])
