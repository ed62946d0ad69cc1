"""`accounts import` and `videos import`: through COPY into a staging table, all or nothing."""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Final

from refresher.csv_files.complaints import MOST_NAMED
from refresher.csv_files.rows import AccountRow, VideoRow
from refresher.domain.errors import TokenUnreadable
from refresher.postgres.database import SCAN_SECONDS, Pool, connection
from refresher.postgres.sealing import Sealer
from refresher.postgres.tokens import fingerprint

if TYPE_CHECKING:
    import asyncpg
    from asyncpg.pool import PoolConnectionProxy

SQL_STAGE_ACCOUNTS: Final = """
CREATE TEMPORARY TABLE staged_accounts (
    line bigint, open_id text, access_token text, access_token_expires_at timestamptz,
    refresh_token text, refresh_token_expires_at timestamptz, scope text
) ON COMMIT DROP
"""

SQL_REPEATED_ACCOUNT: Final = f"""
SELECT max(line) AS line, count(*) OVER () AS wrong, open_id AS value,
       'open_id: expected each once (first in line ' || min(line) || ')' AS expected
FROM staged_accounts
GROUP BY open_id
HAVING count(*) > 1
ORDER BY 1
LIMIT {MOST_NAMED}
"""

# Sealed text is new each time: a token that is stored already must not look like another one, which
# would make a parked account active and forget when the token expires.
SQL_KNOWN_TOKENS: Final = """
SELECT s.open_id, s.access_token, s.refresh_token,
       a.access_token AS known_access_token, a.refresh_token AS known_refresh_token,
       coalesce(u.fingerprints, '{}') AS used_up
FROM staged_accounts AS s JOIN refresher.accounts AS a USING (open_id)
                          LEFT JOIN refresher.used_tokens AS u USING (open_id)
ORDER BY open_id
"""
SQL_LOCK_KNOWN_TOKENS: Final = f"{SQL_KNOWN_TOKENS} FOR NO KEY UPDATE OF a"

# The account's own newer pair stays; a trigger would see to it, too, but not say so here.
SQL_LEAVE_OUT: Final = "DELETE FROM staged_accounts WHERE open_id = ANY ($1::text[])"

SQL_KEEP_KNOWN_TOKENS: Final = """
UPDATE staged_accounts AS s
SET access_token = k.access_token,
    refresh_token = k.refresh_token
FROM unnest($1::text[], $2::text[], $3::text[]) AS k (open_id, access_token, refresh_token)
WHERE s.open_id = k.open_id
"""

# What SQL_STORE_ACCOUNTS would do; it takes no lock.
SQL_STORABLE_ACCOUNTS: Final = """
SELECT count(*)
FROM staged_accounts AS s LEFT JOIN refresher.accounts AS a USING (open_id)
WHERE a.access_token_expires_at IS NULL
   OR s.access_token_expires_at IS NULL
   OR s.access_token_expires_at >= a.access_token_expires_at
"""

# New tokens for a known account re-authorize it: a trigger makes a parked one active again.
SQL_STORE_ACCOUNTS: Final = """
INSERT INTO refresher.accounts AS a (open_id, access_token, access_token_expires_at,
                                     refresh_token, refresh_token_expires_at, scope)
SELECT open_id, access_token, access_token_expires_at,
       refresh_token, refresh_token_expires_at, scope
FROM staged_accounts
ORDER BY open_id
ON CONFLICT (open_id) DO UPDATE
SET access_token = EXCLUDED.access_token,
    access_token_expires_at = EXCLUDED.access_token_expires_at,
    -- A file that does not bring these must not take them away.
    refresh_token = coalesce(EXCLUDED.refresh_token, a.refresh_token),
    refresh_token_expires_at = CASE WHEN EXCLUDED.refresh_token IS NULL
        THEN a.refresh_token_expires_at ELSE EXCLUDED.refresh_token_expires_at END,
    scope = coalesce(EXCLUDED.scope, a.scope)
-- A file of before a refresh holds tokens that are used up: the stored ones are newer.
WHERE a.access_token_expires_at IS NULL
   OR EXCLUDED.access_token_expires_at IS NULL
   OR EXCLUDED.access_token_expires_at >= a.access_token_expires_at
"""

SQL_STAGE_VIDEOS: Final = """
CREATE TEMPORARY TABLE staged_videos (
    line bigint, open_id text, video_id text, cover_image_url text,
    cover_expires_at timestamptz, due_at timestamptz
) ON COMMIT DROP
"""

SQL_REPEATED_VIDEO: Final = f"""
SELECT max(line) AS line, count(*) OVER () AS wrong, open_id || ',' || video_id AS value,
       'open_id,video_id: expected each once (first in line ' || min(line) || ')' AS expected
FROM staged_videos
GROUP BY open_id, video_id
HAVING count(*) > 1
ORDER BY 1
LIMIT {MOST_NAMED}
"""

SQL_UNKNOWN_ACCOUNT: Final = f"""
SELECT line, count(*) OVER () AS wrong, open_id AS value,
       'open_id: expected a known account' AS expected
FROM staged_videos AS s
WHERE NOT EXISTS (SELECT FROM refresher.accounts AS a WHERE a.open_id = s.open_id)
ORDER BY line
LIMIT {MOST_NAMED}
"""

# A video that is stored already stays as it is. One that comes with its URL needs no reserve.
SQL_STORE_VIDEOS: Final = """
INSERT INTO refresher.videos (open_id, video_id, cover_image_url, cover_expires_at, due_at, reserve)
SELECT open_id, video_id, cover_image_url, cover_expires_at, coalesce(due_at, now()),
       CASE WHEN cover_image_url IS NULL THEN repeat('.', 340) END
FROM staged_videos
ORDER BY open_id, video_id
ON CONFLICT DO NOTHING
"""


SQL_STORABLE_VIDEOS: Final = """
SELECT count(*)
FROM staged_videos AS s
WHERE NOT EXISTS (
    SELECT FROM refresher.videos AS v WHERE v.open_id = s.open_id AND v.video_id = s.video_id
)
"""


class ImportRefusedError(Exception):
    """Rows that do not go with the others or with the database; nothing was written.

    Lines with their complaints, and how many `more` are wrong.
    """

    def __init__(self, complaints: Sequence[tuple[int, str]], more: int = 0) -> None:
        super().__init__("; ".join(f"{line}: {told}" for line, told in complaints))
        self.complaints = complaints
        self.more = more


class NothingToImportError(Exception):
    """There were no rows."""


@dataclass(frozen=True, slots=True)
class Imported:
    """How many rows the file had and how many of them were new or changed, or would be.

    `used_up` were left out: their refresh token has been used up, so the stored pair is newer.
    """

    rows: int
    stored: int
    used_up: int = 0


async def import_accounts(
    pool: Pool, rows: Iterable[AccountRow], sealer: Sealer | None = None, *, dry_run: bool = False
) -> Imported:
    """Add accounts, or re-authorize those that are known; tokens leave here sealed.

    `dry_run`: all is checked, nothing is written and nobody is kept waiting. Raises
    `ImportRefusedError`, `NothingToImportError`, `DatabaseUnavailable`, and what `rows` raises.
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
    async with _staged(pool, "staged_accounts", SQL_STAGE_ACCOUNTS, records) as staged:
        await staged.refuse(SQL_REPEATED_ACCOUNT)
        known = await staged.known_tokens(lock=not dry_run)
        used_up = [row["open_id"] for row in known if _is_used_up(sealer, row)]
        await staged.leave_out(used_up)
        if dry_run:
            imported = await staged.storable(SQL_STORABLE_ACCOUNTS)
        else:
            await staged.keep_known_tokens(sealer, known)
            imported = await staged.store(SQL_STORE_ACCOUNTS)
        return replace(imported, used_up=len(used_up))


async def import_videos(
    pool: Pool,
    rows: Iterable[VideoRow],
    due_at: Callable[[VideoRow], datetime | None],
    *,
    dry_run: bool = False,
) -> Imported:
    """Add videos of known accounts; `due_at` None means now. Raises as `import_accounts`."""
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
    async with _staged(pool, "staged_videos", SQL_STAGE_VIDEOS, records) as staged:
        await staged.refuse(SQL_REPEATED_VIDEO)
        await staged.refuse(SQL_UNKNOWN_ACCOUNT)
        if dry_run:
            return await staged.storable(SQL_STORABLE_VIDEOS)
        return await staged.store(SQL_STORE_VIDEOS)


@dataclass(frozen=True, slots=True)
class _Staged:
    """Rows in their staging table, in a transaction."""

    connection: "PoolConnectionProxy[asyncpg.Record]"
    rows: int

    async def refuse(self, query: str) -> None:
        """The query finds the first lines with something wrong, and says what was expected."""
        found = await self.connection.fetch(query, timeout=SCAN_SECONDS)
        if found:
            raise ImportRefusedError(
                [(row["line"], f"{row['expected']}, not {row['value']!r}") for row in found],
                more=found[0]["wrong"] - len(found),
            )

    async def known_tokens(self, *, lock: bool) -> "Sequence[asyncpg.Record]":
        """The tokens of the accounts that are stored already, beside those of the file."""
        # Read to the end before anything is written: memory is what a row of tokens takes.
        statement = SQL_LOCK_KNOWN_TOKENS if lock else SQL_KNOWN_TOKENS
        return await self.connection.fetch(statement, timeout=SCAN_SECONDS)

    async def leave_out(self, open_ids: Sequence[str]) -> None:
        if open_ids:
            await self.connection.execute(SQL_LEAVE_OUT, open_ids, timeout=SCAN_SECONDS)

    async def keep_known_tokens(self, sealer: Sealer, known: "Sequence[asyncpg.Record]") -> None:
        """Tokens that are stored already stay as they are, sealed text and all."""
        kept = [
            (
                row["open_id"],
                _kept(sealer, row["access_token"], row["known_access_token"]),
                _kept(sealer, row["refresh_token"], row["known_refresh_token"]),
            )
            for row in known
        ]
        if kept:
            columns = map(list, zip(*kept, strict=True))
            await self.connection.execute(SQL_KEEP_KNOWN_TOKENS, *columns, timeout=SCAN_SECONDS)

    async def storable(self, query: str) -> Imported:
        return Imported(self.rows, await self.connection.fetchval(query, timeout=SCAN_SECONDS))

    async def store(self, statement: str) -> Imported:
        stored = await self.connection.execute(statement, timeout=SCAN_SECONDS)
        return Imported(self.rows, _count(stored))


def _kept(sealer: Sealer, token: str | None, known: str | None) -> str | None:
    """What is to be stored: what is known already, where it is the same token."""
    try:
        return known if sealer.unseal(token) == sealer.unseal(known) else token
    except TokenUnreadable:
        return token  # the way to mend an account whose key is lost


def _is_used_up(sealer: Sealer, row: "asyncpg.Record") -> bool:
    try:
        token = sealer.unseal(row["refresh_token"])
    except TokenUnreadable:
        return False
    return token is not None and fingerprint(token)[:16] in row["used_up"]


@asynccontextmanager
async def _staged(
    pool: Pool, table: str, create: str, records: Iterable[tuple[object, ...]]
) -> AsyncIterator[_Staged]:
    async with connection(pool) as taken, taken.transaction():
        await taken.execute(create)
        copied = await taken.copy_records_to_table(table, records=records, timeout=SCAN_SECONDS)
        if not _count(copied):
            raise NothingToImportError
        yield _Staged(taken, _count(copied))


def _count(command_tag: str) -> int:
    return int(command_tag.rpartition(" ")[2])
