"""An HTTP client for the fakes."""

import httpx

from tests.support.services import FakeService


def client(fake: FakeService, **headers: str) -> httpx.Client:
    """Return a client of a fake that sends these headers."""
    return httpx.Client(base_url=fake.url, headers=headers, timeout=5, trust_env=False, verify=False)
