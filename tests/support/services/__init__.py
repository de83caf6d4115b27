"""Local servers with the wire formats, limits and faults of the notification services."""

from tests.support.services.base import Drop, FakeService, Fault, Garbage, Received, Status, Timeout, TooMany

__all__ = ["Drop", "FakeService", "Fault", "Garbage", "Received", "Status", "Timeout", "TooMany"]
