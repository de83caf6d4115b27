"""The pages behind a reject link: plain HTML that runs nothing and loads nothing."""

from datetime import UTC, datetime
from html import escape
from typing import Literal, NamedTuple

from daemon.domain.message_views import Rejectable
from daemon.domain.notifications import Outcome

Locale = Literal["en", "ko"]

HEADERS = {"content-security-policy": "default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"}
"""Of every page: no script, no style, no image, no frame; its one form goes back to where it came from."""


class _Words(NamedTuple):
    """Everything the pages say in one language."""

    title: str
    agent: str
    session: str
    renewals: str
    renewed: str
    until: str
    warning: str
    button: str
    done: str
    done_text: str
    gone: str
    gone_text: str


_WORDS: dict[Locale, _Words] = {
    "en": _Words(
        title="Reject this renewal?",
        agent="Agent",
        session="Session",
        renewals="Renewals",
        renewed="Renewed",
        until="Can be rejected until",
        warning="Rejecting ends the session at once. It cannot be undone.",
        button="Reject and end the session",
        done="Rejected",
        done_text="The session is revoked. The agent's next request is refused.",
        gone="This link no longer works",
        gone_text="It was used, its time is over, or the session has ended.",
    ),
    "ko": _Words(
        title="이 갱신을 거부할까요?",
        agent="에이전트",
        session="세션",
        renewals="갱신 횟수",
        renewed="갱신 시각",
        until="거부 가능 시한",
        warning="거부하면 세션이 바로 끝나며 되돌릴 수 없습니다.",
        button="거부하고 세션 끝내기",
        done="거부됨",
        done_text="세션이 폐기되었습니다. 에이전트의 다음 요청은 거절됩니다.",
        gone="더 이상 유효하지 않은 링크입니다",
        gone_text="이미 사용했거나 시한이 지났거나 세션이 끝났습니다.",
    ),
}


def ask(seen: Rejectable, locale: Locale) -> str:
    """Return the page that shows what would be rejected."""
    words = _WORDS[locale]
    rows = [
        (words.agent, seen.agent_name),
        (words.session, seen.session_id),
        (words.renewals, f"{seen.renewal_count}/{seen.max_renewals}"),
        (words.renewed, _time(seen.last_renewed_at or 0)),
        (words.until, _time(seen.reject_until)),
    ]
    shown = "".join(f"<tr><th scope=row>{escape(label)}</th><td>{escape(value)}</td></tr>" for label, value in rows)
    # The form goes to its own address, so that the token is in no page.
    form = f'<form method="post"><button type="submit">{escape(words.button)}</button></form>'
    return _page(words.title, f"<table>{shown}</table><p>{escape(words.warning)}</p>{form}", locale)


def answered(outcome: Outcome, locale: Locale) -> str:
    """Return the page after the button was pressed."""
    words = _WORDS[locale]
    if outcome == "rejected":
        return _page(words.done, f"<p>{escape(words.done_text)}</p>", locale)
    return gone(locale)


def gone(locale: Locale) -> str:
    """Return the page of a link that is unknown, used or dead: which of these is nobody's business."""
    words = _WORDS[locale]
    return _page(words.gone, f"<p>{escape(words.gone_text)}</p>", locale)


def _page(title: str, body: str, locale: Locale) -> str:
    return (
        f'<!doctype html><html lang="{locale}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="robots" content="noindex">'
        f"<title>{escape(title)}</title></head><body><main><h1>{escape(title)}</h1>{body}</main></body></html>\n"
    )


def _time(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M UTC")
