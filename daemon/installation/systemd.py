"""The daemon as a user service of systemd: systemd.service(5), systemd.exec(5), systemd.kill(5)."""

import os
import re
import shlex
from pathlib import Path

from daemon.installation.manager import Said, State, checked, reason, run
from daemon.installation.seal import PLACE, seal
from daemon.installation.service import NAME, Service, ServiceError

UNIT = f"{NAME}.service"
_PROC = Path("/proc")
_PLAIN = re.compile(r"[A-Za-z0-9_@+=:,./-]+")
_NOT_A_PROGRAM = frozenset("\"'\\")  # string_is_safe() of systemd refuses these in the path of what it executes

_TEXT = """\
# The daemon as a service of your own systemd. `daemon service uninstall` removes it. To change something, write a
# drop-in with `systemctl --user edit {name}`: a file that was edited here is replaced only with --force.
# {place}

[Unit]
Description=Session authority for the AI agents on this machine
# A start that fails is tried again for some minutes, e.g. until a database is there.
StartLimitIntervalSec=300
StartLimitBurst=20

[Service]
Type=notify
ExecStart=:{command}
ExecReload=kill -HUP $MAINPID
Environment={path}
# The daemon keeps its own log: daemon logs -f. Without this line it is in the journal, too.
StandardOutput=null

Restart=on-failure
RestartSec=3
# Another start would not help: invalid configuration, wrong password, a daemon that runs already.
RestartPreventExitStatus=2 4 5
# It tells that it lives only while its event loop turns and its database's writer works.
WatchdogSec=120
# Each step of the start and the stop asks for the time that it may take. This is for one that does not even ask.
TimeoutStartSec=60
TimeoutStopSec={stop_seconds}

# The processes of sessions outlive the daemon, whichever way it ends, and the next one finds them again. They have
# scopes of their own in app-agents.slice; where these cannot be made they are in groups below this service.
KillMode=process
Delegate=yes
OOMPolicy=continue

# Hardening. What runs for sessions inherits it, so all that agents need is allowed: the home directory, the network,
# executing what they find or build, namespaces for their own sandboxes (no RestrictNamespaces), code that is made at
# run time (no MemoryDenyWriteExecute: JavaScript does that), debuggers, and a /tmp that others see. ProtectHome,
# ProtectSystem and PrivateTmp are not here for that reason; UMask is not, since the daemon makes its own files private
# anyway. What is not allowed: to become anybody else (sudo does not work), and what no user's program should do.
NoNewPrivileges=yes
RestrictSUIDSGID=yes
RestrictRealtime=yes
LockPersonality=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=~@clock @cpu-emulation @module @obsolete @raw-io @reboot @swap
SystemCallErrorNumber=EPERM

[Install]
WantedBy=default.target
"""


class Systemd:
    """The systemd of one user."""

    kind = "systemd"
    service = UNIT
    restart_hint = f"systemctl --user restart {NAME}"

    def __init__(self, config_home: Path) -> None:
        self.file = config_home / "systemd" / "user" / UNIT

    def render(self, service: Service) -> str:
        """Return the unit."""
        program = checked(service.program[0], "The path of this program")
        if not _NOT_A_PROGRAM.isdisjoint(program):
            raise ServiceError(f"systemd runs no program with quotes or backslashes in its path: {program}", "move it")
        return seal(
            _TEXT.format(
                name=NAME,
                place=PLACE,
                command=" ".join(quoted(checked(word, "The path of the home")) for word in service.command),
                path=quoted(f"PATH={checked(service.path, 'PATH')}"),
                stop_seconds=service.stop_seconds,
            )
        )

    def read(self, text: str) -> Said:
        """Return what a unit of ours says."""
        lines = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
        command = [unquoted(word) for word in shlex.split(lines["ExecStart"].removeprefix(":"))]
        (variable,) = shlex.split(lines["Environment"])
        return Said(command, unquoted(variable).removeprefix("PATH="))

    def check(self) -> None:
        """Make sure that there is a systemd of this user, and that it reads units where we put ours."""
        found = _asked("show", "--property=UnitPath", "--value")
        if f" {self.file.parent} " not in f" {found} ":
            raise ServiceError(
                f"Your systemd does not look into {self.file.parent}", "its XDG_CONFIG_HOME is another one: unset yours"
            )

    def enable(self) -> None:
        """Let systemd read the unit, and start it with the user's session, or at boot if the user lingers."""
        _asked("daemon-reload")
        _asked("enable", UNIT)

    def start(self, *, anew: bool) -> None:
        """Start the unit and return when it serves."""
        _asked("restart" if anew else "start", UNIT)

    def disable(self) -> None:
        """Stop the unit and let it not start by itself any more."""
        _asked("disable", "--now", UNIT)

    def forget(self) -> None:
        """Let systemd know that the unit is gone, and forget that it once failed."""
        _asked("daemon-reload")
        run("systemctl", "--user", "reset-failed", UNIT)  # fails where there is nothing to forget

    def state(self) -> State:
        """Return how the unit does."""
        said = _asked("show", UNIT, "--property=UnitFileState,ActiveState,MainPID")
        found = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
        word, pid = found.get("ActiveState", "unknown"), int(found.get("MainPID") or 0)
        return State(found.get("UnitFileState") == "enabled", word in {"active", "reloading"}, word, pid or None)

    def runs(self, pid: int) -> bool:
        """Return whether a process is in the unit's control group, and not in that of a system's unit of its name."""
        try:
            groups = (_PROC / str(pid) / "cgroup").read_text().splitlines()
        except OSError:
            return False
        return any(UNIT in (path := line.split("/")) and "system.slice" not in path for line in groups)

    def lingers(self) -> bool:
        """Return whether the user's systemd goes on without a session of the user (loginctl(1))."""
        try:
            done = run("loginctl", "show-user", str(os.geteuid()), "--property=Linger", "--value")
        except FileNotFoundError:
            return False
        return done.stdout.strip() == "yes"


def quoted(word: str) -> str:
    """Return a word as it stands in a unit: `%` would be a specifier, and where `ExecStart=:` begins `$` is nothing."""
    escaped = word.replace("%", "%%")
    if _PLAIN.fullmatch(escaped.replace("%%", "")):
        return escaped
    return '"' + escaped.replace("\\", "\\\\").replace('"', '\\"') + '"'


def unquoted(word: str) -> str:
    """Return a word without what `quoted` did for `%`; the rest is what a shell would do."""
    return word.replace("%%", "%")


def _asked(*words: str) -> str:
    """Ask the user's systemd and return its answer."""
    by_hand = "start the daemon by hand: daemon start --detach"
    try:
        done = run("systemctl", "--user", "--no-ask-password", *words)
    except FileNotFoundError:
        raise ServiceError("There is no systemd on this machine", by_hand) from None
    if done.returncode == 0:
        return done.stdout.strip()
    why = reason(done)
    if "connect to bus" in why or "not been booted" in why:
        hint = f"log in as this user (su and sudo do not), or {by_hand}"
        raise ServiceError(f"No systemd serves this user: {why}", hint)
    raise ServiceError(f"systemctl {' '.join(words)}: {why}", f"see: journalctl --user -u {NAME} -n 20")
