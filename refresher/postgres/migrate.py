"""Bringing the database to the current schema: Alembic over asyncpg."""

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

from refresher.postgres.connector import Connector
from refresher.postgres.database import SCAN_SECONDS
from refresher.postgres.failures import available
from refresher.postgres.statements import statement

#: Any number that nobody else uses: two starters must not apply the same revision.
MIGRATION_LOCK: Final = 0x7265667265736865

SQL_LOCK: Final = f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"
# A migration that waits behind a long transaction would make everybody else wait behind it.
SQL_LOCK_TIMEOUT: Final = "SET LOCAL lock_timeout = '10s'"
# Asked first, as even IF NOT EXISTS takes the right to create schemas in the database.
SQL_HAS_SCHEMA: Final = "SELECT to_regnamespace('refresher') IS NOT NULL"
SQL_SCHEMA: Final = "CREATE SCHEMA refresher"

TRIGGERS_TO_ENABLE: Final = statement("schema/triggers_to_enable")


async def migrate(database_url: str) -> bool:
    """Apply what is missing, in one transaction; whether anything was. Safe from several places.

    What is there already takes no right to create it. Triggers that fire for replicated rows, too,
    are made to do so again. Raises `DatabaseUnavailable`, also where a lock is not to be had or the
    server is read-only.
    """
    connector = Connector(database_url, application_name="refresher-migrate")

    async def connect(**_arguments: object) -> "asyncpg.Connection[asyncpg.Record]":
        return await connector.plain(command_timeout=SCAN_SECONDS)

    engine = create_async_engine(
        "postgresql+asyncpg://",
        poolclass=NullPool,
        connect_args={
            "async_creator_fn": connect,
            # Behind a pooler a name may still be taken by whoever had the server process before.
            "prepared_statement_name_func": lambda: f"refresher_{secrets.token_hex(8)}",
            "prepared_statement_cache_size": 0,
        },
    )
    try:
        with available():
            return await _migrate(engine)
    finally:
        await engine.dispose()


async def _migrate(engine: AsyncEngine) -> bool:
    try:
        migrated = await _apply(engine)
        await _enable_triggers(engine)
    except DBAPIError as error:
        # asyncpg's own error lies two wrappers deep.
        raise getattr(error.orig, "__cause__", None) or error from None
    return migrated


async def _apply(engine: AsyncEngine) -> bool:
    async with engine.begin() as connection:
        # The advisory lock may be waited for as long as the other starter needs.
        for statement in (SQL_LOCK, SQL_LOCK_TIMEOUT):
            await connection.exec_driver_sql(statement)
        if not (await connection.exec_driver_sql(SQL_HAS_SCHEMA)).scalar():
            await connection.exec_driver_sql(SQL_SCHEMA)
        return await connection.run_sync(_upgrade)


async def _enable_triggers(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        alterations = (await connection.exec_driver_sql(TRIGGERS_TO_ENABLE.text)).scalars().all()
    for alteration in alterations:
        # Each by itself: nobody waits for one table while we hold the other.
        async with engine.begin() as connection:
            await connection.exec_driver_sql(SQL_LOCK_TIMEOUT)
            await connection.exec_driver_sql(alteration)


def _upgrade(connection: Connection) -> bool:
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    config.attributes["connection"] = connection
    before = _revision(connection)
    command.upgrade(config, "head")
    return _revision(connection) != before


def _revision(connection: Connection) -> str | None:
    context = MigrationContext.configure(connection, opts={"version_table_schema": "refresher"})
    return context.get_current_revision()


def migrations_folder() -> Path:
    """Inside the package when installed from a wheel, beside it in a checkout."""
    package = Path(__file__).parents[1]
    packed = package / "migrations"
    return packed if packed.is_dir() else package.parent / "migrations"
