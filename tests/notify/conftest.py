"""Clients for the senders."""

from collections.abc import AsyncIterator

import pytest

from daemon.notify.client import Http


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    """A client."""
    client = Http(timeout=2)
    yield client
    await client.close()


@pytest.fixture
async def quick() -> AsyncIterator[Http]:
    """A client that gives up soon."""
    client = Http(timeout=0.15)
    yield client
    await client.close()
