"""Checks of a PostgreSQL database: server, rights, schema, audit log, what its daemons must agree on."""

from collections.abc import Awaitable, Callable

import msgspec

from daemon.crypto.seal_key import SealKey
from daemon.domain.chain import first_kept
from daemon.home import HomeError
from daemon.log_checkpoints import hold, kept
from daemon.log_events import log_files
from daemon.maintenance import channel_checks
from daemon.maintenance.database_checks import BUILT, CLOCK_CURE, PASSWORD_KEY, checkpoints
from daemon.maintenance.findings import Finding, Findings, Patient, failed, ok, told, warning
from daemon.services.shared_key import FINGERPRINT_KEY
from daemon.stores.migrate import MigrationError, latest_version
from daemon.stores.postgres import copying, examination, notifications, values
from daemon.stores.postgres.connection import CONNECT_TIMEOUT, ERRORS, POOL, Connection, connect
from daemon.stores.postgres.migrate import MAINTENANCE, accepted_version, refuse_older
from daemon.stores.postgres.reasons import place, reason
from daemon.stores.postgres.server_clock import SKEW_SECONDS, offset

SLOW_SECONDS = 0.1
"""A change asks several questions, and has a second for all of them."""
NEEDED = POOL + 3
"""Connections of a daemon: those of its pool, two on which it hears and leads, and one for a backup."""
_STATEMENT_SECONDS = 10.0

_SERVER_LOG = "look at the server's log"
_BACK = "put a backup into an empty database: daemon db copy --from sqlite://FILE --to postgresql://…"


class Subject(msgspec.Struct, frozen=True):
    """What a part of the examination looks at.

    Args:
        patient: the home.
        connection: to its database.
    """

    patient: Patient
    connection: Connection


Part = Callable[[Subject], Awaitable[Findings]]


async def examine(patient: Patient) -> list[Finding]:
    """Look at everything that can be seen of the database; changes nothing."""
    url = patient.config.database.url
    try:
        connection = await connect(
            url,
            seconds=CONNECT_TIMEOUT,
            command_timeout=_STATEMENT_SECONDS,
            settings={"application_name": MAINTENANCE},
        )
    except ERRORS as error:
        return [told("database", f"{place(url)}: {reason(error, url)}", "correct database.url")]
    try:
        refuse_older(url, connection.get_server_version().major)
        subject = Subject(patient, connection)
        found = [finding for part in OF_SERVER for finding in await _look(part, subject)]
        found += (schema := await _schema(url))
        if all(finding.status == "ok" for finding in schema):
            found += [finding for part in OF_ROWS for finding in await _look(part, subject)]
    except MigrationError as error:
        return [told("server", str(error), _SERVER_LOG)]
    finally:
        connection.terminate()
    return found


async def _look(part: Part, subject: Subject) -> list[Finding]:
    name = getattr(part, "__name__", "part").removeprefix("look_at_").replace("_", "-")
    try:
        return list(await part(subject))
    except HomeError as error:
        return [failed(name, error.problem, error.mend)]
    except ERRORS as error:
        return [told(name, reason(error, subject.patient.config.database.url), _SERVER_LOG)]


async def _schema(url: str) -> list[Finding]:
    """Is its schema this program's?"""
    try:
        version, latest = await accepted_version(url), latest_version()
    except MigrationError as error:
        return [told("schema", str(error), "install the newest version")]
    if version == 0:
        return [failed("schema", "the database is empty", "run: daemon init")]
    if version < latest:
        cure = "run: daemon backup with the version that ran last, then: daemon start (it migrates)"
        return [warning("schema", f"version {version}, this program has {latest}", cure)]
    return [ok("schema", f"version {version}, this program's")]


async def look_at_database(subject: Subject) -> Findings:
    """How fast does it answer?"""
    name, seconds = place(subject.patient.config.database.url), await examination.latency(subject.connection)
    detail = f"{name}, answers in {seconds * 1000:.1f} ms"
    if seconds > SLOW_SECONDS:
        return [warning("database", detail, "run the daemon nearer to the server, or look at the server's load")]
    return [ok("database", detail)]


async def look_at_server(subject: Subject) -> Findings:
    """Can its version and its database hold what is written?"""
    found = await examination.server(subject.connection)
    return [_writable(found), _encoding(found)]


def _writable(found: examination.Server) -> Finding:
    if found.read_only:
        cure = "name the primary server in database.url, or let the user write there"
        return failed("server", f"PostgreSQL {found.version}, which can only be read", cure)
    return ok("server", f"PostgreSQL {found.version}")


def _encoding(found: examination.Server) -> Finding:
    if found.encoding != "UTF8":
        cure = (
            "make a database for it and copy: createdb --encoding UTF8 --template template0 NAME; see: daemon db copy"
        )
        return failed("encoding", f"{found.encoding} cannot hold every text", cure)
    return ok("encoding", "UTF8")


async def look_at_clock(subject: Subject) -> Findings:
    """Does this machine's clock agree with the server's, which counts for every daemon?"""
    patient = subject.patient
    if patient.now < BUILT:
        return [failed("clock", "the clock is before the year in which this program was made", CLOCK_CURE)]
    seconds = round(await offset(subject.connection, patient.wall))
    if abs(seconds) > SKEW_SECONDS:
        side = "ahead of" if seconds > 0 else "behind"
        cure = f"on the machine that is wrong: {CLOCK_CURE.removeprefix('set the clock: ')}"
        return [warning("clock", f"the server is {abs(seconds)} s {side} this machine; its time counts", cure)]
    return [ok("clock", "agrees with the server's")]


async def look_at_daemons(subject: Subject) -> Findings:
    """Who else works with it?"""
    hosts = await copying.daemons(subject.connection)
    return [ok("daemons", f"connected from {', '.join(sorted(hosts))}" if hosts else "none is connected")]


async def look_at_connections(subject: Subject) -> Findings:
    """Are there enough connections for a daemon?"""
    free, needed = await examination.free_connections(subject.connection), NEEDED
    if subject.patient.holder is not None:
        return [ok("connections", f"{free} more are free")]
    if free < needed:
        cure = "raise max_connections, or the limit of the user or of the database; or stop who has them"
        return [warning("connections", f"{free} are free, and a daemon takes up to {needed}", cure)]
    return [ok("connections", f"{free} are free, a daemon takes up to {needed}")]


async def look_at_rights(subject: Subject) -> Findings:
    """May the user do what the daemon does?"""
    if lacking := await examination.lacking(subject.connection):
        return [failed("rights", f"the user lacks {', '.join(lacking)}", f"GRANT {', '.join(lacking)} to the user")]
    if foreign := await examination.foreign_tables(subject.connection):
        detail = f"the user does not own {', '.join(foreign)}: no migration and no archive can change them"
        return [warning("rights", detail, "let it own them: ALTER TABLE … OWNER TO the user")]
    return [ok("rights", "the user may do what the daemon does")]


async def look_at_audit(subject: Subject) -> Findings:
    """Is the audit log whole, and the one that the log knows?"""
    chain = await examination.verify_chain(subject.connection)
    if not chain.valid:
        cure = f"keep a copy of the database as evidence (pg_dump), then {_BACK}"
        return [failed("audit", f"the audit log is broken at event {chain.first_bad}", cure)]
    points = kept(list(reversed(log_files(subject.patient.log_file))), first_kept(chain))
    hashes = await examination.hashes(subject.connection, [point.seq for point in points])
    whole = ok("audit", f"{chain.events} events, chained without a gap")
    return [whole, checkpoints(subject.patient, hold(points, hashes.get), _BACK), *await _newest(subject)]


async def _newest(subject: Subject) -> list[Finding]:
    """Did the server's clock step back?"""
    ahead = await examination.ahead(subject.connection)
    if ahead <= 0:
        return []
    detail = f"the server's clock stepped back: the newest event is {ahead} s ahead of it, and time is held until then"
    return [warning("server-clock", detail, f"on the server, {CLOCK_CURE}")]


async def look_at_password(subject: Subject) -> Findings:
    """Is there a master password?"""
    if await values.get(subject.connection, PASSWORD_KEY) is None:
        return [failed("password", "there is no master password", "run: daemon init")]
    return [ok("password", "a master password is set")]


async def look_at_seal_key(subject: Subject) -> Findings:
    """Has the home the key that every daemon on the database has?"""
    file = subject.patient.home.seal_key_file
    stored, own = await values.get(subject.connection, FINGERPRINT_KEY), SealKey(file).fingerprint()
    if stored is None:
        return [ok("seal-key", "none belongs to the database yet; the first daemon brings its own")]
    if stored == own:
        return [ok("seal-key", "the database's")]
    detail = f"{file} is not the key of the database" if own else f"{file} is missing or holds no key"
    return [failed("seal-key", detail, f"copy {file.name} from the home of another daemon on this database")]


async def look_at_channels(subject: Subject) -> Findings:
    """Can the credentials of the channels be read, and do their services answer?"""
    return await channel_checks.examine(subject.patient, await notifications.channels(subject.connection))


OF_SERVER: tuple[Part, ...] = (
    look_at_database,
    look_at_server,
    look_at_clock,
    look_at_daemons,
    look_at_connections,
)
"""What can be asked of any server."""

OF_ROWS: tuple[Part, ...] = (
    look_at_rights,
    look_at_audit,
    look_at_password,
    look_at_seal_key,
    look_at_channels,
)
"""What needs this program's schema."""
