"""Brings the database to the current schema: Alembic over asyncpg."""

import secrets
from pathlib import Path
from typing import Final

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from refresher.domain.schema_name import USUAL_SCHEMA
from refresher.postgres.connector import Connector
from refresher.postgres.database import SCAN_SECONDS, SCHEMA_REVISION, SchemaTooNewError
from refresher.postgres.failures import available
from refresher.postgres.statements import statement

#: Any number that nobody else uses. Two processes must not apply the same revision.
MIGRATION_LOCK: Final = 0x7265667265736865

SQL_LOCK: Final = f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"
# While a migration waits behind a long transaction, everybody else waits behind the migration.
SQL_LOCK_TIMEOUT: Final = "SET LOCAL lock_timeout = '10s'"
# We ask first, because even IF NOT EXISTS needs the right to create schemas.
SQL_HAS_SCHEMA: Final = "SELECT to_regnamespace('refresher') IS NOT NULL"
SQL_SCHEMA: Final = "CREATE SCHEMA refresher"

TRIGGERS_TO_ENABLE: Final = statement("schema/triggers_to_enable")


async def migrate(database_url: str, schema: str = USUAL_SCHEMA) -> bool:
    """Apply the missing revisions to a cell, in one transaction; whether there were any.

    Safe from several places at once. Needs no right to create what exists. Also enables again the
    triggers that must fire for replicated rows. Raises `DatabaseUnavailable`, also if a lock cannot
    be had or the server is read-only, and `SchemaTooNewError`.
    """
    connector = Connector(database_url, schema=schema, application_name="refresher-migrate")

    async def connect(**_arguments: object) -> "asyncpg.Connection[asyncpg.Record]":
        return await connector.plain(command_timeout=SCAN_SECONDS)

    engine = create_async_engine(
        "postgresql+asyncpg://",
        poolclass=NullPool,
        connect_args={
            "async_creator_fn": connect,
            # Behind a pooler another client may still have a statement of this name.
            "prepared_statement_name_func": lambda: f"refresher_{secrets.token_hex(8)}",
            "prepared_statement_cache_size": 0,
        },
    )
    try:
        with available():
            return await _migrate(engine, schema)
    finally:
        await engine.dispose()


async def _migrate(engine: AsyncEngine, schema: str) -> bool:
    try:
        migrated = await _apply(engine, schema)
        await _enable_triggers(engine)
    except DBAPIError as error:
        # The error of asyncpg itself lies two wrappers deep.
        raise getattr(error.orig, "__cause__", None) or error from None
    return migrated


async def _apply(engine: AsyncEngine, schema: str) -> bool:
    async with engine.begin() as connection:
        # No time-out for the advisory lock: the other process may take long.
        for statement in (SQL_LOCK, SQL_LOCK_TIMEOUT):
            await connection.exec_driver_sql(statement)
        if not (await connection.exec_driver_sql(SQL_HAS_SCHEMA)).scalar():
            await connection.exec_driver_sql(SQL_SCHEMA)
        return await connection.run_sync(_upgrade, schema)


async def _enable_triggers(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        alterations = (await connection.exec_driver_sql(TRIGGERS_TO_ENABLE.text)).scalars().all()
    for alteration in alterations:
        # Each in its own transaction, so that we never hold two tables at once.
        async with engine.begin() as connection:
            await connection.exec_driver_sql(SQL_LOCK_TIMEOUT)
            await connection.exec_driver_sql(alteration)


def _upgrade(connection: Connection, schema: str) -> bool:
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    config.attributes["connection"] = connection
    config.attributes["schema"] = schema
    before = _revision(connection, schema)
    if before is not None and before > SCHEMA_REVISION:
        raise SchemaTooNewError(
            f"the database is of a newer version (revision {before}, this one knows "
            f"{SCHEMA_REVISION}): upgrade refresher"
        )
    command.upgrade(config, "head")
    return _revision(connection, schema) != before


def _revision(connection: Connection, schema: str) -> str | None:
    context = MigrationContext.configure(connection, opts={"version_table_schema": schema})
    return context.get_current_revision()


def migrations_folder() -> Path:
    """In the package if it was installed from a wheel, beside it in a checkout."""
    package = Path(__file__).parents[1]
    packed = package / "migrations"
    return packed if packed.is_dir() else package.parent / "migrations"
