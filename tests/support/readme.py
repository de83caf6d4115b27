"""What is generated in the README: `python -m tests.support.readme` writes it anew."""

import re
from functools import partial
from pathlib import Path

from daemon import config, log_events
from daemon.client.errors import REMEDIES, ClientError, NotRenewable, OutcomeUnknown, Problem, refusal
from daemon.domain.clock import DomainClock
from daemon.domain.errors import CATALOGUE
from daemon.domain.facts import kinds
from daemon.domain.levels import LEVELS
from daemon.domain.notifications import EVENTS, actions_of
from daemon.mcp.problems import LOCAL
from daemon.mcp.tools import TOOLS, schema
from daemon.notify.catalogue import BUTTONS
from daemon.web import families
from daemon.web.application import make_app
from daemon.web.middleware.rate import SessionRates
from daemon.web.openapi import build
from daemon.web.problems import STATUS

README = Path(__file__).resolve().parents[2] / "README.md"


def errors() -> str:
    """Return the error catalogue as a table."""
    rows = ["| HTTP | code | retryable | means | hint |", "|---|---|---|---|---|"]
    for kind in sorted(CATALOGUE, key=lambda kind: STATUS[kind]):
        retryable = "yes" if kind.retryable else ""
        rows.append(f"| {STATUS[kind]} | `{kind.code}` | {retryable} | {kind.title} | {kind.hint} |")
    return "\n".join(rows) + "\n"


def routes() -> str:
    """Return the routes as a table."""
    paths = build(make_app(SessionRates(0, DomainClock(lambda: 0.0, lambda: 0.0)), metrics=True))["paths"]
    rows = ["| route | guarded by | what it does |", "|---|---|---|"]
    guards = {
        "public": "–",
        "owner": "owner",
        "link": "the link's token",
        "agent": "session token",
        "either": "owner, or this session's own token",
        "verifier": "verifier credential",
    }
    for path, methods in paths.items():
        for method, operation in methods.items():
            guard = guards[operation["tags"][0]]
            rows.append(f"| `{method.upper()} {path}` | {guard} | {operation['summary']} |")
    return "\n".join(rows) + "\n"


def notifications() -> str:
    """Return what the owner is told, the most urgent first, as a table."""
    facts = {kind.type: kind for kind in kinds()}
    rows = ["| event | level | when | buttons |", "|---|---|---|---|"]
    for level in reversed(LEVELS):
        for name in (event for event in EVENTS if EVENTS[event] == level and event in facts):
            when = (facts[name].__doc__ or "").partition("\n")[0]
            buttons = ", ".join(BUTTONS[action].en for action in actions_of(name, "an agent"))
            rows.append(f"| `{name}` | {level} | {when} | {buttons} |")
    return "\n".join(rows) + "\n"


def tools() -> str:
    """Return the tools of the MCP server as a table: the first sentence of what each tells a model."""
    rows = ["| tool | arguments | what it does |", "|---|---|---|"]
    for tool in TOOLS:
        takes = schema(tool.takes)
        names = (f"`{name}{'' if name in takes.get('required', ()) else '?'}`" for name in takes["properties"])
        rows.append(f"| `{tool.name}` | {' '.join(names) or '–'} | {tool.description.partition('. ')[0].rstrip('.')} |")
    return "\n".join(rows) + "\n"


def tool_errors() -> str:
    """Return the errors of the MCP server's own as a table."""
    rows = ["| code | retryable | means | hint |", "|---|---|---|---|"]
    for kind in LOCAL.values():
        rows.append(f"| `{kind.code}` | {'yes' if kind.retryable else ''} | {kind.title} | {kind.hint} |")
    return "\n".join(rows) + "\n"


def client() -> str:
    """Return the client's errors, and the codes that each stands for, as a table."""
    rows = ["| `daemon.client` raises | what you can do | codes |", "|---|---|---|"]
    codes: dict[type[ClientError], list[str]] = {
        error: [] for error in (*REMEDIES, *ClientError.__subclasses__(), NotRenewable, OutcomeUnknown)
    }
    for code in dict.fromkeys(kind.code for kind in CATALOGUE):
        codes[type(refusal(Problem(code=code, status=0, detail="")))].append(f"`{code}`")
    for error, stand_for_it in codes.items():
        meant = (error.__doc__ or "").partition("\n")[0]
        rows.append(f"| `{error.__name__}` | {meant} | {', '.join(stand_for_it)} |")
    return "\n".join(rows) + "\n"


TABLES = {
    "tools": tools,
    "tool-errors": tool_errors,
    "client": client,
    "notifications": notifications,
    "routes": routes,
    "errors": errors,
    "config": config.table,
    "log": log_events.table,
    "metrics": families.table,
}


def contents(text: str) -> str:
    """Return links to the sections of a README, as GitHub names their places."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    titles = [title for title in re.findall(r"^## (.+)$", prose, re.MULTILINE) if title != "Licence"]
    return " ·\n".join(f"[{title}](#{re.sub(r'[^a-z0-9 -]', '', title.lower()).replace(' ', '-')})" for title in titles)


def rewritten(text: str) -> str:
    """Return a README with everything that is generated made anew."""
    for name, make in {**TABLES, "contents": partial(contents, text)}.items():
        assert f"<!-- {name}:begin -->" in text, f"the README has no place for {name}"
        head, _, rest = text.partition(f"<!-- {name}:begin -->\n")
        _, _, tail = rest.partition(f"<!-- {name}:end -->")
        text = f"{head}<!-- {name}:begin -->\n{make().strip()}\n<!-- {name}:end -->{tail}"
    return text


if __name__ == "__main__":
    README.write_text(rewritten(README.read_text()))
