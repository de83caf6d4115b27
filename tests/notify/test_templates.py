"""Templates: what the owner reads, word for word, in both locales."""

from typing import Any

import pytest

from daemon.domain.channels import TelegramConfig
from daemon.domain.notifications import EVENTS, Notice, Outcome
from daemon.notify import catalogue, telegram
from daemon.notify.catalogue import LOCALES, TEMPLATES, Locale
from daemon.notify.templates import button_label, outcome_text, render
from tests.notify.notices import RENEWED, WHEN, notice
from tests.support.services.markdown_v2 import parse

CONFIG = TelegramConfig(bot_token="1:TEST", chat_id="1")
REJECTED = {"sessionId": "s-1", "agentName": "bot", "renewalCount": 3, "rejectedAt": WHEN}
SUMMARY = dict.fromkeys(
    ("activeSessions", "created", "renewed", "rejected", "revoked", "expired", "warnings", "criticals"), 2
)
REPORT = {"referenceId": "tx-1", "title": "Swap", "details": {"to": "alice", "amount": 3}}
CONTEXTS: dict[str, dict[str, Any]] = {
    "TEST": {"channel": "phone"},
    "SESSION_CREATED": {
        "expiresAt": WHEN,
        "absoluteExpiresAt": WHEN,
        "maxRenewals": 30,
        "createdBy": "owner",
    },
    "SESSION_REVOKED": {"reason": "owner"},
    "SESSION_RENEWED": RENEWED,
    "SESSION_EXPIRED": {"expiredAt": WHEN, "reason": "idle"},
    "DAILY_SUMMARY": {"date": "2027-01-15", **SUMMARY},
    **dict.fromkeys((event for event in EVENTS if event.startswith("TX_")), REPORT),
    "AGENT_REPORT": REPORT,
    "SESSION_RENEWAL_REJECTED": REJECTED,
    "SESSION_EXPIRING_SOON": {"expiresAt": WHEN, "absoluteExpiresAt": WHEN, "remainingRenewals": 2},
    "SESSION_ERROR": {"reason": "crashed"},
    "SESSION_SUSPENDED": {"reason": "budget"},
    "BUDGET_WARNING": {"budget": "maxTokens", "used": 80, "limit": 100},
    "KILL_SWITCH_RECOVERING": {"recoveryEligibleAt": 1_800_000_000},
    "KILL_SWITCH_RECOVERED": {"agentsReactivated": 2},
    "CONSTRAINT_VIOLATED": {"constraint": "allowedOperations", "operation": "sessions.renew", "count": 4},
    "OWNER_ANSWERED": {"channel": "phone", "answer": "reject", "who": "77"},
    "CHANNEL_UNREACHABLE": {"channel": "phone", "reason": "timed out"},
    "SECRET_ROTATED": {"sessionsRevoked": 2},
    "KILL_SWITCH_ACTIVATED": {"reason": "stolen", "sessionsRevoked": 2, "agentsSuspended": 1},
    "AUTO_STOP_TRIGGERED": {"minutes": 5, "threshold": 5},
    "MASTER_AUTH_LOCKED": {"seconds": 1800},
    "TOKEN_REUSED": {"generation": 3, "currentGeneration": 4, "action": "revoked"},
}
"""The fields that each event comes with."""

KO_RENEWED = """🔄 *세션 갱신*
에이전트: bot
갱신 횟수: 3/30
남은 수명: 27d 12h
거부 가능 시한: 2027-01-15 08:00 UTC
세션: s-1"""
KO_REJECTED = """⛔ *세션 갱신 거부*
에이전트: bot
갱신 횟수: 3
거부 시각: 2027-01-15 08:00 UTC
세션: s-1"""
EN_RENEWED = """🔄 *Session renewed*
Agent: bot
Renewals: 3/30
Remaining life: 27d 12h
Can be rejected until: 2027-01-15 08:00 UTC
Session: s-1"""
EN_REJECTED = """⛔ *Session renewal rejected*
Agent: bot
Renewals: 3
Rejected at: 2027-01-15 08:00 UTC
Session: s-1"""


def lines(event: str, locale: Locale, **context: Any) -> list[tuple[str, str]]:
    return render(notice(event, **context), locale).lines


@pytest.mark.parametrize(
    ("event", "locale", "expected"),
    [
        ("SESSION_RENEWED", "ko", KO_RENEWED),
        ("SESSION_RENEWAL_REJECTED", "ko", KO_REJECTED),
        ("SESSION_RENEWED", "en", EN_RENEWED),
        ("SESSION_RENEWAL_REJECTED", "en", EN_REJECTED),
    ],
)
def test_renewals_and_rejections_read_word_for_word(event: str, locale: Locale, expected: str) -> None:
    parsed = parse(telegram.message(CONFIG, notice(event, **CONTEXTS[event]), locale)["text"])
    [title] = parsed.entities
    begin = len(parsed.plain.partition(" ")[0]) + 1
    end = parsed.plain.index("\n")
    assert (title.kind, title.length_utf16) == ("bold", end - begin)
    assert f"{parsed.plain[:begin]}*{parsed.plain[begin:end]}*{parsed.plain[end:]}" == expected


def test_every_event_and_the_test_message_have_a_template_and_no_other_has() -> None:
    assert set(TEMPLATES) == {*EVENTS, "TEST"} == set(CONTEXTS)


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("event", TEMPLATES)
def test_every_field_of_an_event_is_shown_in_both_locales(event: str, locale: Locale) -> None:
    context = {"agentName": "bot", "sessionId": "s-1", **CONTEXTS[event]}
    shown = render(notice(event, **context), locale)
    assert shown.title
    assert shown.emoji
    assert len(shown.lines) == len(TEMPLATES[event].lines) + 2
    assert all(label and value for label, value in shown.lines)
    assert (shown.lines[0][1], shown.lines[-1][1]) == ("bot", "s-1")


def test_no_words_are_missing_or_left_untranslated() -> None:
    words = [template.title for template in TEMPLATES.values()]
    words += [line.label for template in TEMPLATES.values() for line in template.lines]
    words += [catalogue.AGENT, catalogue.SESSION, catalogue.REJECT_PAGE, catalogue.REJECT_URL]
    words += [*catalogue.BUTTONS.values(), *catalogue.OUTCOMES.values(), *catalogue.ALREADY.values()]
    words += catalogue.CODES.values()
    assert all(one.en.isascii() or one.en[0] > "\u2000" for one in words)
    assert all(any("가" <= char <= "힣" for char in one.ko) for one in words)


def test_what_is_not_known_has_no_line() -> None:
    assert lines("SESSION_REVOKED", "en", agentId="a-1", reason=None) == [("Agent", "a-1")]
    assert lines("BUDGET_WARNING", "en", used=1) == []
    assert lines("AGENT_REPORT", "en", agentId="a-1", agentName="\u3164\u200b") == [("Agent", "a-1")]


def test_details_are_one_line_of_json() -> None:
    found = dict(lines("AGENT_REPORT", "en", details={"to": "a\nSession: s-2", "n": [1, None]}))
    assert found == {"Details": '{"to":"a\\nSession: s-2","n":[1,null]}'}


def test_an_outcome_says_what_happened_in_the_owners_words() -> None:
    assert outcome_text("rejected", "en", "reject") == "⛔ Rejected by the owner: the session is revoked"
    assert outcome_text("already_done", "en", "suspend_agent") == "The agent is suspended already"
    assert outcome_text("already_done", "en") == "Already done"
    assert outcome_text("not_allowed", "ko", "reject") == "허용되지 않습니다"
    assert set(catalogue.OUTCOMES) == set(Outcome.__args__)  # type: ignore[attr-defined]


def test_buttons_are_labelled_in_both_locales() -> None:
    actions = list(catalogue.BUTTONS)
    assert [button_label(one, "en") for one in actions] == ["Keep", "Reject", "Suspend agent", "Kill switch"]
    assert [button_label(one, "ko") for one in actions] == ["유지", "거부", "에이전트 정지", "킬 스위치"]


def test_a_notice_shows_nothing_of_its_content_in_its_repr() -> None:
    assert repr(Notice(id="1", event="TEST", level="INFO", at=1, context={"a": 1})) == "Notice(1)"


@pytest.mark.parametrize(
    ("event", "context", "en", "ko"),
    [
        ("SESSION_EXPIRED", {"reason": "ttl", "expiredAt": 0}, "its time was up", "유효 기간 만료"),
        ("SESSION_REVOKED", {"reason": "ended_by_agent"}, "ended by the agent", "에이전트가 종료"),
        ("SESSION_REVOKED", {"reason": "process_exited"}, "its process has ended", "프로세스 종료"),
        ("SESSION_ERROR", {"reason": "memory"}, "it took too much memory", "메모리 한도 초과"),
        ("SESSION_SUSPENDED", {"reason": "budget"}, "its budget is used up", "예산 소진"),
        ("BUDGET_WARNING", {"budget": "maxCostUsd", "used": 0.8, "limit": 1.0}, "cost in USD", "비용(USD)"),
        ("KILL_SWITCH_ACTIVATED", {"reason": "it went mad"}, "it went mad", "it went mad"),
    ],
)
def test_a_code_is_told_in_words(event: str, context: dict[str, Any], en: str, ko: str) -> None:
    for locale, words in (("en", en), ("ko", ko)):
        shown = render(notice(event, **context), locale)  # type: ignore[arg-type]
        assert words in [value for _, value in shown.lines]
