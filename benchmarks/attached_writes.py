"""What an attached table costs its application: python -m benchmarks.attached_writes.

Two equal tables, one of them attached with columns for covers. Writers insert and update single
rows, each in its own transaction, and insert a thousand rows at a time; into one table and into the
other in turns, in short slices. The ratio of each pair of slices is told by its median.

The bare driver only sends a prepared statement: the least that a write can be. What an
application does is more like the writes by an ORM (SQLAlchemy): objects, BEGIN and COMMIT.

No daemon runs: it would take time from either side alike. Takes about three minutes.
"""

import argparse
import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import count
from statistics import median
from time import monotonic
from typing import Final

import asyncpg
import uvloop
from sqlalchemy import BigInteger, Identity
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from benchmarks.arguments import parser_of, real, whole
from benchmarks.live import postgres, print_table, print_verdict
from refresher.domain.attachment import VideoMapping
from refresher.postgres.attaching.attach import attach, plan
from refresher.postgres.database import connected
from refresher.postgres.migrate import migrate

USERS: Final = 1_000
VIDEOS_EACH: Final = 20
BULK: Final = 1_000
TABLES: Final = ("plain", "attached")
#: Of the time that the plain table takes.
AT_MOST: Final = 1.10

SCHEMA: Final = """
CREATE TABLE users (id bigint PRIMARY KEY, open_id text UNIQUE, seen timestamptz);
INSERT INTO users SELECT n, 'account-' || n FROM generate_series(1, {users}) AS n;
INSERT INTO refresher.accounts (open_id) SELECT open_id FROM users
"""
TABLE: Final = """
CREATE TABLE {table} (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, user_id bigint NOT NULL REFERENCES users,
    tiktok_id text NOT NULL, title text, cover text, expires timestamptz,
    made timestamptz NOT NULL DEFAULT now(), UNIQUE (user_id, tiktok_id)
);
INSERT INTO {table} (user_id, tiktok_id, title, cover, expires)
SELECT u, 7000000000000000000 + v, 'A video', 'https://cdn.example/' || repeat('x', 300), now()
FROM generate_series(1, {users}) AS u, generate_series(1, {videos}) AS v;
ANALYZE {table}
"""


class Base(DeclarativeBase):
    """What the ORM knows."""


class Video(Base):
    """A row of either table, as an application has it."""

    __abstract__ = True
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    user_id: Mapped[int] = mapped_column(BigInteger)
    tiktok_id: Mapped[str]
    title: Mapped[str]


class Plain(Video):
    __tablename__ = "plain"


class Attached(Video):
    __tablename__ = "attached"


MODELS: Final[dict[str, type[Video]]] = {"plain": Plain, "attached": Attached}


@dataclass(frozen=True, slots=True)
class Writer:
    """One of those who write."""

    connection: asyncpg.Connection
    session: AsyncSession


Write = Callable[[Writer, str, int, int], Awaitable[object]]


async def insert(writer: Writer, table: str, user: int, number: int) -> object:
    return await writer.connection.execute(
        f"INSERT INTO {table} (user_id, tiktok_id, title) VALUES ($1, $2, 'A video')",
        user,
        str(8 * 10**18 + number),
    )


async def retitle(writer: Writer, table: str, user: int, number: int) -> object:
    return await writer.connection.execute(
        f"UPDATE {table} SET title = $3 WHERE user_id = $1 AND tiktok_id = $2",
        user,
        str(7 * 10**18 + 1 + number % VIDEOS_EACH),
        f"Title {number}",
    )


async def save(writer: Writer, table: str, user: int, number: int) -> object:
    """The whole row, as an ORM does."""
    video_id = str(7 * 10**18 + 1 + number % VIDEOS_EACH)
    return await writer.connection.execute(
        f"UPDATE {table} SET user_id = $1, tiktok_id = $2, title = $3, cover = cover,"
        " expires = expires, made = made WHERE user_id = $1 AND tiktok_id = $2",
        user,
        video_id,
        f"Title {number}",
    )


async def insert_many(writer: Writer, table: str, user: int, number: int) -> object:
    return await writer.connection.execute(
        f"INSERT INTO {table} (user_id, tiktok_id, title)"
        f" SELECT $1, $2::bigint + n, 'A video' FROM generate_series(1, {BULK}) AS n",
        user,
        8 * 10**18 + 10**12 + number * BULK,
    )


async def insert_by_orm(writer: Writer, table: str, user: int, number: int) -> None:
    writer.session.add(
        MODELS[table](user_id=user, tiktok_id=str(9 * 10**18 + number), title="A video")
    )
    await writer.session.commit()


async def retitle_by_orm(writer: Writer, table: str, user: int, number: int) -> None:
    """Read, changed and saved, as in a request."""
    video = await writer.session.get(MODELS[table], (user - 1) * VIDEOS_EACH + 1)
    assert video is not None
    video.title = f"Title {number}"
    await writer.session.commit()


WRITES: Final[dict[str, Write]] = {
    "INSERT of one row": insert,
    "UPDATE of another column": retitle,
    "UPDATE of the whole row": save,
    f"INSERT of {BULK:,} rows": insert_many,
    "INSERT by an ORM": insert_by_orm,
    "UPDATE by an ORM": retitle_by_orm,
}


def main() -> None:
    options = read_options()
    show(uvloop.run(measure(options)), options)


def read_options() -> argparse.Namespace:
    parser = parser_of("python -m benchmarks.attached_writes", __doc__)
    add = parser.add_argument
    add("--writers", type=whole(), default=4, help="at a time (default %(default)s)")
    add("--pairs", type=whole(), default=15, help="of slices (default %(default)s)")
    add("--slice", type=real(0.1, 60), default=1.0, help="seconds (default %(default)s)")
    return parser.parse_args()


async def measure(options: argparse.Namespace) -> dict[str, list[tuple[float, float]]]:
    """By kind of write, the milliseconds that one took in each pair of slices."""
    async with postgres({}) as server:
        url = server.url("postgres")
        await migrate(url)
        await _prepare(url)
        engine = create_async_engine(
            url.replace("postgresql:", "postgresql+asyncpg:", 1), pool_size=options.writers
        )
        writers = [
            Writer(await asyncpg.connect(url), AsyncSession(engine)) for _ in range(options.writers)
        ]
        numbers = count()
        took: dict[str, list[tuple[float, float]]] = {name: [] for name in WRITES}
        for name, write in WRITES.items():
            for pair in range(options.pairs):
                turns = TABLES if pair % 2 else TABLES[::-1]
                slices = {
                    table: await _slice(writers, write, table, numbers, options.slice)
                    for table in turns
                }
                took[name].append((slices["plain"], slices["attached"]))
        for writer in writers:
            await writer.connection.close()
            await writer.session.close()
        await engine.dispose()
        return took


async def _prepare(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(SCHEMA.format(users=USERS))
    for table in TABLES:
        await connection.execute(TABLE.format(table=table, users=USERS, videos=VIDEOS_EACH))
    await connection.close()
    mapping = VideoMapping(
        table="attached",
        video_id="tiktok_id",
        account="user_id",
        account_table="users",
        open_id="open_id",
        cover="cover",
        expires="expires",
    )
    async with connected(url, application_name="benchmark") as pool:
        await attach(pool, await plan(pool, mapping, "benchmark"))


async def _slice(
    writers: Sequence[Writer],
    write: Write,
    table: str,
    numbers: "count[int]",
    seconds: float,
) -> float:
    """Milliseconds of one writer for one write."""
    ends_at, done = monotonic() + seconds, 0

    async def go_on(writer: Writer) -> None:
        nonlocal done
        while monotonic() < ends_at:
            await write(writer, table, random.randint(1, USERS), next(numbers))
            done += 1

    began = monotonic()
    await asyncio.gather(*map(go_on, writers))
    return 1000 * (monotonic() - began) * len(writers) / max(1, done)


def show(took: dict[str, list[tuple[float, float]]], options: argparse.Namespace) -> None:
    ratios = {name: median(b / a for a, b in pairs) for name, pairs in took.items()}
    print_table(
        ["write", "plain, ms", "attached, ms", "ratio"],
        [
            [
                name,
                f"{median(a for a, _ in pairs):.3f}",
                f"{median(b for _, b in pairs):.3f}",
                f"{ratios[name]:.3f}",
            ]
            for name, pairs in took.items()
        ],
    )
    print_verdict(
        f"attached takes at most {AT_MOST:.2f} of plain, with {options.writers} writers",
        met=max(ratios.values()) <= AT_MOST,
    )


if __name__ == "__main__":
    main()
