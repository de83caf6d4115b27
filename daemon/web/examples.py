"""One example of every body, for the OpenAPI document."""

import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

_BY_NAME: dict[str, Any] = {
    "id": "01980e5a-7c00-7a2b-9c4d-5e6f708192a3",
    "agentId": "01980e59-3a10-7f00-8b1c-2d3e4f506172",
    "sessionId": "01980e5a-7c00-7a2b-9c4d-5e6f708192a3",
    "parentId": "01980e5a-1d20-7c51-a3f4-0b1c2d3e4f50",
    "children": [],
    "name": "researcher",
    "agentName": "researcher",
    "token": "wai_sess_eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.…",
    "ticket": "wai_own_…",
    "credential": "wai_verf_…",
    "token_type_hint": "access_token",
    "active": True,
    "sub": "01980e5a-7c00-7a2b-9c4d-5e6f708192a3",
    "client_id": "01980e59-3a10-7f00-8b1c-2d3e4f506172",
    "client_name": "researcher",
    "scope": "session.* sessions.renew",
    "token_type": "Bearer",
    "exp": 1_767_312_000,
    "iat": 1_767_225_600,
    "iss": "daemon",
    "session_state": "ACTIVE",
    "user_id": "user-7",
    "workspace_id": "search",
    "newPassword": "correct horse battery staple",
    "version": "0.1.0",
    "type": "SESSION_RENEWED",
    "actor": "agent:01980e59-3a10-7f00-8b1c-2d3e4f506172",
    "requestId": "r-1",
    "ipAddress": "127.0.0.1",
    "prevHash": "0" * 64,
    "hash": "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
    "kind": "sqlite",
    "path": "/home/me/.local/share/agent-daemon/backups/daemon-20260101T000000Z.db",
    "sizeBytes": 131_072,
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "openapi": "3.1.0",
    "config": {"serverUrl": "https://ntfy.sh", "topic": "***", "authToken": None, "replyTopic": "***"},
    "event": "SESSION_RENEWED",
    "metadata": {"team": "search"},
    "constraints": {"maxRenewals": 10, "allowedOperations": ["session.*", "sessions.renew"]},
    "details": {"renewalCount": 1},
    "checks": {"database": {"status": "ok", "detail": None}},
    "expiresAt": 1_767_312_000,
    "absoluteExpiresAt": 1_769_817_600,
    "createdAt": 1_767_225_600,
    "updatedAt": 1_767_225_600,
    "timestamp": 1_767_225_600,
    "state": "ACTIVE",
    "ttl": 3600,
    "seconds": 3600,
    "maxRenewals": 30,
    "message": "Session already revoked",
    "reason": "looks odd",
    "conversationId": "conv-123",
    "externalId": "thread_abc",
    "provider": "anthropic",
    "model": "claude-sonnet-4-5",
    "userId": "user-7",
    "workspaceId": "search",
    "command": "claude",
    "workingDir": "/home/me/code/search",
    "content": "Fix the failing test.",
    "pid": 4711,
    "rss": 268_435_456,
    "cpu": 0.25,
    "costUsd": 0.42,
}


def example(kind: Any) -> Any:
    """Return an example of a type that the API takes or answers."""
    origin = get_origin(kind)
    if origin is list:
        return [example(get_args(kind)[0])]
    fields = msgspec.structs.fields(kind)
    return {field.encode_name: _value(field.encode_name, field.type) for field in fields}


def _value(name: str, kind: Any) -> Any:
    origin = get_origin(kind)
    if name in _BY_NAME and (origin is not Literal or _BY_NAME[name] in get_args(kind)):
        return _BY_NAME[name]
    if origin is Annotated:
        return _value(name, get_args(kind)[0])
    if origin in {Union, types.UnionType}:
        return None if type(None) in get_args(kind) else _value(name, get_args(kind)[0])
    if origin is Literal:
        return get_args(kind)[0]
    if origin is list or (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return example(kind)
    if origin is dict:
        return {}
    return {int: 1, float: 0.5, bool: False, str: "…"}.get(kind)
