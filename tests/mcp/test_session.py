"""A session of the SDK's client over standard input and output, with every tool, against a live daemon."""

import asyncio
import json
import sys
from pathlib import Path

from mcp import Client, StdioServerParameters

from daemon.mcp.tools import TOOLS
from tests.mcp.conftest import Caller, Connect, write
from tests.support.daemon_process import REPOSITORY, environment
from tests.support.live import LiveDaemon

HALF_A_DAY = 43_200


async def test_every_tool_is_used_and_the_token_expires_in_between(
    live: LiveDaemon, token_file: Path, tmp_path: Path
) -> None:
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "daemon", "mcp"],
        env=environment(tmp_path / "none", DAEMON_TOKEN_FILE=str(token_file), DAEMON_URL=live.url),
        cwd=REPOSITORY,
    )
    first = token_file.read_text().strip()
    async with Client(server) as client:
        call = Caller(client)
        me = await call("session_status")
        assert (me["agentName"], me["status"], me["remainingRenewals"]) == ("researcher", "ACTIVE", 30)
        assert me["expiresIn"] > me["renewableIn"] > 0

        bound = await call("bind_conversation", conversationId="chat/1", provider="anthropic", model="claude")
        assert (bound["matched"], bound["requestCount"]) == (True, 1)
        live.time.advance(HALF_A_DAY)
        assert (await call("touch_conversation", conversationId="chat/1"))["expiresAt"] > bound["expiresAt"]
        renewed = await call("renew_session")
        second = token_file.read_text().strip()
        assert (renewed["renewalCount"], renewed["id"], second != first) == (1, me["id"], True)

        live.time.advance(2 * HALF_A_DAY)
        expired = [await call.refused("session_status"), await call.refused("publish_report", title="Too late")]
        assert {problem["code"] for problem in expired} == {"TOKEN_EXPIRED"}
        assert "Ask the owner for a new session" in expired[0]["hint"]
        assert expired[0]["retryable"] is False

        third = write(token_file, live.new_session(me["agentId"])["token"]).read_text().strip()
        again = await call("session_status")
        assert (again["agentId"], again["id"] != me["id"]) == (me["agentId"], True)
        await call("bind_conversation", conversationId="chat/2", provider="anthropic", model="claude", externalId="t-1")
        change = {"provider": "openai", "model": "gpt", "reason": "529 three times"}
        to = await call(
            "rebind_conversation",
            conversationId="chat/2",
            expected={"provider": "anthropic", "model": "claude"},
            **change,
        )
        assert (to["provider"], to["rebindCount"], to["externalId"]) == ("openai", 1, "t-1")
        assert await call("get_conversation", conversationId="chat/2") == to
        assert (await call("list_conversations"))["conversations"] == [to]
        told = await call("publish_report", title="Report ready", details={"rows": 1200}, referenceId="job-42")
        asked = await call("request_approval", title="May I send it?")

    assert call.called == {tool.name for tool in TOOLS}
    assert [token for token in (first, second, third) if token in "".join(call.heard)] == []
    (report,), (approval,) = live.events(type="AGENT_REPORT"), live.events(type="TX_APPROVAL_REQUEST")
    assert (report["seq"], approval["seq"]) == (told["seq"], asked["seq"])
    assert (report["sessionId"], report["details"]) == (
        again["id"],
        {"referenceId": "job-42", "title": "Report ready", "details": {"rows": 1200}},
    )
    assert [event["sessionId"] for event in live.events(type="SESSION_RENEWED")] == [me["id"]]


async def test_a_restart_of_the_daemon_is_survived(live: LiveDaemon, token_file: Path, connect: Connect) -> None:
    async with connect(token_file, timeout=0.5) as call:
        me = await call("session_status")
        live.stop()
        away = await call.refused("session_status")
        assert (away["code"], away["retryable"]) == ("DAEMON_UNREACHABLE", True)
        assert (await call.refused("publish_report", title="Lost?"))["code"] == "DAEMON_UNREACHABLE"
        live.start()
        assert (await call("session_status"))["id"] == me["id"]
        await call("publish_report", title="Here again")
    (report,) = live.events(type="AGENT_REPORT")
    assert report["details"]["title"] == "Here again"


async def test_without_a_session_every_tool_says_what_to_do(connect: Connect) -> None:
    arguments = {
        "bind_conversation": {"conversationId": "c", "provider": "p", "model": "m"},
        "rebind_conversation": {
            "conversationId": "c", "expected": {"provider": "p", "model": "m"}, "provider": "q", "model": "m",
            "reason": "r",
        },
        **{tool: {"conversationId": "c"} for tool in ("get_conversation", "touch_conversation")},
        **{tool: {"title": "t"} for tool in ("publish_report", "request_approval")},
    }  # fmt: skip
    async with connect(None) as call:
        for tool in TOOLS:
            problem = await call.refused(tool.name, **arguments.get(tool.name, {}))
            assert problem["code"] == "NO_SESSION"
            assert "daemon mcp install --token-file" in problem["hint"]


async def test_calls_at_once_are_all_answered(live: LiveDaemon, token_file: Path, connect: Connect) -> None:
    async with connect(token_file) as call:
        bound = await asyncio.gather(
            *(call("bind_conversation", conversationId="c", provider="p", model=f"m{n}") for n in range(20)),
            *(call("session_status") for _ in range(20)),
        )
    assert len({answer["model"] for answer in bound[:20]}) == 1
    assert [answer["matched"] for answer in bound[:20]].count(True) == 1
    assert len(live.events(type="CONVERSATION_BOUND")) == 1


async def test_a_token_file_that_cannot_be_used_is_told_and_works_once_it_is_mended(
    token_file: Path, connect: Connect
) -> None:
    token = token_file.read_text()
    async with connect(token_file) as call:
        token_file.chmod(0o644)
        problem = await call.refused("session_status")
        assert problem["code"] == "TOKEN_FILE_UNUSABLE"
        assert f"chmod 600 {token_file}" in problem["detail"]
        token_file.unlink()
        assert (await call.refused("session_status"))["code"] == "TOKEN_FILE_UNUSABLE"
        write(token_file, "no token at all")
        problem = await call.refused("session_status")
        assert problem["code"] == "NO_SESSION"
        assert "no token at all" not in json.dumps(problem)
        write(token_file, token.strip())
        assert (await call("session_status"))["agentName"] == "researcher"


async def test_what_the_owner_does_is_told_with_its_code(live: LiveDaemon, token_file: Path, connect: Connect) -> None:
    async with connect(token_file, timeout=0.5) as call:
        session = (await call("session_status"))["id"]
        early = await call.refused("renew_session")
        assert (early["code"], early["retryable"], early["retryAfter"]) == ("RENEWAL_TOO_EARLY", True, HALF_A_DAY)
        live.owner.post(f"/v1/sessions/{session}/suspend").raise_for_status()
        assert (await call.refused("list_conversations"))["code"] == "SESSION_SUSPENDED"
        live.owner.post(f"/v1/sessions/{session}/resume").raise_for_status()
        await call("list_conversations")
        constraints = {"allowedOperations": ["session.read", "conversations.*", "session.publish"]}
        live.owner.patch(f"/v1/sessions/{session}", json={"constraints": constraints}).raise_for_status()
        assert (await call.refused("renew_session"))["code"] == "CONSTRAINT_VIOLATED"
        for _ in range(30):
            await call("publish_report", title="Once more")
        limited = await call.refused("publish_report", title="Once too often")
        assert (limited["code"], limited["retryable"]) == ("RATE_LIMIT_EXCEEDED", True)
        assert limited["retryAfter"] > 0
        missing = await call.refused("get_conversation", conversationId="none")
        assert (missing["code"], "bind_conversation" in missing["hint"]) == ("CONVERSATION_NOT_FOUND", True)
        live.owner.delete(f"/v1/sessions/{session}").raise_for_status()
        assert (await call.refused("session_status"))["code"] == "SESSION_REVOKED"
