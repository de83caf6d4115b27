"""`GET /metrics`: where it is, who may read it, and in which formats."""

import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from daemon.web.families import FAMILIES
from tests.support.live import LiveDaemon
from tests.support.readme import README
from tests.support.scrape import Scrape, scrape
from tests.support.supervised import code

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPEN = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def test_without_the_setting_there_is_no_such_route_and_nothing_of_prometheus_is_loaded(live: LiveDaemon) -> None:
    for method in ("GET", "POST", "HEAD"):
        answer = live.anonymous.request(method, "/metrics")
        assert answer.status_code == 404
    assert code(live.anonymous.get("/metrics")) == (404, "ROUTE_NOT_FOUND")
    assert "/metrics" not in live.anonymous.get("/openapi.json").json()["paths"]
    assert "loop-lag" not in {worker["name"] for worker in live.owner.get("/v1/admin/status").json()["workers"]}
    loaded = "import daemon.lifecycle, daemon.cli.metrics, sys; print('prometheus_client' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_with_the_setting_it_is_described_and_takes_get_alone(shared: LiveDaemon) -> None:
    described = shared.anonymous.get("/openapi.json").json()["paths"]["/metrics"]
    assert set(described["get"]["responses"]["200"]["content"]) == {"text/plain", "application/openmetrics-text"}
    for method in ("POST", "HEAD", "OPTIONS", "DELETE"):
        answer = shared.anonymous.request(method, "/metrics")
        assert (answer.status_code, answer.headers["Allow"]) == (405, "GET")
    assert code(shared.anonymous.request("GET", "/metrics", json={"x": 1})) == (400, "VALIDATION_ERROR")


def test_a_foreign_host_or_page_reads_no_metrics(shared: LiveDaemon) -> None:
    assert code(shared.anonymous.get("/metrics", headers={"Host": "evil.example"})) == (403, "HOST_NOT_ALLOWED")
    foreign = {"Origin": "https://evil.example"}
    assert code(shared.anonymous.get("/metrics", headers=foreign)) == (403, "ORIGIN_NOT_ALLOWED")


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        ("text/plain", TEXT),
        ("text/plain;version=0.0.4;q=0.3,*/*;q=0.1", TEXT),
        ("application/json", TEXT),
        ("image/png", TEXT),
        ("text/plain;version=99", TEXT),
        ("application/openmetrics-text;version=abc", TEXT),
        ("application/openmetrics-text;version=1.0.0.<script>", TEXT),
        ("application/openmetrics-text;version=0.0.1", TEXT),
        ("application/openmetrics-text", OPEN),
        ("Application/OpenMetrics-Text; version=1.0.0", OPEN + "; escaping=underscores"),
        (
            # as Prometheus 3 sends it
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;"
            "version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,"
            "*/*;q=0.2",
            OPEN + "; escaping=allow-utf-8",
        ),
        (
            # as Prometheus 2 sends it
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
            "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            OPEN + "; escaping=underscores",
        ),
    ],
)
def test_the_accept_header_chooses_the_format(shared: LiveDaemon, accept: str, media_type: str) -> None:
    answer = shared.anonymous.get("/metrics", headers={"Accept": accept})
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, media_type)
    parse = parse_openmetrics if media_type.startswith(OPEN) else parse_text
    assert {"daemon_sessions", "daemon_http_requests"} <= {family.name for family in parse(answer.text)}
    assert answer.text.endswith("# EOF\n") == media_type.startswith(OPEN)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["application/openmetrics-text", "text/plain", "*/*", ";", ",", "=", "version",
    "escaping", "1.0.0", "1", ".", "é", '"', "q=0", " "])).map(lambda parts: "".join(parts).strip()))  # fmt: skip
def test_no_accept_header_makes_it_fail(shared: LiveDaemon, accept: str) -> None:
    answer = shared.anonymous.get("/metrics", headers={"Accept": accept.encode("latin-1")})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].split(";")[0] in {"text/plain", "application/openmetrics-text"}


def test_every_metric_says_what_it_is_and_is_named_by_its_unit(shared: LiveDaemon) -> None:
    client = shared.agent(shared.new_session()["token"])
    assert client.get("/v1/session").status_code == 200
    shared.time.advance(1)
    text = shared.anonymous.get("/metrics").text
    helped = re.findall(r"^# HELP (\S+) (\S.+)$", text, re.MULTILINE)
    typed = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    assert [name for name, _ in helped] == list(typed)
    assert {family.name: family.kind for family in FAMILIES} == {
        name: kind for name, kind in typed.items() if name.startswith("daemon_")
    }
    for name, kind in typed.items():
        assert name.startswith(("daemon_", "process_"))
        assert name.endswith("_total") == (kind == "counter")
        assert not re.search(r"_(ms|milliseconds|minutes|kb|mb|kib|mib)\b", name)
    found = Scrape(parse_text(text))
    for family in FAMILIES:
        name = f"{family.name}_count" if family.kind == "histogram" else family.name
        assert {frozenset(key for key, _ in labels) for known, labels in found.samples if known == name} == {
            frozenset(family.labels)
        }, name


@pytest.mark.skipif(sys.platform != "linux", reason="the library reads /proc")
def test_it_tells_what_the_process_takes(shared: LiveDaemon) -> None:
    found = scrape(shared)
    assert found("process_resident_memory_bytes") > 10 << 20
    assert found("process_cpu_seconds_total") > 0
    assert 3 < found("process_open_fds") < found("process_max_fds")


def test_the_readme_names_every_metric(shared: LiveDaemon) -> None:
    found = scrape(shared)
    names = {name.removesuffix("_total") for name in re.findall(r"`((?:daemon|process)_\w+)`", README.read_text())}
    assert found.families.keys() <= names
