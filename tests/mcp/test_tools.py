"""What the tools say of themselves, and that bad arguments are refused before anything is done."""

import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from mcp import Client, MCPError

from daemon.client import ClientError
from daemon.domain.errors import CATALOGUE
from daemon.mcp import problems
from daemon.mcp.server import make
from daemon.mcp.sessions import Sessions
from daemon.mcp.tools import TOOLS, schema
from tests.mcp.conftest import Connect
from tests.support.live import LiveDaemon


def test_every_tool_tells_a_model_what_it_needs() -> None:
    for tool in TOOLS:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)+", tool.name)
        assert len(tool.title.split()) > 1
        assert 80 < len(tool.description) < 600
        takes, gives = schema(tool.takes), schema(tool.gives)
        for one in (takes, gives):
            Draft202012Validator.check_schema(one)
            assert one["type"] == "object"
        assert takes["additionalProperties"] is False
        for name, argument in takes["properties"].items():
            told = [argument, *argument.get("anyOf", ())]
            assert any(part.get("description") for part in told), f"{tool.name}.{name}"
        assert {"token", "Token"}.isdisjoint(gives["properties"])


async def test_annotations_say_what_may_be_called_without_asking() -> None:
    async with Client(make(Sessions())) as client:
        listed = {tool.name: tool.annotations for tool in (await client.list_tools()).tools}
    hints = {name: one for name, one in listed.items() if one is not None}
    assert hints.keys() == listed.keys()
    reading = {"session_status", "get_conversation", "list_conversations"}
    assert {name for name, hint in hints.items() if hint.read_only_hint} == reading
    assert {name for name, hint in hints.items() if hint.destructive_hint} == {"rebind_conversation"}
    repeated = reading | {"bind_conversation", "touch_conversation"}
    assert {name for name, hint in hints.items() if hint.idempotent_hint} == repeated
    assert {name for name, hint in hints.items() if hint.open_world_hint} == {"publish_report", "request_approval"}


def test_every_error_of_the_client_has_a_code_of_its_own() -> None:
    codes = [kind.code for kind in problems.LOCAL.values()]
    assert len(set(codes)) == len(codes)
    assert set(codes).isdisjoint(kind.code for kind in CATALOGUE)
    for kind, local in problems.LOCAL.items():
        assert problems.of(kind("…")).code == local.code
    assert set(ClientError.__subclasses__()) - set(problems.LOCAL) == {problems.ApiError}


def test_of_an_error_that_nobody_foresaw_a_model_is_told_nothing_else() -> None:
    told = problems.of(RuntimeError("wai_sess_secret"))
    assert (told.code, told.retryable) == ("INTERNAL_ERROR", False)
    assert "secret" not in repr(told)


async def test_a_tool_that_does_not_exist_is_an_error_of_the_protocol() -> None:
    async with Client(make(Sessions())) as client:
        with pytest.raises(MCPError, match="There is no tool end_session"):
            await client.call_tool("end_session", {})


BAD: list[tuple[str, dict[str, Any], list[str]]] = [
    ("session_status", {"sessionId": "x"}, ["sessionId"]),
    ("bind_conversation", {}, ["conversationId", "model", "provider"]),
    (
        "bind_conversation",
        {"conversationId": "", "provider": "a\nb", "model": 7},
        ["conversationId", "model", "provider"],
    ),
    ("bind_conversation", {"conversationId": "a\nb", "provider": "p", "model": "m"}, ["conversationId"]),
    ("bind_conversation", {"conversationId": "c" * 257, "provider": "p", "model": "m"}, ["conversationId"]),
    ("get_conversation", {"conversation_id": "c"}, ["conversationId", "conversation_id"]),
    (
        "rebind_conversation",
        {"conversationId": "c", "expected": {"provider": 1, "x": 2}, "provider": "p", "model": "m", "reason": ""},
        ["expected.model", "expected.provider", "expected.x", "reason"],
    ),
    ("publish_report", {"title": "", "details": "{}", "referenceId": 10**30}, ["details", "referenceId", "title"]),
    ("publish_report", {"title": "t" * 201}, ["title"]),
    ("request_approval", {"title": "t", "details": {"x": "y" * 17_000}}, ["details"]),
    ("request_approval", {"title": "t", "type": "TX_CONFIRMED"}, ["type"]),
]


async def test_bad_arguments_are_refused_with_every_problem_and_do_nothing(
    live: LiveDaemon, token_file: Path, connect: Connect
) -> None:
    before = len(live.events())
    async with connect(token_file) as call:
        for tool, arguments, paths in BAD:
            problem = await call.refused(tool, **arguments)
            assert (problem["code"], problem["retryable"]) == ("VALIDATION_ERROR", False), tool
            assert sorted(error["path"] for error in problem["errors"]) == paths, tool
            assert "Correct every field listed in `errors`" in problem["hint"]
    told = [event["type"] for event in live.events()[before:]]
    assert set(told) <= {"SESSION_STARTED"}
