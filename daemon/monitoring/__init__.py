"""Files for whoever watches the daemon: a dashboard for Grafana, and alert rules for Prometheus."""

from pathlib import Path

DASHBOARD = Path(__file__).with_name("dashboard.json")
RULES = Path(__file__).with_name("rules.yml")
