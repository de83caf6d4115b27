"""The whole session API against a model: what no sequence of requests may break."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from tests.support.engines import Databases
from tests.support.live import LiveDaemon

TTL = 3600
CHANGES = {
    "create": ["SESSION_CREATED"],
    "renew": ["SESSION_RENEWED"],
    "rotate": ["SESSION_ROTATED"],
    "extend": ["SESSION_EXTENDED"],
    "suspend": ["SESSION_SUSPENDED"],
    "resume": ["SESSION_RESUMED"],
}


class SessionModel:
    """What a session must be."""

    def __init__(self, made: dict[str, Any], now: float) -> None:
        self.id = made["id"]
        self.token = made["token"]
        self.old: list[str] = []
        self.expires = made["expiresAt"]
        self.absolute = made["absoluteExpiresAt"]
        self.renewed = now
        self.count = 0
        self.suspended = False
        self.over = False


class SessionApi(RuleBasedStateMachine):
    """Owners and agents do what they like, in any order, while time passes."""

    sessions = Bundle("sessions")
    engine = "sqlite"

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.databases = Databases(self.engine)
        settings = self.databases.settings(self.folder / "home")
        self.live = LiveDaemon(self.folder / "home", DAEMON_SECURITY_MAX_SESSIONS_PER_AGENT="1000", **settings)
        self.models: list[SessionModel] = []

    @initialize()
    def register(self) -> None:
        self.agent = self.live.new_agent()

    def now(self) -> float:
        return self.live.time.wall

    def alive(self, model: SessionModel) -> bool:
        return not model.over and self.now() < model.expires

    def gained(self, model: SessionModel, work: Any) -> tuple[Any, list[str]]:
        """Return an answer and the types of the events that the session got by it."""
        before = len(self.live.events(sessionId=model.id))
        answer = work()
        return answer, [event["type"] for event in self.live.events(sessionId=model.id)[before:]]

    @rule(target=sessions, renewals=st.integers(0, 3))
    def create(self, renewals: int) -> Any:
        made = self.live.new_session(self.agent, ttl=TTL, constraints={"maxRenewals": renewals})
        model = SessionModel(made, self.now())
        model.limit = renewals  # type: ignore[attr-defined]
        self.models.append(model)
        assert [event["type"] for event in self.live.events(sessionId=model.id)] == CHANGES["create"]
        return model

    @rule(seconds=st.sampled_from([1, 60, 1799, 1800, 3600, 40_000]))
    def time_passes(self, seconds: int) -> None:
        self.live.time.advance(seconds)

    @rule(model=sessions)
    def use(self, model: SessionModel) -> None:
        answer = self.live.agent(model.token).get("/v1/session")
        assert (answer.status_code == 200) == (self.alive(model) and not model.suspended)

    @rule(model=sessions)
    def renew(self, model: SessionModel) -> None:
        path = f"/v1/sessions/{model.id}/renew"
        answer, events = self.gained(model, lambda: self.live.agent(model.token).put(path))
        may = (
            self.alive(model)
            and not model.suspended
            and model.count < model.limit  # type: ignore[attr-defined]
            and self.now() >= model.renewed + TTL // 2
            and model.expires < model.absolute
        )
        assert (answer.status_code == 200) == may, answer.text
        # With three renewals at most every one leaves so few that the owner is warned, and so does the last refusal.
        last = self.alive(model) and not model.suspended
        last = last and (model.count >= model.limit or model.expires >= model.absolute)  # type: ignore[attr-defined]
        warned = ["SESSION_EXPIRING_SOON"] if (may or last) and not getattr(model, "warned", False) else []
        model.warned = getattr(model, "warned", False) or bool(warned)  # type: ignore[attr-defined]
        told = [one for one in events if one not in {"SESSION_STARTED", "SESSION_STATE_CHANGED"}]
        assert told == ((CHANGES["renew"] if may else []) + warned)
        if may:
            model.old.append(model.token)
            model.token, model.expires = answer.json()["token"], answer.json()["expiresAt"]
            model.renewed, model.count = self.now(), model.count + 1
            assert model.expires <= model.absolute

    @rule(model=sessions)
    def rotate(self, model: SessionModel) -> None:
        answer, events = self.gained(model, lambda: self.live.owner.post(f"/v1/sessions/{model.id}/rotate"))
        assert (answer.status_code == 200) == self.alive(model)
        assert events == (CHANGES["rotate"] if self.alive(model) else [])
        if answer.status_code == 200:
            model.old.clear()  # their holders are told, and not punished
            model.token = answer.json()["token"]

    @rule(model=sessions, seconds=st.sampled_from([60, 7200, 7_776_000]))
    def extend(self, model: SessionModel, seconds: int) -> None:
        path = f"/v1/sessions/{model.id}/extend"
        answer, events = self.gained(model, lambda: self.live.owner.post(path, json={"seconds": seconds}))
        assert (answer.status_code == 200) == (self.alive(model) and model.expires < model.absolute)
        if answer.status_code == 200:
            later = answer.json()["expiresAt"]
            assert model.expires <= later <= model.absolute
            assert events == (CHANGES["extend"] if later > model.expires else [])
            model.expires = later

    @rule(model=sessions, operation=st.sampled_from(["suspend", "resume"]))
    def suspend_or_resume(self, model: SessionModel, operation: str) -> None:
        path = f"/v1/sessions/{model.id}/{operation}"
        answer, events = self.gained(model, lambda: self.live.owner.post(path))
        may = self.alive(model) and model.suspended == (operation == "resume")
        assert (answer.status_code == 200) == may
        assert events == (CHANGES[operation] if may else [])
        if may:
            model.suspended = operation == "suspend"

    @rule(model=sessions)
    def revoke(self, model: SessionModel) -> None:
        answer, events = self.gained(model, lambda: self.live.owner.delete(f"/v1/sessions/{model.id}"))
        if answer.status_code == 404:  # it ended so long ago that the sweeper has deleted it
            assert not self.alive(model)
            return
        assert answer.status_code == 200
        assert len([one for one in events if one in {"SESSION_REVOKED", "SESSION_RENEWAL_REJECTED"}]) <= 1
        assert ("message" in answer.json()) == (events == [])
        model.over = True

    @rule(model=sessions)
    def use_an_old_generation(self, model: SessionModel) -> None:
        for token in model.old[:1]:
            answer = self.live.agent(token).get("/v1/session")
            assert answer.status_code == 401
            if answer.json()["code"] == "TOKEN_REUSED":
                model.over = True

    @rule()
    def sweep(self) -> None:
        assert self.live.owner.post("/v1/admin/cleanup").status_code == 200

    @rule()
    def restart(self) -> None:
        self.live.restart()

    @rule(target=sessions, model=consumes(sessions))
    def forget(self, model: SessionModel) -> Any:
        return multiple() if model.over else model

    @invariant()
    def nothing_outlives_its_absolute_end(self) -> None:
        rows = self.live.query("SELECT count(*) FROM sessions WHERE expires_at > absolute_expires_at")
        assert rows == [(0,)]

    def teardown(self) -> None:
        verified = self.live.owner.get("/v1/admin/audit/verify").json()
        self.live.stop()
        self.databases.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        assert verified["valid"], verified


class SharedSessionApi(SessionApi):
    """The same on PostgreSQL."""

    engine = "postgresql"


WHOLE = bool(os.environ.get("SESSION_CAMPAIGN"))
SETTINGS = settings(
    max_examples=60 if WHOLE else 5,
    stateful_step_count=40 if WHOLE else 20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestSessionApi = SessionApi.TestCase
TestSessionApi.settings = SETTINGS
TestSharedSessionApi = SharedSessionApi.TestCase
TestSharedSessionApi.settings = settings(SETTINGS, max_examples=60 if WHOLE else 2)
