"""The Python client of agents: a session that renews itself, for threads (`Session`) and asyncio (`AsyncSession`)."""

from daemon.client.async_session import AsyncSession
from daemon.client.errors import (
    ApiError,
    ClientError,
    Conflict,
    DaemonFault,
    Forbidden,
    Invalid,
    Limited,
    NoSession,
    NotFound,
    OutcomeUnknown,
    RenewalsExhausted,
    SessionEnded,
    StrangeAnswer,
    Suspended,
    TokenFileError,
    TokenReplaced,
    TooEarly,
    Unavailable,
    Unreachable,
)
from daemon.client.session import Session

__all__ = [
    "ApiError",
    "AsyncSession",
    "ClientError",
    "Conflict",
    "DaemonFault",
    "Forbidden",
    "Invalid",
    "Limited",
    "NoSession",
    "NotFound",
    "OutcomeUnknown",
    "RenewalsExhausted",
    "Session",
    "SessionEnded",
    "StrangeAnswer",
    "Suspended",
    "TokenFileError",
    "TokenReplaced",
    "TooEarly",
    "Unavailable",
    "Unreachable",
]
