"""Where a process may work on this machine, and the environment in which it does."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from daemon.domain.process_config import ProcessConfig
from daemon.supervision.table import MARK

_KEPT = frozenset(
    {
        "HOME",
        "PATH",
        "USER",
        "LOGNAME",
        "SHELL",
        "LANG",
        "TERM",
        "TZ",
        "TMPDIR",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "ALL_PROXY",
    }
)
_KEPT_PREFIXES = ("LC_", "XDG_")


def base_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what a process gets of the daemon's own environment: nothing that may be a secret."""
    return {name: value for name, value in environ.items() if name.upper() in _KEPT or name.startswith(_KEPT_PREFIXES)}


def environment(
    base: Mapping[str, str], config: ProcessConfig, *, session_id: str, agent_id: str, token_file: Path, url: str
) -> dict[str, str]:
    """Return the whole environment of a process.

    Args:
        base: as `base_environment` returns it.
        config: of the process, with its secrets.
        session_id, agent_id: whose it is.
        token_file: where it finds its token, which is never in the environment.
        url: where it finds the daemon.
    """
    made = {**base, **(config.environment or {})}
    if config.oauth_token is not None:
        made["CLAUDE_CODE_OAUTH_TOKEN"] = config.oauth_token
    return made | {
        "DAEMON_TOKEN_FILE": str(token_file),
        "DAEMON_URL": url,
        "DAEMON_SESSION_ID": session_id,
        "DAEMON_AGENT_ID": agent_id,
        MARK: session_id,
    }


def problems(config: ProcessConfig, roots: Sequence[str]) -> list[tuple[str, str]]:
    """Return what keeps a process from working where it is asked to, as (path within the configuration, message).

    Args:
        config: of the process.
        roots: directories inside of which processes may work.
    """
    if not roots:
        return [("workingDir", "nothing may be started: processes.workspace_roots is empty")]
    try:
        real = Path(config.working_dir).resolve(strict=True)
    except (OSError, RuntimeError):
        return [("workingDir", "does not exist")]
    if not real.is_dir():
        return [("workingDir", "is not a directory")]
    if not any(real.is_relative_to(os.path.realpath(root)) for root in roots):
        return [("workingDir", "is not inside one of processes.workspace_roots")]
    if not os.access(real, os.X_OK | os.R_OK):
        return [("workingDir", "cannot be entered")]
    return []


def resolved(config: ProcessConfig) -> Path:
    """Return where a process works: not by the name that it was given, which may lead elsewhere by now."""
    return Path(config.working_dir).resolve()
