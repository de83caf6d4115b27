"""Facts about the owner, the kill switch and the daemon itself."""

from typing import ClassVar

from daemon.domain.events import Fact, Severity


class MasterAuthFailed(Fact, frozen=True, kw_only=True):
    """A wrong master password was sent."""

    type: ClassVar[str] = "MASTER_AUTH_FAILED"
    severity: ClassVar[Severity] = "warning"
    failures: int


class MasterAuthLocked(Fact, frozen=True, kw_only=True):
    """Owner routes are locked after too many wrong passwords."""

    type: ClassVar[str] = "MASTER_AUTH_LOCKED"
    severity: ClassVar[Severity] = "critical"
    seconds: int


class PasswordChanged(Fact, frozen=True, kw_only=True):
    """The master password was set or changed."""

    type: ClassVar[str] = "PASSWORD_CHANGED"
    initial: bool


class OwnerLogin(Fact, frozen=True, kw_only=True):
    """An owner ticket was issued."""

    type: ClassVar[str] = "OWNER_LOGIN"
    expires_at: int


class SecretRotated(Fact, frozen=True, kw_only=True):
    """The signing secret was replaced."""

    type: ClassVar[str] = "SECRET_ROTATED"
    previous_expires_at: int
    sessions_revoked: int


class KillSwitchActivated(Fact, frozen=True, kw_only=True):
    """Everything was stopped."""

    type: ClassVar[str] = "KILL_SWITCH_ACTIVATED"
    severity: ClassVar[Severity] = "critical"
    reason: str
    sessions_revoked: int
    agents_suspended: int


class KillSwitchRecovering(Fact, frozen=True, kw_only=True):
    """The owner asked for recovery, and has to wait for it."""

    type: ClassVar[str] = "KILL_SWITCH_RECOVERING"
    severity: ClassVar[Severity] = "warning"
    recovery_eligible_at: int


class KillSwitchRecovered(Fact, frozen=True, kw_only=True):
    """The kill switch is off again."""

    type: ClassVar[str] = "KILL_SWITCH_RECOVERED"
    severity: ClassVar[Severity] = "warning"
    agents_reactivated: int


class ConfigReloaded(Fact, frozen=True, kw_only=True):
    """The configuration was read again."""

    type: ClassVar[str] = "CONFIG_RELOADED"
    applied: tuple[str, ...]
    ignored: tuple[str, ...]


class BackupCreated(Fact, frozen=True, kw_only=True):
    """A copy of the database was made; `path` is the name of its file."""

    type: ClassVar[str] = "BACKUP_CREATED"
    path: str
    size_bytes: int
    sha256: str


class BackupRestored(Fact, frozen=True, kw_only=True):
    """A backup took the place of the database; `replacedSeq` and `replacedHash` are the head that it replaced."""

    type: ClassVar[str] = "BACKUP_RESTORED"
    severity: ClassVar[Severity] = "warning"
    backup_sha256: str
    replaced_seq: int | None
    replaced_hash: str | None
    sessions_revoked: int
    verifiers_revoked: int


class AuditArchived(Fact, frozen=True, kw_only=True):
    """The oldest events were moved to a file; the log now begins after `throughSeq`."""

    type: ClassVar[str] = "AUDIT_ARCHIVED"
    events: int
    through_seq: int
    through_hash: str
    file: str
    sha256: str


class DaemonStarted(Fact, frozen=True, kw_only=True):
    """The daemon started."""

    type: ClassVar[str] = "DAEMON_STARTED"
    version: str
    pid: int


class DaemonStopped(Fact, frozen=True, kw_only=True):
    """The daemon stopped in good order."""

    type: ClassVar[str] = "DAEMON_STOPPED"
    uptime: int
