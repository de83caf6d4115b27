"""The services behind the owner's channels, and a daemon whose clock they share."""

from collections.abc import Iterator

import pytest

from tests.support.live import FakeTime
from tests.support.owner import WEBHOOK_SECRET
from tests.support.services.discord import FakeDiscord
from tests.support.services.ntfy import FakeNtfy
from tests.support.services.telegram import FakeTelegram
from tests.support.services.webhook import FakeWebhook


@pytest.fixture
def time() -> FakeTime:
    """The daemon's time, if the test gives it to the daemon."""
    return FakeTime()


@pytest.fixture
def hook(time: FakeTime) -> Iterator[FakeWebhook]:
    """A webhook's receiver that lives in the daemon's time."""
    with FakeWebhook(WEBHOOK_SECRET, lambda: time.wall) as fake:
        yield fake


@pytest.fixture
def phone() -> Iterator[FakeTelegram]:
    """Telegram."""
    with FakeTelegram() as fake:
        yield fake


@pytest.fixture
def team() -> Iterator[FakeDiscord]:
    """Discord."""
    with FakeDiscord() as fake:
        yield fake


@pytest.fixture
def push() -> Iterator[FakeNtfy]:
    """An ntfy server."""
    with FakeNtfy(keepalive=0.5) as fake:
        yield fake
