"""Tokens at rest: sealed with Fernet, and sealed in place where they lie in plain text."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from asyncpg import Record
from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from refresher.domain.errors import TokenUnreadable
from refresher.postgres.database import Pool, connection

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

#: What Fernet makes: a version byte of 0x80, then a time stamp whose first bytes are zero. TikTok's
#: tokens hold a dot and never look so.
SEALED: Final = re.compile(r"gAAAA[\w-]{90,}={0,2}")
SEALED_IN_SQL: Final = "'^gAAAA[A-Za-z0-9_-]{90,}={0,2}$'"
ROWS_AT_ONCE: Final = 500
ROWS_LOOKED_AT: Final = 20

# The generation is raised by ourselves, so the trigger does not take it for a new authorization.
SQL_STORE_SEALED: Final = """
UPDATE refresher.accounts AS a
SET access_token = s.access_token,
    refresh_token = s.refresh_token,
    tokens_generation = a.tokens_generation + 1
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[])
     AS s (open_id, generation, access_token, refresh_token)
WHERE a.open_id = s.open_id AND a.tokens_generation = s.generation
RETURNING a.open_id
"""

SQL_NEXT_ROWS: Final = f"""
SELECT open_id, access_token, refresh_token, tokens_generation
FROM refresher.accounts
WHERE open_id > $1 AND (
    ($2 AND (access_token IS NOT NULL OR refresh_token IS NOT NULL))
    OR access_token !~ {SEALED_IN_SQL}
    OR refresh_token !~ {SEALED_IN_SQL}
)
ORDER BY open_id
LIMIT {ROWS_AT_ONCE}
"""

SQL_SOME_SEALED: Final = f"""
SELECT access_token FROM refresher.accounts WHERE access_token ~ {SEALED_IN_SQL} LIMIT $1
"""


class Sealer:
    """Seals with the first of the keys and unseals with any; without keys all stays as it is.

    Raises ValueError for a key that is none.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        fernets = [Fernet(key) for key in keys]
        self._all = MultiFernet(fernets) if fernets else None
        self._first = fernets[0] if fernets else None

    @property
    def seals(self) -> bool:
        """Whether there is a key at all."""
        return self._first is not None

    def seal(self, token: str | None) -> str | None:
        """The token sealed with the first key; one that is sealed already stays as it is."""
        if self._first is None or token is None or SEALED.fullmatch(token):
            return token
        return self._first.encrypt(token.encode()).decode()

    def rotate(self, token: str | None) -> str | None:
        """The token sealed with the first key, whichever it was sealed with.

        Raises `TokenUnreadable`.
        """
        return token if self._is_current(token) else self.seal(self.unseal(token))

    def unseal(self, token: str | None) -> str | None:
        """The token in plain text. Raises `TokenUnreadable` where none of the keys fits."""
        if token is None or not SEALED.fullmatch(token):
            return token
        try:
            if self._all is None:
                raise TokenUnreadable("sealed, and there is no key")
            return self._all.decrypt(token).decode()
        except InvalidToken:
            raise TokenUnreadable("sealed with another key") from None

    def _is_current(self, token: str | None) -> bool:
        if self._first is None or token is None or not SEALED.fullmatch(token):
            return False
        try:
            self._first.decrypt(token)
        except InvalidToken:
            return False
        return True


async def seal_seen(
    taken: "PoolConnectionProxy[Record]", sealer: Sealer, rows: Iterable[Record]
) -> Mapping[str, int]:
    """Seal in place those of the rows whose tokens lie in plain text.

    How much the generation of each account's tokens has grown by it.
    """
    return dict.fromkeys(await _store_changed(taken, rows, sealer.seal), 1)


async def seal_all(pool: Pool, sealer: Sealer, *, rotate: bool = False) -> int:
    """Seal what lies in plain text; with `rotate` seal everything anew with the first key.

    How many accounts that changed. Raises `TokenUnreadable` naming the first account for which no
    key fits: `rotate` can be called again, what it has done stays readable.
    """
    if not sealer.seals:
        return 0
    changed, last = 0, ""
    while True:
        async with connection(pool) as taken:
            rows = await taken.fetch(SQL_NEXT_ROWS, last, rotate)
            if not rows:
                return changed
            seal = sealer.rotate if rotate else sealer.seal
            changed += len(await _store_changed(taken, rows, seal))
        last = rows[-1]["open_id"]


async def check_readable(pool: Pool, sealer: Sealer) -> None:
    """Raises `TokenUnreadable` where none of some sealed tokens can be unsealed."""
    async with connection(pool) as taken:
        rows = await taken.fetch(SQL_SOME_SEALED, ROWS_LOOKED_AT)
    unreadable = 0
    for row in rows:
        try:
            sealer.unseal(row["access_token"])
        except TokenUnreadable:
            unreadable += 1
    if rows and unreadable == len(rows):
        raise TokenUnreadable("none of the keys fits the tokens in refresher.accounts")


async def _store_changed(
    taken: "PoolConnectionProxy[Record]",
    rows: Iterable[Record],
    seal: Callable[[str | None], str | None],
) -> Sequence[str]:
    sealed = [(row, *_sealed(row, seal)) for row in rows]
    changed = [
        (row["open_id"], row["tokens_generation"], access_token, refresh_token)
        for row, access_token, refresh_token in sealed
        if (access_token, refresh_token) != (row["access_token"], row["refresh_token"])
    ]
    if not changed:
        return ()
    stored = await taken.fetch(SQL_STORE_SEALED, *map(list, zip(*changed, strict=True)))
    return [row["open_id"] for row in stored]


def _sealed(row: Record, seal: Callable[[str | None], str | None]) -> tuple[str | None, str | None]:
    try:
        return seal(row["access_token"]), seal(row["refresh_token"])
    except TokenUnreadable as error:
        raise TokenUnreadable(f"account {row['open_id']}: {error}") from None
