"""The doctor: every check in order, up or down, nothing changed."""

import importlib.util
import inspect
import sqlite3

from daemon.engines import require_asyncpg
from daemon.home import HomeError
from daemon.maintenance import channel_checks, database_checks, home_checks, process_checks
from daemon.maintenance.findings import RESTORE, Check, Finding, Patient, failed, told
from daemon.stores import sqlite_file
from daemon.stores.migrate import MigrationError

FIRST: tuple[Check, ...] = (home_checks.check_home, home_checks.check_configuration)
"""What can be asked of a home that is not there."""

OF_HOME: tuple[Check, ...] = (
    home_checks.check_permissions,
    home_checks.check_owner,
    home_checks.check_initial_password,
    process_checks.check_lock,
    process_checks.check_port,
    home_checks.check_disk,
    home_checks.check_writable,
    home_checks.check_log,
)
"""What is asked of every home."""

OF_FILE: tuple[Check, ...] = (
    database_checks.check_database,
    database_checks.check_schema,
    database_checks.check_foreign_keys,
    database_checks.check_audit,
    database_checks.check_password,
    database_checks.check_clock,
    database_checks.check_wal,
    home_checks.check_backups,
    channel_checks.check_channels,
)
"""What is asked of a SQLite database."""


async def check_database_server(patient: Patient) -> list[Finding]:
    """Look at a PostgreSQL database with what is installed for it."""
    try:
        require_asyncpg()
    except MigrationError as error:
        return [told("database", str(error), "install asyncpg")]
    # Imported here: what nobody uses need not be installed.
    from daemon.maintenance.postgres_checks import examine as examine_postgres  # noqa: PLC0415

    return await examine_postgres(patient)


OF_SERVER: tuple[Check, ...] = (check_database_server, home_checks.check_backups)
"""What is asked of a PostgreSQL database."""


async def check_conversations(patient: Patient) -> list[Finding]:
    """Look at the Redis of the conversations with what is installed for it."""
    if importlib.util.find_spec("redis") is None:
        install = "run: pip install 'agent-session-daemon[redis]'"
        return [failed("conversations", "conversations.url needs the redis package", install)]
    # Imported here: what nobody uses need not be installed.
    from daemon.maintenance.redis_checks import examine as examine_redis  # noqa: PLC0415

    return await examine_redis(patient)


OF_REDIS: tuple[Check, ...] = (check_conversations,)
"""What is asked where conversations are in Redis."""


def checks(patient: Patient) -> tuple[Check, ...]:
    """Return every check but the first ones, in the order in which its findings are shown."""
    of_database = OF_SERVER if patient.config.database.kind == "postgresql" else OF_FILE
    return OF_HOME + of_database + (OF_REDIS if patient.config.conversations.url else ())


async def examine(patient: Patient) -> list[Finding]:
    """Run every check and return what each found; a check that fails itself is a finding too."""
    found = [finding for check in FIRST for finding in await _run(check, patient)]
    if patient.home.root.is_dir():
        found += [finding for check in checks(patient) for finding in await _run(check, patient)]
    return found


async def _run(check: Check, patient: Patient) -> list[Finding]:
    findings: list[Finding] = []
    try:
        made = check(patient)
        findings.extend(await made if inspect.isawaitable(made) else made)
    except sqlite3.Error as error:
        findings.append(failed(_name(check), sqlite_file.reason(error).removesuffix("; restore a backup"), RESTORE))
    except HomeError as error:
        findings.append(failed(_name(check), error.problem, error.mend))
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        findings.append(failed(_name(check), f"{error.strerror or error}{where}", "mend its permissions or the disk"))
    return findings


def _name(check: Check) -> str:
    name: str = getattr(check, "__name__", "check")
    return name.removeprefix("check_").replace("_", "-")
