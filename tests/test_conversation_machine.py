"""A state machine of conversations: whatever is done in whatever order, the daemon and a plain dict agree."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.support.engines import Databases
from tests.support.live import LiveDaemon
from tests.support.redis import SHARED, shared

TTL = 600
IDS = st.sampled_from(["a", "b", "a%2Ftouch"])
BINDINGS = st.sampled_from(
    [{"provider": "p", "model": "m"}, {"provider": "p", "model": "n"}, {"provider": "q", "model": "m"}]
)
BASE = "/v1/conversations"


class ConversationApi(RuleBasedStateMachine):
    """Two agents, a few ids, and time."""

    engine = "sqlite"

    def where(self) -> dict[str, str]:
        """Return the settings that say where conversations are."""
        return {}

    def __init__(self) -> None:
        super().__init__()
        self.stack = contextlib.ExitStack()
        self.folder = Path(tempfile.mkdtemp())
        ttl = {"SESSION_TTL_SECONDS": str(TTL), "DAEMON_SERVER_SESSION_RPM": "0", "DAEMON_SERVER_GLOBAL_RPM": "0"}
        self.databases = Databases(self.engine)
        settings = {**ttl, **self.where(), **self.databases.settings(self.folder / "home")}
        self.live = LiveDaemon(self.folder / "home", **settings)
        made = [self.live.new_session(ttl=604_800) for _ in range(2)]
        self.tokens = [one["token"] for one in made]
        self.model: dict[tuple[int, str], dict[str, Any]] = {}
        self.facts: list[str] = []

    def known(self, agent: int, one: str) -> dict[str, Any] | None:
        found = self.model.get((agent, one))
        return found if found and self.live.time.wall < found["expires"] else None

    def send(self, agent: int, method: str, target: str, body: Any = None) -> Any:
        client = self.live.agent(self.tokens[agent])
        return client.request(method, f"{BASE}/{target}", **({"json": body} if body is not None else {}))

    def use(self, found: dict[str, Any]) -> None:
        found["expires"] = int(self.live.time.wall) + TTL
        found["count"] += 1

    @rule(agent=st.integers(0, 1), one=IDS, wanted=BINDINGS)
    def bind(self, agent: int, one: str, wanted: dict[str, str]) -> None:
        found = self.known(agent, one)
        answer = self.send(agent, "PUT", one, wanted)
        assert answer.status_code == (200 if found else 201), answer.text
        if found is None:
            found = self.model[agent, one] = {"is": wanted, "count": 0, "rebinds": 0}
            self.facts.append("CONVERSATION_BOUND")
        self.use(found)
        said = answer.json()
        assert ({"provider": said["provider"], "model": said["model"]}, said["requestCount"], said["expiresAt"]) == (
            found["is"], found["count"], found["expires"],
        )  # fmt: skip
        assert said["matched"] == (found["is"] == wanted)

    @rule(agent=st.integers(0, 1), one=IDS)
    def touch(self, agent: int, one: str) -> None:
        found = self.known(agent, one)
        if found:
            self.use(found)
        expires = found["expires"] if found else None
        assert self.send(agent, "POST", f"{one}/touch").json() == {"expiresAt": expires}

    @rule(agent=st.integers(0, 1), one=IDS, expected=BINDINGS, wanted=BINDINGS)
    def rebind(self, agent: int, one: str, expected: dict[str, str], wanted: dict[str, str]) -> None:
        found = self.known(agent, one)
        answer = self.send(agent, "POST", f"{one}/rebind", {"expected": expected, **wanted, "reason": "why not"})
        if found is None:
            assert answer.status_code == 404
        elif found["is"] != expected:
            assert answer.status_code == 409
            assert answer.json()["details"] == {**found["is"], "rebindCount": found["rebinds"]}
        else:
            found["is"], found["rebinds"] = wanted, found["rebinds"] + 1
            assert (answer.status_code, answer.json()["rebindCount"]) == (200, found["rebinds"])
            self.facts.append("CONVERSATION_REBOUND")

    @rule(agent=st.integers(0, 1), one=IDS)
    def delete(self, agent: int, one: str) -> None:
        found = self.known(agent, one)
        assert self.send(agent, "DELETE", one).status_code == (204 if found else 404)
        if found:
            del self.model[agent, one]
            self.facts.append("CONVERSATION_DELETED")

    @rule(seconds=st.sampled_from([1, TTL // 2, TTL - 1, TTL, TTL + 61]))
    def time_passes(self, seconds: int) -> None:
        self.live.time.advance(seconds)

    @rule()
    def sweep(self) -> None:
        assert self.live.owner.post("/v1/admin/cleanup").status_code == 200

    @rule()
    def restart(self) -> None:
        self.live.restart()

    @invariant()
    def each_agent_sees_its_own_and_no_other(self) -> None:
        for agent in range(2):
            wanted = {
                one.replace("%2F", "/"): (found["is"], found["count"], found["rebinds"], found["expires"])
                for (whose, one), found in self.model.items()
                if whose == agent and self.known(agent, one)
            }
            seen = {
                one["conversationId"]: (
                    {"provider": one["provider"], "model": one["model"]},
                    one["requestCount"], one["rebindCount"], one["expiresAt"],
                )
                for one in self.send(agent, "GET", "").json()
            }  # fmt: skip
            assert seen == wanted

    def teardown(self) -> None:
        told = [event["type"] for event in self.live.events() if event["type"].startswith("CONVERSATION_")]
        verified = self.live.owner.get("/v1/admin/audit/verify").json()
        self.live.stop()
        self.databases.close()
        self.stack.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        assert told == self.facts
        assert verified["valid"], verified


class ConversationApiOnPostgreSQL(ConversationApi):
    """The same on PostgreSQL."""

    engine = "postgresql"


class ConversationApiOnRedis(ConversationApi):
    """The same on a Redis that forgets now and then."""

    def where(self) -> dict[str, str]:
        settings = self.stack.enter_context(shared())
        self.prefix = settings["DAEMON_CONVERSATIONS_KEY_PREFIX"]
        return settings

    @rule()
    def forget(self) -> None:
        plain = redis.Redis.from_url(SHARED)
        for key in plain.scan_iter(f"{self.prefix}*"):
            plain.delete(key)


WHOLE = bool(os.environ.get("SESSION_CAMPAIGN"))
TestConversationApi = ConversationApi.TestCase
TestConversationApiOnRedis = ConversationApiOnRedis.TestCase
TestConversationApiOnPostgreSQL = ConversationApiOnPostgreSQL.TestCase
SETTINGS = settings(
    max_examples=60 if WHOLE else 4,
    stateful_step_count=40 if WHOLE else 20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestConversationApi.settings = TestConversationApiOnRedis.settings = SETTINGS
TestConversationApiOnPostgreSQL.settings = settings(SETTINGS, max_examples=60 if WHOLE else 2)
