"""Keeps attached tables and refresher.videos alike: what is told, what is carried, a slow walk.

The functions that `refresher attach` has made do the work. Here they are called, in bounded units,
each in a short transaction of its own. The walk only looks, and tells what differs: so all that is
changed comes through the queues.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from asyncpg import PostgresError, Record

from refresher.domain.errors import DatabaseBusy, DatabaseUnavailable
from refresher.domain.told import Told, together
from refresher.postgres.audit import WALK_STEPS
from refresher.postgres.database import REPORT_SECONDS, SCAN_SECONDS, Pool, Pooled, acquired
from refresher.postgres.failures import first_line
from refresher.postgres.parts import in_parts
from refresher.postgres.statements import Bound, Statement, statement

#: What one transaction takes of what was told: rows, and about so many videos.
ROWS_AT_ONCE: Final = 1_000
VIDEOS_AT_ONCE: Final = 2_000
#: Accounts of which one statement looks at all rows.
ACCOUNTS_AT_ONCE: Final = 50
#: Rows that are given up in one statement.
GIVEN_UP_AT_ONCE: Final = 100_000
#: For so long a unit that fails is tried in parts.
SPLIT_SECONDS: Final = 5.0
#: A table, column or function is missing or another one, or a right is lacking: no row's fault.
UNFIT: Final = ("42", "3F")

ATTACHMENTS: Final = statement("attachments")
TOLD_ROWS: Final = statement("told_rows")
TAKE_TOLD_ROWS: Final = statement("take_told_rows")
TELL_ROWS: Final = statement("tell_rows")
POSTPONE_ROWS: Final = statement("postpone_rows")
TOLD_COVERS: Final = statement("told_covers")
TAKE_TOLD_COVERS: Final = statement("take_told_covers")
TELL_COVERS: Final = statement("tell_covers")
TELL_COVERS_AGAIN: Final = statement("tell_covers_again")
POSTPONE_COVERS: Final = statement("postpone_covers")
ATTACHMENT_TURN: Final = statement("attachment_turn")
ATTACHMENT_WALK: Final = statement("attachment_walk")
ATTACHMENT_WALKED: Final = statement("attachment_walked")
WALK_AGAIN: Final = statement("walk_again")
GIVE_UP_TOLD: Final = statement("give_up_told")
ANY_TOLD: Final = statement("any_told")
ATTACHED_ROWS: Final = statement("attached_rows")


class AttachmentUnfitError(Exception):
    """The attachment does not fit its table any more; the message is the server's."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """An attached table."""

    name: str
    kind: Literal["videos", "tokens"]
    #: Covers are written into the table's own columns.
    carries: bool
    #: When all its accounts had last been looked at; None: that is under way.
    walked_at: datetime | None


@dataclass(frozen=True, slots=True)
class Changes:
    """What was done for an attachment. Counts are of videos, or of accounts with tokens."""

    added: int = 0
    removed: int = 0
    #: Of accounts that are not stored.
    unknown: int = 0
    #: With an ID that cannot be one.
    unusable: int = 0
    #: Rows of the application that got another cover.
    carried: int = 0
    #: And that did not, as the application holds them locked.
    locked: int = 0

    def plus(self, other: "Changes") -> "Changes":
        return Changes(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


#: Hears of what could not be done, and why.
Refused = Callable[[Told, Exception], None]


async def read_attachments(pool: Pool) -> Sequence[Attachment]:
    """All attached tables. Raises `DatabaseUnavailable`, as every function here."""
    async with acquired(pool) as connection:
        return [Attachment(**dict(row)) for row in await connection.fetch(*ATTACHMENTS())]


async def is_walked(pool: Pool, attachment: Attachment) -> bool:
    """Whether all its accounts were looked at since it was attached; also if it was detached."""
    stored = {each.name: each for each in await read_attachments(pool)}
    return attachment.name not in stored or stored[attachment.name].walked_at is not None


async def is_applied(pool: Pool, attachment: Attachment) -> bool:
    """Whether nothing is left of what was told, but for what was refused and waits."""
    async with acquired(pool) as connection:
        return not await connection.fetchval(*ANY_TOLD(attachment=attachment.name))


async def count_attached(pool: Pool, attachment: Attachment) -> int:
    """How many videos or accounts it has added. Reads all rows of refresher.videos."""
    async with acquired(pool) as connection:
        added: int | None = await connection.fetchval(
            *ATTACHED_ROWS(attachment=attachment.name), timeout=SCAN_SECONDS
        )
    return added or 0


async def give_up_told(pool: Pool, attachment: Attachment) -> None:
    """Leave to the walk what was told an hour ago, as the attachment does not fit its table."""
    await _execute(pool, GIVE_UP_TOLD(attachment=attachment.name, most=GIVEN_UP_AT_ONCE))


async def apply_told(pool: Pool, attachment: Attachment, refused: Refused) -> tuple[Changes, bool]:
    """Bring refresher.videos to what the table says now of the videos that it has told of.

    Returns what was done, and whether to go on at once. `refused` hears of what cannot be applied:
    it is tried again later. Raises `AttachmentUnfitError`, and `DatabaseBusy` where locks stop all.
    """
    return await _emptied(pool, attachment, ROWS, refused)


async def carry_told(pool: Pool, attachment: Attachment, refused: Refused) -> tuple[Changes, bool]:
    """Write covers that have changed into the table. Otherwise as `apply_told`."""
    return await _emptied(pool, attachment, COVERS, refused)


async def walk_step(pool: Pool, attachment: Attachment, refused: Refused) -> tuple[Changes, bool]:
    """Look at the next accounts, whatever was told: of videos that differ it is told.

    Returns what was found, and whether to go on at once: the first walk adds what exists. `refused`
    hears of accounts that are passed over. Raises as `apply_told`.
    """
    async with _connected(pool) as connection:
        walk = await connection.fetchrow(
            *ATTACHMENT_WALK(attachment=attachment.name, walk_steps=WALK_STEPS)
        )
        if walk is None or walk["waits"]:
            return Changes(), False  # detached meanwhile, or not yet
        query = f"SELECT refresher.attached_{attachment.name}_next($1, $2)"
        with _unfit():
            rows = await connection.fetch(query, walk["walked_to"], walk["step"])
    open_ids = [row[0] for row in rows]
    done: list[Changes | None] = []
    for first in range(0, len(open_ids), ACCOUNTS_AT_ONCE):
        part = open_ids[first : first + ACCOUNTS_AT_ONCE]
        done += await _walked_over(pool, attachment, part, refused)
        if None in done:
            return _sum(done), False  # another replica was at it: the same step comes again
    await _execute(
        pool,
        ATTACHMENT_WALKED(
            attachment=attachment.name,
            walk=walk["walk"],
            walked_from=walk["walked_to"],
            walked_to=open_ids[-1] if open_ids else None,
        ),
    )
    return _sum(done), bool(open_ids) and attachment.walked_at is None


async def _walked_over(
    pool: Pool, attachment: Attachment, open_ids: Sequence[str], refused: Refused
) -> Sequence[Changes | None]:
    """What was found of these accounts; None: another replica is at work on this attachment."""

    async def look_at(part: Sequence[str]) -> Sequence[Changes | None]:
        async with _connected(pool) as connection:
            if not await connection.fetchval(*ATTACHMENT_TURN(attachment=attachment.name)):
                return [None]
            return [await _looked_at(connection, attachment, part)]

    failed: list[tuple[str, Exception]] = []
    with _unfit():
        done = await in_parts(open_ids, look_at, lambda *one: failed.append(one), SPLIT_SECONDS)
    _check_locks(done, failed)
    for open_id, error in failed:
        refused(Told(0, datetime.now(UTC), open_ids=[open_id]), error)
    return done


@dataclass(frozen=True, slots=True)
class _Queue:
    """What was told, in the order in which it was told."""

    read: Statement
    take: Statement
    tell: Statement
    postpone: Statement
    #: Does what was told, in the transaction that takes it.
    do: Callable[[Pooled, Attachment, Told], Awaitable[Changes]]
    #: Fails where the attachment does not fit its table, whatever was told.
    try_out: Callable[[Pooled, Attachment], Awaitable[object]]


async def _emptied(
    pool: Pool, attachment: Attachment, queue: _Queue, refused: Refused
) -> tuple[Changes, bool]:
    async with acquired(pool) as connection:
        rows = await connection.fetch(
            *queue.read(attachment=attachment.name, rows=ROWS_AT_ONCE, videos=VIDEOS_AT_ONCE)
        )
    if not rows:
        return Changes(), False
    failed: list[tuple[Told, Exception]] = []
    with _unfit():
        done = await in_parts(
            [Told(**dict(row)) for row in rows],
            lambda part: _unit(pool, attachment, queue, part),
            lambda told, error: failed.append((told, error)),
            SPLIT_SECONDS,
        )
    _check_locks(done, failed)
    for told, error in failed:
        await _put_back(pool, attachment, queue, told)
        if told.size <= 1:
            refused(told, error)
    return _sum(done), bool(done)


async def _unit(
    pool: Pool, attachment: Attachment, queue: _Queue, part: Sequence[Told]
) -> Sequence[Changes]:
    async with _connected(pool) as connection:
        if not part:  # something has failed: is it the attachment itself?
            await queue.try_out(connection, attachment)
        ids = [told.id for told in part]
        taken = await connection.fetch(*queue.take(attachment=attachment.name, ids=ids))
        return [
            await queue.do(connection, attachment, told)
            for told in together(Told(**dict(row)) for row in taken)
        ]


async def _put_back(pool: Pool, attachment: Attachment, queue: _Queue, told: Told) -> None:
    """What failed is looked at again: in parts at once, or a single one later."""
    if told.size <= 1:
        await _execute(pool, queue.postpone(attachment=attachment.name, id=told.id))
        return
    async with _connected(pool) as connection:
        if await connection.fetch(*queue.take(attachment=attachment.name, ids=[told.id])):
            for part in told.split():
                await _tell(connection, attachment, queue, part)


async def _tell(connection: Pooled, attachment: Attachment, queue: _Queue, told: Told) -> None:
    await connection.execute(
        *queue.tell(
            attachment=attachment.name,
            accounts=told.accounts,
            open_ids=told.open_ids,
            video_ids=told.video_ids,
            told_at=told.told_at,
        )
    )


async def _apply(connection: Pooled, attachment: Attachment, told: Told) -> Changes:
    if told.is_everything:
        await connection.execute(*WALK_AGAIN(attachment=attachment.name))
        return Changes()
    if told.video_ids is None:
        found = await _looked_at(connection, attachment, told.open_ids or ())
        return found if attachment.kind == "tokens" else Changes()
    row = await _called(
        connection, f"{attachment.name}_apply", told.accounts, told.open_ids, told.video_ids
    )
    return Changes(**dict(row))


async def _try_apply(connection: Pooled, attachment: Attachment) -> None:
    if attachment.kind == "videos":
        await _called(connection, f"{attachment.name}_apply", [], [], [])
    await _looked_at(connection, attachment, [])


async def _looked_at(
    connection: Pooled, attachment: Attachment, open_ids: Sequence[str]
) -> Changes:
    """What differs of all rows of these accounts. Tokens are taken over, videos only told."""
    return Changes(**dict(await _called(connection, f"{attachment.name}_look_at", open_ids)))


async def _carry(connection: Pooled, attachment: Attachment, told: Told) -> Changes:
    row = await _called(connection, f"{attachment.name}_carry", told.open_ids, told.video_ids)
    locked = row["locked_open_ids"] or ()
    if locked:
        await connection.execute(
            *TELL_COVERS_AGAIN(
                attachment=attachment.name,
                open_ids=locked,
                video_ids=row["locked_video_ids"],
                told_at=told.told_at,
            )
        )
    return Changes(carried=row["carried"], locked=len(locked))


async def _try_carry(connection: Pooled, attachment: Attachment) -> None:
    await _called(connection, f"{attachment.name}_carry", [], [])


async def _called(connection: Pooled, function: str, *arguments: Sequence[str] | None) -> Record:
    """The row that a function of an attachment returns."""
    places = ", ".join(f"${number}::text[]" for number in range(1, len(arguments) + 1))
    # A constraint of refresher.attachments bounds its name to letters, digits and underscores.
    query = f"SELECT * FROM refresher.attached_{function}({places})"
    row = await connection.fetchrow(query, *arguments, timeout=REPORT_SECONDS)
    assert row is not None  # noqa: S101 - it has OUT parameters
    return row


@asynccontextmanager
async def _connected(pool: Pool) -> AsyncIterator[Pooled]:
    """In a transaction."""
    async with acquired(pool) as connection, connection.transaction():
        yield connection


@contextmanager
def _unfit() -> Iterator[None]:
    """Raises `AttachmentUnfitError` for what a table, function or right is the reason of.

    Around what was tried without rows, too: a trigger of the application may raise the same.
    """
    try:
        yield
    except (DatabaseUnavailable, PostgresError) as error:
        said_by_server = error if isinstance(error, PostgresError) else error.__cause__
        if (getattr(said_by_server, "sqlstate", None) or "").startswith(UNFIT):
            raise AttachmentUnfitError(first_line(error)) from error
        raise


async def _execute(pool: Pool, asked: Bound) -> None:
    async with acquired(pool) as connection:
        await connection.execute(*asked)


def _check_locks(done: Sequence[object], failed: Sequence[tuple[object, Exception]]) -> None:
    """Raises `DatabaseBusy` where locks have stopped all that was tried: it is the table's."""
    errors = [error for _, error in failed]
    if errors and not done and all(isinstance(error, DatabaseBusy) for error in errors):
        raise errors[0]


def _sum(done: Sequence[Changes | None]) -> Changes:
    total = Changes()
    for each in done:
        total = total.plus(each) if each else total
    return total


ROWS: Final = _Queue(TOLD_ROWS, TAKE_TOLD_ROWS, TELL_ROWS, POSTPONE_ROWS, _apply, _try_apply)
COVERS: Final = _Queue(
    TOLD_COVERS, TAKE_TOLD_COVERS, TELL_COVERS, POSTPONE_COVERS, _carry, _try_carry
)
