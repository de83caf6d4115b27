"""What a message about each event says, in every locale: the only place with words for the owner's channels."""

from typing import Literal, NamedTuple, get_args

from daemon.domain.notifications import Action, Outcome

Locale = Literal["en", "ko"]
LOCALES: tuple[Locale, ...] = get_args(Locale)


class Words(NamedTuple):
    """The same in every locale."""

    en: str
    ko: str

    def in_(self, locale: Locale) -> str:
        """Return the words of one locale."""
        return self.ko if locale == "ko" else self.en


class Line(NamedTuple):
    """One line of a message: a label, and a format over the context's fields; without one of them it is left out."""

    label: Words
    value: str


class Template(NamedTuple):
    """A message about one event.

    Args:
        emoji: stands before the title.
        tag: the emoji's name in ntfy.
        title: a few words.
        lines: between the agent's line and the session's.
    """

    emoji: str
    tag: str
    title: Words
    lines: tuple[Line, ...] = ()


def _line(en: str, ko: str, value: str) -> Line:
    return Line(Words(en, ko), value)


AGENT = Words("Agent", "에이전트")
SESSION = Words("Session", "세션")
REJECT_PAGE = Words("Open the reject page", "거부 페이지 열기")
REJECT_URL = Words("Reject", "거부")

_REASON = _line("Reason", "사유", "{reason}")
_EXPIRES = _line("Expires", "만료 시각", "{expiresAt}")
_LAST = _line("Ends for good", "최종 만료", "{absoluteExpiresAt}")
_CHANNEL = _line("Channel", "채널", "{channel}")
_REPORT = (
    _line("Reference", "참조", "{referenceId}"),
    _line("Subject", "제목", "{title}"),
    _line("Details", "상세", "{details}"),
)

TEMPLATES: dict[str, Template] = {
    "TEST": Template("🔔", "bell", Words("Test message", "시험 메시지"), (_CHANNEL,)),
    "SESSION_CREATED": Template(
        "🆕",
        "new",
        Words("Session created", "세션 생성"),
        (
            _EXPIRES,
            _LAST,
            _line("Renewals allowed", "최대 갱신 횟수", "{maxRenewals}"),
            _line("Created by", "생성 주체", "{createdBy}"),
        ),
    ),
    "SESSION_REVOKED": Template("🗑️", "wastebasket", Words("Session revoked", "세션 폐기"), (_REASON,)),
    "SESSION_RENEWED": Template(
        "🔄",
        "arrows_counterclockwise",
        Words("Session renewed", "세션 갱신"),
        (
            _line("Renewals", "갱신 횟수", "{renewalCount}/{maxRenewals}"),
            _line("Remaining life", "남은 수명", "{remainingAbsoluteLife}"),
            _line("Can be rejected until", "거부 가능 시한", "{rejectWindowExpiry}"),
        ),
    ),
    "SESSION_RENEWAL_REJECTED": Template(
        "⛔",
        "no_entry",
        Words("Session renewal rejected", "세션 갱신 거부"),
        (_line("Renewals", "갱신 횟수", "{renewalCount}"), _line("Rejected at", "거부 시각", "{rejectedAt}")),
    ),
    "SESSION_EXPIRED": Template(
        "⌛",
        "hourglass",
        Words("Session expired", "세션 만료"),
        (_line("Expired at", "만료 시각", "{expiredAt}"), _REASON),
    ),
    "SECRET_ROTATED": Template(
        "🔑",
        "key",
        Words("Signing secret replaced", "서명 키 교체"),
        (_line("Sessions revoked", "폐기된 세션", "{sessionsRevoked}"),),
    ),
    "SESSION_EXPIRING_SOON": Template(
        "⏳",
        "hourglass_flowing_sand",
        Words("Session expires soon", "세션 만료 임박"),
        (_EXPIRES, _LAST, _line("Renewals left", "남은 갱신 횟수", "{remainingRenewals}")),
    ),
    "SESSION_ERROR": Template("⚠️", "warning", Words("Session error", "세션 오류"), (_REASON,)),
    "SESSION_SUSPENDED": Template("⏸️", "pause_button", Words("Session suspended", "세션 일시 중지"), (_REASON,)),
    "DAILY_SUMMARY": Template(
        "📊",
        "bar_chart",
        Words("Daily summary", "일일 요약"),
        (
            _line("Date", "날짜", "{date}"),
            _line("Active sessions", "활성 세션", "{activeSessions}"),
            _line("Created", "생성", "{created}"),
            _line("Renewed", "갱신", "{renewed}"),
            _line("Rejected", "거부", "{rejected}"),
            _line("Revoked", "폐기", "{revoked}"),
            _line("Expired", "만료", "{expired}"),
            _line("Warnings", "경고", "{warnings}"),
            _line("Critical events", "심각한 사건", "{criticals}"),
        ),
    ),
    "TX_NOTIFY": Template("💸", "money_with_wings", Words("Transaction", "거래 알림"), _REPORT),
    "TX_DELAY_QUEUED": Template("⏱️", "stopwatch", Words("Transaction delayed", "거래 지연 대기"), _REPORT),
    "TX_DELAY_EXECUTED": Template(
        "💸", "money_with_wings", Words("Delayed transaction executed", "지연 거래 실행"), _REPORT
    ),
    "TX_CONFIRMED": Template("✅", "white_check_mark", Words("Transaction confirmed", "거래 확정"), _REPORT),
    "TX_APPROVAL_REQUEST": Template("🙋", "raising_hand", Words("Approval asked", "거래 승인 요청"), _REPORT),
    "TX_APPROVAL_EXPIRED": Template("⌛", "hourglass", Words("Approval expired", "거래 승인 만료"), _REPORT),
    "TX_FAILED": Template("❌", "x", Words("Transaction failed", "거래 실패"), _REPORT),
    "AGENT_REPORT": Template("📝", "memo", Words("Report of an agent", "에이전트 보고"), _REPORT),
    "BUDGET_WARNING": Template(
        "📈",
        "chart_with_upwards_trend",
        Words("Budget nearly used up", "예산 경고"),
        (_line("Budget", "예산", "{budget}"), _line("Used", "사용량", "{used}/{limit}")),
    ),
    "CONSTRAINT_VIOLATED": Template(
        "🚫",
        "no_entry_sign",
        Words("Constraint violated", "제약 위반"),
        (
            _line("Constraint", "제약", "{constraint}"),
            _line("Operation", "작업", "{operation}"),
            _line("Attempts", "시도 횟수", "{count}"),
        ),
    ),
    "OWNER_ANSWERED": Template(
        "👤",
        "bust_in_silhouette",
        Words("Somebody else tried to answer", "허용되지 않은 응답"),
        (_CHANNEL, _line("Who", "응답자", "{who}"), _line("Answer", "응답", "{answer}")),
    ),
    "CHANNEL_UNREACHABLE": Template(
        "📡", "satellite", Words("Notification channel unreachable", "알림 채널 연결 불가"), (_CHANNEL, _REASON)
    ),
    "KILL_SWITCH_ACTIVATED": Template(
        "🛑",
        "stop_sign",
        Words("Kill switch activated", "킬 스위치 작동"),
        (
            _REASON,
            _line("Sessions revoked", "폐기된 세션", "{sessionsRevoked}"),
            _line("Agents suspended", "정지된 에이전트", "{agentsSuspended}"),
        ),
    ),
    "KILL_SWITCH_RECOVERING": Template(
        "🟡",
        "yellow_circle",
        Words("Recovery from the kill switch asked for", "킬 스위치 복구 요청"),
        (_line("Possible from", "복구 가능 시각", "{recoveryEligibleAt}"),),
    ),
    "KILL_SWITCH_RECOVERED": Template(
        "🟢",
        "green_circle",
        Words("Kill switch released", "킬 스위치 해제"),
        (_line("Agents reactivated", "재활성화된 에이전트", "{agentsReactivated}"),),
    ),
    "AUTO_STOP_TRIGGERED": Template(
        "🛑",
        "stop_sign",
        Words("Agent stopped automatically", "에이전트 자동 정지"),
        (_line("Minutes with violations", "위반이 있었던 분", "{minutes}/{threshold}"),),
    ),
    "MASTER_AUTH_LOCKED": Template(
        "🔒",
        "lock",
        Words("Owner access locked", "소유자 인증 잠금"),
        (_line("Seconds", "잠금 시간(초)", "{seconds}"),),
    ),
    "TOKEN_REUSED": Template(
        "🚨",
        "rotating_light",
        Words("A replaced token was used", "교체된 토큰 재사용"),
        (
            _line("Generation", "세대", "{generation}"),
            _line("Current generation", "현재 세대", "{currentGeneration}"),
            _line("Action", "조치", "{action}"),
        ),
    ),
}

CODES: dict[str, Words] = {
    "ttl": Words("its time was up", "유효 기간 만료"),
    "idle": Words("it was idle for too long", "장시간 미사용"),
    "manual_revoke": Words("revoked by the owner", "소유자가 폐기"),
    "ended_by_agent": Words("ended by the agent", "에이전트가 종료"),
    "token_reused": Words("a replaced token was used", "교체된 토큰 사용"),
    "process_exited": Words("its process has ended", "프로세스 종료"),
    "duration": Words("it ran for as long as it may", "최대 실행 시간 초과"),
    "crashed": Words("its process failed", "프로세스 오류"),
    "lost": Words("its process is gone, and nobody saw why", "프로세스가 사라짐"),
    "spawn": Words("its process could not be started", "프로세스를 시작할 수 없음"),
    "sealed": Words("the key of its secrets is missing", "비밀 값의 키 없음"),
    "memory": Words("it took too much memory", "메모리 한도 초과"),
    "cpu": Words("it took too much processor time", "프로세서 한도 초과"),
    "processes": Words("it started too many processes", "프로세스 수 한도 초과"),
    "budget": Words("its budget is used up", "예산 소진"),
    "output": Words("it writes more than can be kept", "출력 한도 초과"),
    "maxCostUsd": Words("cost in USD", "비용(USD)"),
    "maxTokens": Words("tokens", "토큰"),
    "revoke": Words("the session was revoked", "세션 폐기"),
    "notify": Words("told only", "알림만"),
}
"""What the codes mean that `reason`, `action` and `budget` may have; other reasons are somebody's own words."""

BUTTONS: dict[Action, Words] = {
    "keep": Words("Keep", "유지"),
    "reject": Words("Reject", "거부"),
    "suspend_agent": Words("Suspend agent", "에이전트 정지"),
    "kill_switch": Words("Kill switch", "킬 스위치"),
}

OUTCOMES: dict[Outcome, Words] = {
    "kept": Words("✅ Kept by the owner: the session goes on", "✅ 소유자가 유지함: 세션이 계속됩니다"),
    "rejected": Words("⛔ Rejected by the owner: the session is revoked", "⛔ 소유자가 거부함: 세션이 폐기되었습니다"),
    "agent_suspended": Words("⏸️ The owner suspended the agent", "⏸️ 소유자가 에이전트를 정지했습니다"),
    "kill_switch_activated": Words("🛑 The owner activated the kill switch", "🛑 소유자가 킬 스위치를 작동했습니다"),
    "already_done": Words("Already done", "이미 처리되었습니다"),
    "already_answered": Words("Already answered", "이미 응답했습니다"),
    "not_allowed": Words("Not allowed", "허용되지 않습니다"),
    "unknown": Words("This button no longer works", "더 이상 유효하지 않은 버튼입니다"),
}

ALREADY: dict[Action, Words] = {
    "keep": Words("The session has ended already", "세션이 이미 끝났습니다"),
    "reject": Words("The session has ended already", "세션이 이미 끝났습니다"),
    "suspend_agent": Words("The agent is suspended already", "에이전트가 이미 정지되어 있습니다"),
    "kill_switch": Words("The kill switch is active already", "킬 스위치가 이미 작동 중입니다"),
}
"""What `already_done` means for each answer."""
