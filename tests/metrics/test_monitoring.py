"""The dashboard and the alert rules: they ask for nothing that is not there, and the alerts fire when they should."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from daemon.cli.main import COMMANDS
from daemon.domain.facts import kinds
from daemon.domain.rows import AgentStatus
from daemon.domain.states import STATES
from daemon.log_events import OPERATIONAL
from daemon.monitoring import DASHBOARD, RULES
from daemon.web.families import FAMILIES, STATUSES
from tests.support.daemon_process import DaemonProcess, cli
from tests.support.live import LiveDaemon

BOARD: dict[str, Any] = json.loads(DASHBOARD.read_text())
ALERTS: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
]
EXPRESSIONS = [target["expr"] for panel in BOARD["panels"] for target in panel.get("targets", ())]
EXPRESSIONS += [annotation["expr"] for annotation in BOARD["annotations"]["list"]]
PARTS = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
LABELS = {f"{family.name}{part}": {*family.labels} for family in FAMILIES for part in PARTS[family.kind]}
OF_PROMETHEUS = {"up": set[str]()} | {
    f"process_{name}": set[str]()
    for name in ("cpu_seconds_total", "resident_memory_bytes", "open_fds", "max_fds", "start_time_seconds")
}
OF_TARGETS = {"job", "instance", "le"}
WORDS = {"by", "without", "or", "and", "unless", "on", "ignoring"}
VALUES: dict[str, set[str]] = {
    "type": {kind.type for kind in kinds()},
    "status": {*STATUSES, *get_args(AgentStatus)},
    "state": {*STATES},
    "code": {"500"},
}


def metrics_of(expression: str) -> dict[str, str]:
    """Return the metrics that an expression names, each with its matchers."""
    plain = re.sub(r"\b(by|without|on|ignoring) ?\([^)]*\)|\[[^]]*\]", " ", expression)
    found = re.findall(r"([a-zA-Z_:][\w:]*)\s*(\{[^}]*\})?(?!\w*\s*\()", plain)
    return {name: matchers for name, matchers in found if name not in WORDS and not re.search(rf"\b{name} ?\(", plain)}


def test_an_expression_is_taken_apart_rightly() -> None:
    expression = 'max by (x, y) (rate(a_total{b="c",job=~"d"}[5m])) / sum(e{f="g h"}) > 0.5 or absent(i) unless k'
    assert metrics_of(expression) == {"a_total": '{b="c",job=~"d"}', "e": '{f="g h"}', "i": "", "k": ""}


@pytest.mark.parametrize("expression", [*EXPRESSIONS, *(rule["expr"] for rule in ALERTS)])
def test_every_expression_asks_for_what_is_there(expression: str) -> None:
    known, grouped = LABELS | OF_PROMETHEUS, re.findall(r"\bby \(([^)]*)\)", expression)
    found = metrics_of(expression)
    assert found
    assert found.keys() <= known.keys()
    labels = {label for name in found for label in known[name]} | OF_TARGETS
    assert {label.strip() for names in grouped for label in names.split(",")} <= labels
    for name, matchers in found.items():
        for label, value in re.findall(r'(\w+)=~?"([^"]*)"', matchers):
            assert label in known[name] | OF_TARGETS
            if not value.startswith("$") and label in VALUES:
                assert {*value.split("|")} <= VALUES[label]


def test_a_rate_is_of_a_counter_and_a_quantile_of_a_histogram() -> None:
    counting = {name for name in LABELS | OF_PROMETHEUS if name.endswith(("_total", "_bucket", "_sum", "_count"))}
    for expression in (*EXPRESSIONS, *(rule["expr"] for rule in ALERTS)):
        assert {*re.findall(r"\b(?:rate|increase)\((\w+)", expression)} <= counting
        bare = {name for name in metrics_of(expression) if not re.search(rf"\b(rate|increase)\({name}\b", expression)}
        assert not bare & counting


def test_the_dashboard_shows_every_metric_and_no_panel_covers_another() -> None:
    shown = {name for expression in EXPRESSIONS for name in metrics_of(expression)}
    assert [f.name for f in FAMILIES if not shown & {f"{f.name}{part}" for part in PARTS[f.kind]}] == []
    places = [(panel["gridPos"], panel["title"]) for panel in BOARD["panels"]]
    cells = [
        (x, y) for at, _ in places for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(ids) == len(set(ids))
    for panel in BOARD["panels"]:
        refs = [target["refId"] for target in panel.get("targets", ())]
        assert len(refs) == len(set(refs))
        assert panel["type"] == "row" or refs


def test_every_alert_says_what_it_means_and_what_to_do() -> None:
    assert len({rule["alert"] for rule in ALERTS}) == len(ALERTS)
    for rule in ALERTS:
        assert rule["alert"].startswith("Daemon")
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert set(rule["annotations"]) == {"summary", "description"}
        for command in re.findall(r"`daemon ([^`]+)`", rule["annotations"]["description"]):
            words = command.split()
            assert words[0] in COMMANDS
            if words[0] == "events":
                assert words[2] in VALUES["type"]
            if words[:2] == ["logs", "--event"]:
                assert words[2] in OPERATIONAL


FIRING = {
    "DaemonDown": ("up{job='daemon'}", "1 0+0x60"),
    "DaemonKillSwitchOn": ("daemon_kill_switch_on", "0x9 1x60"),
    "DaemonTokenReused": ("daemon_events_total{type='TOKEN_REUSED'}", "0x50 1x20"),
    "DaemonOwnerLockedOut": ("daemon_events_total{type='MASTER_AUTH_LOCKED'}", "0x50 1x20"),
    "DaemonAgentStopped": ("daemon_events_total{type='AUTO_STOP_TRIGGERED'}", "0x50 1x20"),
    "DaemonDatabaseUnavailable": ("daemon_database_up", "1x50 0x20"),
    "DaemonCommitsFail": ("daemon_commit_failures_total", "0x55 3x20"),
    "DaemonCommitsSlow": ("daemon_commit_duration_seconds_bucket{le='0.5'}", "0+9x70"),
    "DaemonEventLoopLate": ("daemon_event_loop_lag_seconds_bucket{le='0.1'}", "0+9x70"),
    "DaemonInternalErrors": ("daemon_http_requests_total{code='500',route='/v1/agents'}", "0x50 1x20"),
    "DaemonWorkerFailing": ("daemon_worker_failing{worker='sweeper'}", "0x40 1x30"),
    "DaemonMessagesWait": ("daemon_outbox_oldest_age_seconds", "0+60x70"),
    "DaemonMessageLost": ("daemon_events_total{type='NOTIFICATION_FAILED'}", "0x50 1x20"),
    "DaemonProcessErrors": ("daemon_events_total{type='SESSION_ERROR'}", "0x50 1x20"),
    "DaemonFilesRunOut": ("process_open_fds{job='daemon'}", "950x70"),
}
"""What makes each alert fire within an hour: a series, and its value minute by minute."""
WELL = {
    "up{job='daemon'}": "1x70",
    "daemon_kill_switch_on": "0x70",
    "daemon_database_up": "1x70",
    "daemon_commit_failures_total": "0x70",
    "daemon_outbox_oldest_age_seconds": "5x70",
    "daemon_worker_failing{worker='sweeper'}": "0x70",
    "process_max_fds{job='daemon'}": "1000x70",
    "process_open_fds{job='daemon'}": "30x70",
    **{
        f"{name}_bucket{{le='{bound}'}}": "0+10x70"
        for name, limit in (("daemon_commit_duration_seconds", "0.5"), ("daemon_event_loop_lag_seconds", "0.1"))
        for bound in (limit, "2.5", "+Inf")
    },
    "daemon_http_requests_total{code='200',route='/v1/agents'}": "0+100x70",
    **{f"daemon_events_total{{type='{kind}'}}": "0x70" for kind in ("TOKEN_REUSED", "SESSION_ERROR")},
}
"""A daemon that is well, of which no alert speaks."""


@pytest.fixture(scope="module")
def promtool() -> str:
    """The checker of Prometheus."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed (Debian has it in the package prometheus)")
    return found


def test_prometheus_takes_the_rules_and_each_alert_fires_when_it_should_and_only_then(
    promtool: str, tmp_path: Path
) -> None:
    assert FIRING.keys() == {rule["alert"] for rule in ALERTS}
    subprocess.run([promtool, "check", "rules", str(RULES)], check=True, capture_output=True, text=True)
    tests: list[dict[str, Any]] = []
    for alert in [None, *FIRING]:
        series = WELL | (dict([FIRING[alert]]) if alert else {})
        wanted = [{"eval_time": "60m", "alertname": rule["alert"]} for rule in ALERTS if rule["alert"] != alert]
        tests.append(
            {
                "name": alert or "well",
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "alert_rule_test": wanted,
                "promql_expr_test": [
                    {"expr": f"count(ALERTS{{alertname='{alert}',alertstate='firing'}})", "eval_time": "60m",
                     "exp_samples": [{"labels": "{}", "value": 1}]}
                ] if alert else [],
            }
        )  # fmt: skip
    (tmp_path / "test.yml").write_text(yaml.safe_dump({"rule_files": [str(RULES)], "tests": tests}))
    done = subprocess.run(
        [promtool, "test", "rules", str(tmp_path / "test.yml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


# --- the command


def test_the_command_prints_the_metrics_the_dashboard_and_the_rules(tmp_path: Path) -> None:
    daemon = DaemonProcess(tmp_path / "home", DAEMON_SERVER_METRICS="true")
    try:
        shown = cli(daemon.home, "metrics", DAEMON_MASTER_PASSWORD=None)
        assert (shown.code, shown.err) == (0, "")
        assert shown.out.startswith("# HELP daemon_build_info ")
        assert shown.out.endswith("\n")
        assert {line.split()[2] for line in shown.out.splitlines() if line.startswith("# TYPE daemon_")} == {
            family.name for family in FAMILIES
        }
    finally:
        daemon.kill9()
    for name, file in (("dashboard", DASHBOARD), ("rules", RULES)):
        printed = cli(tmp_path / "nowhere", "metrics", name)
        assert (printed.code, printed.out, printed.err) == (0, file.read_text(), "")
    stopped = cli(tmp_path / "nowhere", "metrics")
    assert (stopped.code, stopped.out) == (1, "")
    assert stopped.err.startswith("error: The daemon is not running in ")
    wrong = cli(tmp_path / "nowhere", "metrics", "graphs")
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)


def test_where_metrics_are_off_the_command_says_how_they_are_switched_on(live: LiveDaemon) -> None:
    off = cli(live.root, "metrics")
    assert (off.code, off.out) == (1, "")
    assert "server.metrics = true" in off.err
    assert off.err.count("\n") == 1
