"""Our SQL names the schema `refresher`. On a connection to another cell it means that cell's.

So every file in `sql/`, every revision and every template is plain SQL that can be tried as it
stands. A `search_path` would not do: behind a pooler we cannot set it for a session.
"""

import re
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Final

import asyncpg

from refresher.domain.schema_name import USUAL_SCHEMA

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection

# What stands for the schema: before a point, alone as a literal, in names of other things of a
# cell, and where it is made. Not the word in texts, such as `refresher migrate`.
_NAMED: Final = re.compile(
    rf"\b{USUAL_SCHEMA}(?=\.[\w%{{']|_set_aside\b|_wake\b|_covers\b)"
    rf"|(?<='){USUAL_SCHEMA}(?=')|(?<=SCHEMA ){USUAL_SCHEMA}\b"
)


class _Finished(str):
    __slots__ = ()


def finished(sql: str, schema: str) -> str:
    """SQL that names the schema of its cell already, and holds words of an application's own.

    A connection to that cell sends it as it is.
    """
    # The driver itself takes no subclass.
    return sql if schema == USUAL_SCHEMA else _Finished(sql)


def named(sql: str, schema: str) -> str:
    """The same for the schema of a cell."""
    if isinstance(sql, _Finished):
        return str(sql)
    return sql if schema == USUAL_SCHEMA else _named(sql, schema)


@lru_cache(maxsize=1024)
def _named(sql: str, schema: str) -> str:
    return _NAMED.sub(schema, sql)


class CellConnection(Connection):
    """A connection to a cell whose schema has another name than usual."""

    __slots__ = ()
    schema: ClassVar[str] = USUAL_SCHEMA

    async def execute(self, query: str, *args: Any, **options: Any) -> str:
        """As asyncpg's, like all that follow."""
        return await super().execute(named(query, self.schema), *args, **options)

    async def fetch(self, query: str, *args: Any, **options: Any) -> Any:
        return await super().fetch(named(query, self.schema), *args, **options)

    async def fetchrow(self, query: str, *args: Any, **options: Any) -> Any:
        return await super().fetchrow(named(query, self.schema), *args, **options)

    async def fetchval(self, query: str, *args: Any, **options: Any) -> Any:
        return await super().fetchval(named(query, self.schema), *args, **options)

    async def prepare(self, query: str, **options: Any) -> Any:
        return await super().prepare(named(query, self.schema), **options)


@cache
def connection_class(schema: str) -> type[Connection]:
    """What connections to the cell of this schema are."""
    if schema == USUAL_SCHEMA:
        return Connection
    return type("CellConnection", (CellConnection,), {"__slots__": (), "schema": schema})


def schema_of(connection: object) -> str:
    """The schema of the cell that a connection, or a pool's proxy for one, leads to."""
    schema: str = getattr(connection, "schema", USUAL_SCHEMA)
    return schema
