"""Rendering: from a notice to a title and lines of plain text, which each sender escapes in its own way."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from string import Formatter
from typing import Any, NamedTuple

import msgspec

from daemon.domain.notifications import TIMES, Action, Notice, Outcome
from daemon.notify.catalogue import AGENT, ALREADY, BUTTONS, CODES, OUTCOMES, SESSION, TEMPLATES, Locale
from daemon.notify.cutting import Size, fit
from daemon.notify.text import neutralise

_LONGEST = 4096
"""Characters of a value that any channel could show."""


class Rendered(NamedTuple):
    """A message in plain text that no client makes links of.

    Args:
        emoji, tag: the event's sign, and its name in ntfy.
        title: a few words.
        lines: (label, value).
    """

    emoji: str
    tag: str
    title: str
    lines: list[tuple[str, str]]

    def fitted(self, budget: int, size: Size) -> "Rendered":
        """Return the message with values cut, the longest first, so that the lines keep within a budget.

        Args:
            budget: for labels, values and what is between them, in units of `size`.
            size: measures text as the channel counts it.
        """
        room = budget - sum(size(f"{label}: \n") for label, _ in self.lines)
        values = fit([value for _, value in self.lines], room, size)
        return self._replace(lines=[(label, value) for (label, _), value in zip(self.lines, values, strict=True)])

    def text(self, escape: Callable[[str], str] = str) -> str:
        """Return the lines as text.

        Args:
            escape: makes plain text show as it is.
        """
        return "\n".join(escape(f"{label}: {value}") for label, value in self.lines)


def render(notice: Notice, locale: Locale) -> Rendered:
    """Return what a message says: the agent first, the session last, and no line for what is not known."""
    template = TEMPLATES[notice.event]
    context = {**notice.context, **_meanings(notice.context, locale)}
    agent = _shown("{agentName}", context) or _shown("{agentId}", context)
    lines = [
        (AGENT.in_(locale), agent),
        *((line.label.in_(locale), _shown(line.value, context)) for line in template.lines),
        (SESSION.in_(locale), _shown("{sessionId}", context)),
    ]
    known = [(label, value) for label, value in lines if value]
    return Rendered(template.emoji, template.tag, template.title.in_(locale), known)


def _meanings(context: Mapping[str, Any], locale: Locale) -> dict[str, str]:
    """Return in words what codes in the context mean."""
    found = {name: CODES.get(str(context.get(name))) for name in ("reason", "action", "budget")}
    return {name: words.in_(locale) for name, words in found.items() if words is not None}


def outcome_text(outcome: Outcome, locale: Locale, action: Action | None = None) -> str:
    """Return what is shown where a button was pressed.

    Args:
        outcome: what came of it.
        locale: of the words.
        action: what the button asked for, where it is known.
    """
    if outcome == "already_done" and action is not None:
        return ALREADY[action].in_(locale)
    return OUTCOMES[outcome].in_(locale)


def button_label(action: Action, locale: Locale) -> str:
    """Return what a button says."""
    return BUTTONS[action].in_(locale)


def _shown(pattern: str, context: Mapping[str, Any]) -> str:
    """Return a line's value, or nothing if one of its fields is absent."""
    fields = [name for _, name, _, _ in Formatter().parse(pattern) if name]
    if any(context.get(name) is None for name in fields):
        return ""
    # The whole is neutralised, not its parts: `/` between two harmless values may begin a command.
    return neutralise(pattern.format(**{name: _plain(name, context[name]) for name in fields}))


def _plain(name: str, value: Any) -> str:
    if name in TIMES and isinstance(value, int):
        return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M UTC")
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text[:_LONGEST]
