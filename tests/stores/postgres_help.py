"""What the tests of PostgreSQL's schema share."""

from pathlib import Path

import pytest

from daemon.stores.migrate import data_file
from daemon.stores.migration_files import Migrated, MigrationError
from daemon.stores.postgres.migrate import migrate
from tests.stores.migration_help import NOW
from tests.support.postgres import ask, run_apart

MIGRATIONS = data_file("migrations") / "postgres"


def upgrade(url: str, migrations: Path | None = None, now: int = NOW) -> Migrated:
    """Migrate as a start does."""
    done: Migrated = run_apart(migrate(url, now=now, migrations=migrations))
    return done


def refusal(url: str, migrations: Path | None = None) -> str:
    """Return the one line with which migrating is refused."""
    with pytest.raises(MigrationError) as caught:
        upgrade(url, migrations)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def columns(url: str) -> dict[str, list[tuple[str, str, bool]]]:
    """Return each table's columns in order: name, type, and whether it must have a value."""
    found: dict[str, list[tuple[str, str, bool]]] = {}
    for table, *column in ask(
        url,
        "SELECT c.relname::text, a.attname::text, format_type(a.atttypid, NULL), a.attnotnull"
        " FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
        " WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r'"
        " AND a.attnum > 0 AND NOT a.attisdropped ORDER BY c.relname, a.attnum",
    ):
        found.setdefault(table, []).append(tuple(column))
    return found


def schema(url: str) -> list[tuple[str, ...]]:
    """Return everything that tells one schema from another: columns in order, constraints, indexes, triggers."""
    return ask(
        url,
        "SELECT c.relname::text, 'column', lpad(attnum::text, 3, '0'), attname || ' ' || format_type(atttypid, NULL),"
        " concat_ws(' ', attnotnull, attcollation::regcollation, pg_get_expr(adbin, adrelid))"
        " FROM pg_class c JOIN pg_attribute ON attrelid = c.oid"
        " LEFT JOIN pg_attrdef ON adrelid = c.oid AND adnum = attnum"
        " WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' AND attnum > 0"
        " UNION ALL SELECT conrelid::regclass::text, 'constraint', conname, pg_get_constraintdef(oid), ''"
        " FROM pg_constraint WHERE connamespace = current_schema()::regnamespace"
        " UNION ALL SELECT tablename, 'index', indexname, replace(indexdef, current_schema() || '.', ''), ''"
        " FROM pg_indexes WHERE schemaname = current_schema()"
        " UNION ALL SELECT relname, 'trigger', tgname, tgenabled::text, ''"
        " FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid"
        " WHERE relnamespace = current_schema()::regnamespace AND NOT tgisinternal ORDER BY 1, 2, 3",
    )


def insert(url: str, table: str, **values: object) -> None:
    """Insert one row."""
    marks = ", ".join(f"${number}" for number in range(1, len(values) + 1))
    ask(url, f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", *values.values())
