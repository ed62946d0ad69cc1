"""`attach` on tables that SQLAlchemy writes: its unit of work, and its optimistic locking."""

from datetime import UTC, datetime

import asyncpg
import pytest
from sqlalchemy import DateTime, FetchedValue, ForeignKey, String, UniqueConstraint, delete, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, selectinload
from sqlalchemy.orm.exc import StaleDataError

from tests.test_attach import attach, settled, store_covers, unnoted, until_agreed, until_covered


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    tiktok_open_id: Mapped[str | None] = mapped_column(unique=True)
    clips: Mapped[list["Clip"]] = relationship(
        back_populates="user", cascade="all, delete-orphan", order_by="Clip.id"
    )


class Columns:
    """Of a clip; what counts its versions comes with each mapper."""

    id: Mapped[int] = mapped_column(primary_key=True)
    tiktok_id: Mapped[str]
    title: Mapped[str | None]
    cover_url: Mapped[str | None] = mapped_column(String(2048))
    cover_expires: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    deleted_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class Clip(Columns, Base):
    __tablename__ = "clips"
    __table_args__ = (UniqueConstraint("user_id", "tiktok_id"),)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    version: Mapped[int] = mapped_column()
    user: Mapped[User] = relationship(back_populates="clips")
    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012 - as SQLAlchemy has it


class OtherBase(DeclarativeBase):
    pass


class ClipByRow(Columns, OtherBase):
    """The same table; PostgreSQL says which version a row is."""

    __tablename__ = "clips"
    user_id: Mapped[int]
    xmin: Mapped[int] = mapped_column(system=True, server_default=FetchedValue())
    __mapper_args__ = {"version_id_col": xmin, "version_id_generator": False}  # noqa: RUF012 - as SQLAlchemy has it


@pytest.fixture
async def session(pool, database, refresher):
    """Makes sessions. Ann has clips 1 to 3, Bob 1 and 5; the table is attached."""
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(database)
    )
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    make = async_sessionmaker(engine, expire_on_commit=False)
    async with make.begin() as first:
        for name, ids in (("ann", "123"), ("bob", "15")):
            first.add(User(tiktok_open_id=name, clips=[Clip(tiktok_id=each) for each in ids]))
    await pool.execute("INSERT INTO refresher.accounts (open_id) VALUES ('ann'), ('bob')")
    code, _, err = await refresher(*attach())
    assert (code, unnoted(err)) == (0, "")
    yield make
    await engine.dispose()


async def covered(pool, database):
    """Every video gets a new cover, which is carried: as a daemon does."""
    await settled(pool, database)
    await store_covers(pool)
    await settled(pool, database)
    await until_agreed(pool)
    await until_covered(pool)


async def user_of(session, name):
    """A user with all clips."""
    named = select(User).where(User.tiktok_open_id == name).options(selectinload(User.clips))
    return (await session.scalars(named)).one()


async def clip_of(session, video_id, kind=Clip):
    return (await session.scalars(select(kind).where(kind.tiktok_id == video_id))).first()


async def test_a_unit_of_work_is_followed(session, pool, database):
    """Whatever one flush holds and in whichever order: both sides agree."""
    async with session.begin() as work:
        ann, bob = [await user_of(work, name) for name in ("ann", "bob")]
        first, moved, orphan = ann.clips
        bob.clips.append(moved)
        ann.clips.remove(orphan)
        first.tiktok_id, first.title = "9", "another video"
        work.add_all(Clip(user=ann, tiktok_id=f"new-{number}") for number in range(30))
        bob.clips[0].deleted_at = datetime.now(UTC)
    await covered(pool, database)
    async with session.begin() as work:
        await work.execute(
            upsert(Clip)
            .values([{"user_id": 1, "tiktok_id": each, "version": 1} for each in ("9", "again")])
            .on_conflict_do_update(index_elements=["user_id", "tiktok_id"], set_={"cover_url": ""})
        )
        async with work.begin_nested() as savepoint:
            await work.execute(delete(Clip))
            await savepoint.rollback()
        await work.delete(await user_of(work, "bob"))
    await covered(pool, database)
    assert await pool.fetchval("SELECT count(*) FROM refresher.videos") == 32


async def save_late(session, kind, meanwhile):
    """A transaction that reads a clip and writes its title after something else has happened."""
    async with session.begin() as slow:
        clip = await clip_of(slow, "3", kind)
        await meanwhile()
        clip.title = f"{clip.title or ''} late"


async def test_a_cover_raises_no_version(session, pool, database):
    """What was read before it came is saved as ever; only a change of the application refuses it."""

    async def changed():
        async with session.begin() as quick:
            (await clip_of(quick, "3")).title = "quick"
        await covered(pool, database)

    await save_late(session, Clip, lambda: covered(pool, database))
    await until_covered(pool)
    with pytest.raises(StaleDataError):
        await save_late(session, Clip, changed)
    await until_covered(pool)
    assert (
        await pool.fetchval("SELECT (title, version)::text FROM clips WHERE id = 3") == "(quick,3)"
    )


async def merge(session, detached):
    async with session.begin() as work:
        await work.merge(detached)


async def test_a_stale_object_that_is_merged_gets_its_cover_back(session, pool, database):
    """The merge writes each column that differs: the old cover, too. An older version is refused."""
    async with session() as work:
        stale = await clip_of(work, "3")
    await covered(pool, database)
    stale.title = "merged"
    await merge(session, stale)
    assert await pool.fetchval(
        "SELECT cover_url IS NULL AND title = 'merged' FROM clips WHERE id = 3"
    )
    done, refused = await settled(pool, database)
    assert (done.carried, refused) == (1, [])
    await until_covered(pool)
    with pytest.raises(StaleDataError):
        await merge(session, stale)
    await until_covered(pool)


async def test_a_version_that_is_the_rows_own_counts_covers_too(session, pool, database):
    """With xmin each new cover is a change: who saves later is refused, and nothing is lost."""
    with pytest.raises(StaleDataError):
        await save_late(session, ClipByRow, lambda: covered(pool, database))
    await until_covered(pool)
    await save_late(session, ClipByRow, lambda: until_covered(pool))
    await until_covered(pool)
    assert await pool.fetchval("SELECT title FROM clips WHERE id = 3") == " late"
