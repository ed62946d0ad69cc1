"""The settings and the database, for commands that need them."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from refresher.cli.output import say
from refresher.postgres.connector import ignored_parameters
from refresher.postgres.database import Pool, check_migrated, connected
from refresher.postgres.role import check_role
from refresher.postgres.sealing import Sealer
from refresher.settings import Settings, split_keys

T = TypeVar("T")


def sealer_of(settings: Settings) -> Sealer:
    return Sealer(split_keys(settings.token_keys))


def database_url_of(settings: Settings) -> str:
    return settings.database_url.get_secret_value()


def say_ignored(database_url: str) -> None:
    if ignored := ignored_parameters(database_url):
        names = ", ".join(ignored)
        say(f"REFRESHER_DATABASE_URL: left out: {names}; docs/connection-strings.md says why")


def with_database(settings: Settings, unit: Callable[[Pool], Coroutine[Any, Any, T]]) -> T:
    async def with_pool() -> T:
        async with connected(
            database_url_of(settings),
            schema=settings.schema,
            application_name="refresher-cli",
        ) as pool:
            await check_migrated(pool)
            await check_role(pool)
            return await unit(pool)

    say_ignored(database_url_of(settings))
    return asyncio.run(with_pool())
