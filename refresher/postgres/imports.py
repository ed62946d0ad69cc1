"""`accounts import` and `videos import`: through COPY into a staging table, all or nothing."""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Final

from refresher.csv_files.complaints import MOST_NAMED
from refresher.csv_files.rows import AccountRow, VideoRow
from refresher.domain.errors import TokenUnreadable
from refresher.postgres.database import SCAN_SECONDS, Pool, acquired
from refresher.postgres.sealing import Sealer
from refresher.postgres.statements import Bound, Statement, statement
from refresher.postgres.tokens import fingerprint

if TYPE_CHECKING:
    import asyncpg
    from asyncpg.pool import PoolConnectionProxy

STAGE_ACCOUNTS: Final = statement("stage_accounts")
REPEATED_ACCOUNT: Final = statement("repeated_account")
KNOWN_TOKENS: Final = statement("known_tokens")
LOCK_KNOWN_TOKENS: Final = statement("lock_known_tokens")
LEAVE_OUT: Final = statement("leave_out")
KEEP_KNOWN_TOKENS: Final = statement("keep_known_tokens")
STORABLE_ACCOUNTS: Final = statement("storable_accounts")
STORE_ACCOUNTS: Final = statement("store_accounts")

STAGE_VIDEOS: Final = statement("stage_videos")
REPEATED_VIDEO: Final = statement("repeated_video")
UNKNOWN_ACCOUNT: Final = statement("unknown_account")
STORE_VIDEOS: Final = statement("store_videos")
STORABLE_VIDEOS: Final = statement("storable_videos")


class ImportRefusedError(Exception):
    """Some rows contradict other rows or the database; nothing was written.

    `complaints` are line numbers with what is wrong there; `more` lines are wrong, too.
    """

    def __init__(self, complaints: Sequence[tuple[int, str]], more: int = 0) -> None:
        super().__init__("; ".join(f"{line}: {told}" for line, told in complaints))
        self.complaints = complaints
        self.more = more


class NothingToImportError(Exception):
    """There were no rows."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did, or what it would do."""

    #: Rows of the file.
    rows: int
    #: Those that were new or changed something.
    stored: int
    #: Accounts skipped because their refresh token was used up: the stored pair is newer.
    used_up: int = 0


async def import_accounts(
    pool: Pool, rows: Iterable[AccountRow], sealer: Sealer | None = None, *, dry_run: bool = False
) -> Imported:
    """Add accounts, or re-authorize known ones. Tokens are stored sealed.

    `dry_run`: everything is checked, nothing is written or locked. Raises `ImportRefusedError`,
    `NothingToImportError`, `DatabaseUnavailable`, and what `rows` raises.
    """
    sealer = sealer or Sealer(())
    records = (
        (
            row.line,
            row.open_id,
            sealer.seal(row.access_token),
            row.access_token_expires_at,
            sealer.seal(row.refresh_token),
            row.refresh_token_expires_at,
            row.scope,
        )
        for row in rows
    )
    async with _staged(pool, "staged_accounts", STAGE_ACCOUNTS(), records) as staged:
        await staged.refuse(REPEATED_ACCOUNT)
        known = await staged.known_tokens(lock=not dry_run)
        used_up = [row["open_id"] for row in known if _is_used_up(sealer, row)]
        await staged.leave_out(used_up)
        if dry_run:
            imported = await staged.storable(STORABLE_ACCOUNTS())
        else:
            await staged.keep_known_tokens(sealer, known)
            imported = await staged.store(STORE_ACCOUNTS())
        return replace(imported, used_up=len(used_up))


async def import_videos(
    pool: Pool,
    rows: Iterable[VideoRow],
    due_at: Callable[[VideoRow], datetime | None],
    *,
    dry_run: bool = False,
) -> Imported:
    """Add videos of known accounts. `due_at` gives None for now. Raises as `import_accounts`."""
    records = (
        (
            row.line,
            row.open_id,
            row.video_id,
            row.cover_image_url,
            row.cover_expires_at,
            due_at(row),
        )
        for row in rows
    )
    async with _staged(pool, "staged_videos", STAGE_VIDEOS(), records) as staged:
        await staged.refuse(REPEATED_VIDEO)
        await staged.refuse(UNKNOWN_ACCOUNT)
        if dry_run:
            return await staged.storable(STORABLE_VIDEOS())
        return await staged.store(STORE_VIDEOS())


@dataclass(frozen=True, slots=True)
class _Staged:
    """The staging table with the rows of the file, in a transaction."""

    #: In the transaction that ends with the import.
    connection: "PoolConnectionProxy[asyncpg.Record]"
    #: Rows of the file.
    rows: int

    async def refuse(self, query: Statement) -> None:
        """Raises `ImportRefusedError` if the query finds wrong lines."""
        wrong = await self.connection.fetch(*query(most=MOST_NAMED), timeout=SCAN_SECONDS)
        if wrong:
            raise ImportRefusedError(
                [(row["line"], f"{row['expected']}, not {row['value']!r}") for row in wrong],
                more=wrong[0]["wrong"] - len(wrong),
            )

    async def known_tokens(self, *, lock: bool) -> "Sequence[asyncpg.Record]":
        """The stored tokens of the accounts in the file, beside those of the file."""
        # All rows are read before anything is written; each takes the memory of its tokens.
        asked = LOCK_KNOWN_TOKENS() if lock else KNOWN_TOKENS()
        return await self.connection.fetch(*asked, timeout=SCAN_SECONDS)

    async def leave_out(self, open_ids: Sequence[str]) -> None:
        if open_ids:
            await self.connection.execute(*LEAVE_OUT(open_ids=open_ids), timeout=SCAN_SECONDS)

    async def keep_known_tokens(self, sealer: Sealer, known: "Sequence[asyncpg.Record]") -> None:
        """Keep the sealed text of tokens that are stored already."""
        kept = [
            (
                row["open_id"],
                _kept(sealer, row["access_token"], row["known_access_token"]),
                _kept(sealer, row["refresh_token"], row["known_refresh_token"]),
            )
            for row in known
        ]
        if kept:
            open_ids, access_tokens, refresh_tokens = zip(*kept, strict=True)
            await self.connection.execute(
                *KEEP_KNOWN_TOKENS(
                    open_ids=open_ids, access_tokens=access_tokens, refresh_tokens=refresh_tokens
                ),
                timeout=SCAN_SECONDS,
            )

    async def storable(self, asked: Bound) -> Imported:
        return Imported(self.rows, await self.connection.fetchval(*asked, timeout=SCAN_SECONDS))

    async def store(self, asked: Bound) -> Imported:
        stored = await self.connection.execute(*asked, timeout=SCAN_SECONDS)
        return Imported(self.rows, _count(stored))


def _kept(sealer: Sealer, token: str | None, known: str | None) -> str | None:
    """The known text if it is the same token, or else the new token."""
    try:
        return known if sealer.unseal(token) == sealer.unseal(known) else token
    except TokenUnreadable:
        return token  # so an import can mend an account whose key is lost


def _is_used_up(sealer: Sealer, row: "asyncpg.Record") -> bool:
    try:
        token = sealer.unseal(row["refresh_token"])
    except TokenUnreadable:
        return False
    return token is not None and fingerprint(token)[:16] in row["used_up"]


@asynccontextmanager
async def _staged(
    pool: Pool, table: str, create: Bound, records: Iterable[tuple[object, ...]]
) -> AsyncIterator[_Staged]:
    async with acquired(pool) as connection, connection.transaction():
        await connection.execute(*create)
        copied = await connection.copy_records_to_table(
            table, records=records, timeout=SCAN_SECONDS
        )
        if not _count(copied):
            raise NothingToImportError
        yield _Staged(connection, _count(copied))


def _count(command_tag: str) -> int:
    return int(command_tag.rpartition(" ")[2])
