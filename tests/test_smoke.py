"""The main job, once through: register, hand out, work, renew, restart, suspend, resume, revoke, verify."""

from tests.support.live import LiveDaemon


def test_an_agent_works_renews_survives_a_restart_is_suspended_resumed_and_revoked(live: LiveDaemon) -> None:
    made = live.new_session(ttl=3600)
    agent = live.agent(made["token"])
    assert agent.get("/v1/session").json()["state"] == "ACTIVE"
    live.time.advance(1800)
    renewed = agent.put(f"/v1/sessions/{made['id']}/renew").json()
    assert renewed["renewalCount"] == 1
    live.restart()
    agent = live.agent(renewed["token"])
    assert agent.get("/v1/session").status_code == 200
    session = f"/v1/sessions/{made['id']}"
    assert live.owner.post(f"{session}/suspend").json()["state"] == "SUSPENDED"
    assert agent.get("/v1/session").json()["code"] == "SESSION_SUSPENDED"
    assert live.owner.post(f"{session}/resume").json()["state"] == "READY"
    assert agent.get("/v1/session").status_code == 200
    assert live.owner.delete(session).json()["status"] == "REVOKED"
    assert agent.get("/v1/session").json()["code"] == "SESSION_REVOKED"
    assert live.owner.get("/v1/admin/audit/verify").json()["valid"] is True
    assert [event["type"] for event in live.events(sessionId=made["id"])] == [
        "SESSION_CREATED",
        "SESSION_STARTED",
        "SESSION_RENEWED",
        "SESSION_SUSPENDED",
        "SESSION_RESUMED",
        "SESSION_STATE_CHANGED",
        "SESSION_RENEWAL_REJECTED",
        "SESSION_CLOSED",
    ]
    assert live.owner.get("/openapi.json").json()["openapi"] == "3.1.0"
