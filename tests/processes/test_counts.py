"""What the metrics tell of processes: those that run, their sessions by state, and what they take."""

from daemon.domain.states import STATES
from tests.support.daemon_process import wait_for
from tests.support.live import LiveDaemon
from tests.support.scrape import Scrape, scrape
from tests.support.supervised import CAT, Desk, kill9

SETTINGS = {"DAEMON_SERVER_METRICS": "true"}


def by_state(found: Scrape) -> dict[str, float]:
    counted = {state: found("daemon_processes", state=state) for state in STATES}
    assert found.total("daemon_processes") == sum(counted.values())
    return {state: count for state, count in counted.items() if count}


def test_processes_are_counted_from_their_start_to_their_end(live: LiveDaemon, desk: Desk) -> None:
    assert by_state(scrape(live)) == {}
    first, second = desk.run(*CAT), desk.run("sh", "-c", "sleep 1000 & cat; true")
    wait_for(lambda: by_state(scrape(live)) == {"READY": 2})
    assert scrape(live)("daemon_processes_running") == 2
    (one, other) = live.owner.get("/v1/owner/processes").raise_for_status().json()
    found = scrape(live)
    assert found("daemon_processes_members") == one["processes"] + other["processes"] == 4
    assert found("daemon_processes_resident_memory_bytes") > 100_000
    second.do("suspend")
    wait_for(lambda: by_state(scrape(live)) == {"READY": 1, "SUSPENDED": 1})
    kill9(first.pid)
    wait_for(lambda: by_state(scrape(live)) == {"ERROR": 1, "SUSPENDED": 1})
    assert scrape(live)("daemon_processes_running") == 1
    assert scrape(live)("daemon_events_total", type="SESSION_ERROR") == 1
    first.revoke()
    second.do("kill")
    wait_for(lambda: by_state(scrape(live)) == {})
    found = scrape(live)
    names = ("running", "members", "resident_memory_bytes")
    assert [found(f"daemon_processes_{name}") for name in names] == [0, 0, 0]
