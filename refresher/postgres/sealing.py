"""Seals stored tokens with Fernet, also those that an application has stored in plain text."""

import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from asyncpg import Record

from refresher.domain.errors import TokenUnreadable
from refresher.domain.model import OpenId
from refresher.postgres.database import Pool, acquired
from refresher.postgres.failures import available
from refresher.postgres.opening import STATEMENT_SECONDS
from refresher.postgres.parts import Refused, in_parts
from refresher.postgres.statements import Statement, statement

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy
    from cryptography.fernet import Fernet, MultiFernet

#: What Fernet makes: a version byte of 0x80, then a time stamp whose first bytes are zero. TikTok's
#: tokens contain a dot, so they never match. `sealed_pattern.sql` is the same for the server.
SEALED: Final = re.compile(r"gAAAA[\w-]{90,}={0,2}", re.ASCII)
#: Sealing can be done the next time. The claim that waits for it cannot wait long.
SEAL_SECONDS: Final = 1.0

SEAL: Final = statement("seal")
ROTATE: Final = statement("rotate")
PLAIN_TOKENS: Final = statement("plain_tokens")
SEALED_TOKENS: Final = statement("sealed_tokens")
ALL_TOKENS: Final = statement("all_tokens")


class Sealer:
    """Seals with the first key and unseals with any of them; without keys tokens stay as they are.

    Raises ValueError for an invalid key.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._all: MultiFernet | None = None
        self._first: Fernet | None = None
        if keys:
            # Loaded only if there is a key, as it makes a start longer.
            from cryptography import fernet  # noqa: PLC0415

            fernets = [fernet.Fernet(key) for key in keys]
            self._all, self._first = fernet.MultiFernet(fernets), fernets[0]

    @property
    def seals(self) -> bool:
        """Whether there is a key at all."""
        return self._first is not None

    def seal(self, token: str | None) -> str | None:
        """The token sealed with the first key. A sealed token stays as it is."""
        if self._first is None or token is None or SEALED.fullmatch(token):
            return token
        return self._first.encrypt(token.encode()).decode()

    def rotate(self, token: str | None) -> str | None:
        """The token sealed with the first key, whatever key it was sealed with before.

        Raises `TokenUnreadable`.
        """
        return token if self._is_current(token) else self.seal(self.unseal(token))

    def unseal(self, token: str | None) -> str | None:
        """The token in plain text. Raises `TokenUnreadable` if no key fits."""
        if token is None or not SEALED.fullmatch(token):
            return token
        if self._all is None:
            raise TokenUnreadable("sealed, and there is no key")
        from cryptography.fernet import InvalidToken  # noqa: PLC0415

        try:
            return self._all.decrypt(token).decode()
        except InvalidToken:
            raise TokenUnreadable("sealed with another key") from None

    def _is_current(self, token: str | None) -> bool:
        if self._first is None or token is None or not SEALED.fullmatch(token):
            return False
        from cryptography.fernet import InvalidToken  # noqa: PLC0415

        try:
            self._first.decrypt(token)
        except InvalidToken:
            return False
        return True


def _nobody_hears(_open_id: OpenId, _error: Exception) -> None:
    pass


async def seal_seen(
    connection: "PoolConnectionProxy[Record]",
    sealer: Sealer,
    rows: Iterable[Record],
    refused: Refused = _nobody_hears,
) -> Mapping[str, int]:
    """Seal the tokens of these rows that are in plain text; locked rows are skipped.

    Returns by how much this raised each account's generation. `refused` hears of accounts that a
    trigger, a constraint or a lock kept from being sealed.
    """

    async def seal(changes: Sequence[_Change]) -> Sequence[str]:
        with available():
            return await _store(connection, SEAL, changes, SEAL_SECONDS)

    changes = [change for row in rows if (change := _changed(row, sealer.seal))]
    sealed = await in_parts(
        changes, seal, lambda change, error: refused(OpenId(change.open_id), error)
    )
    return dict.fromkeys(sealed, 1)


async def seal_all(pool: Pool, sealer: Sealer, refused: Refused = _nobody_hears) -> int:
    """Seal all tokens in plain text; locked rows are skipped. How many accounts that changed.

    `refused` as in `seal_seen`.
    """
    sealed = 0
    if sealer.seals:
        async for rows in _pages(pool, PLAIN_TOKENS):
            async with acquired(pool) as connection:
                sealed += len(await seal_seen(connection, sealer, rows, refused))
    return sealed


async def rotate_all(pool: Pool, sealer: Sealer) -> int:
    """Seal every token with the first key; how many accounts that changed. Idempotent.

    When it returns, no token needs another key. If no key fits for some accounts, it does all the
    others first and then raises `TokenUnreadable` with the name of one.
    """
    rotated = 0
    while True:
        walk = await _rotate(pool, sealer)
        rotated += walk.rotated
        if walk.overtaken:
            continue
        if walk.unreadable:
            more = f" and {len(walk.unreadable) - 1} more" if walk.unreadable[1:] else ""
            raise TokenUnreadable(
                f"account {min(walk.unreadable)}{more}: sealed with a key that is not among "
                "REFRESHER_TOKEN_KEYS; add it, or store new tokens for the account, and rotate "
                f"again; nothing is lost, and the other accounts are done, {rotated} just now"
            )
        return rotated


async def check_readable(pool: Pool, sealer: Sealer) -> None:
    """Raises `TokenUnreadable` if there are sealed tokens and none of them can be read."""
    unreadable = 0
    async for accounts in sealed_tokens(pool, sealer):
        if any(accounts.values()):
            return
        unreadable += len(accounts)
    if unreadable:
        raise TokenUnreadable(
            f"the stored tokens are sealed (accounts: {unreadable:,}), and none of the keys in "
            "REFRESHER_TOKEN_KEYS fits: add the key they were sealed with"
        )


async def sealed_tokens(pool: Pool, sealer: Sealer) -> AsyncIterator[Mapping[str, bool]]:
    """Pages of the accounts with sealed tokens, by open_id: whether one of the keys opens them."""
    async for rows in _pages(pool, SEALED_TOKENS):
        yield {row["open_id"]: _is_readable(row, sealer) for row in rows}


class _Walk(NamedTuple):
    """What a walk through all accounts did."""

    #: Accounts whose tokens were sealed anew.
    rotated: int
    #: Accounts that somebody changed during the walk.
    overtaken: int
    #: The open_ids of accounts for which no key fits.
    unreadable: Sequence[str]


async def _rotate(pool: Pool, sealer: Sealer) -> _Walk:
    rotated, overtaken = 0, 0
    unreadable: list[str] = []
    async for rows in _pages(pool, ALL_TOKENS):
        readable = [row for row in rows if _is_readable(row, sealer)]
        changes = [change for row in readable if (change := _changed(row, sealer.rotate))]
        unreadable += {row["open_id"] for row in rows} - {row["open_id"] for row in readable}
        async with acquired(pool) as connection:
            stored = await _store(connection, ROTATE, changes)
        rotated += len(stored)
        overtaken += len(changes) - len(stored)
    return _Walk(rotated, overtaken, unreadable)


async def _pages(pool: Pool, statement: Statement) -> AsyncIterator[Sequence[Record]]:
    """The rows of a statement page by page, each page after the last open_id of the one before."""
    last = ""
    while True:
        async with acquired(pool) as connection:
            rows = await connection.fetch(*statement(after=last))
        if not rows:
            return
        yield rows
        last = rows[-1]["open_id"]


def _is_readable(row: Record, sealer: Sealer) -> bool:
    try:
        sealer.unseal(row["access_token"])
        sealer.unseal(row["refresh_token"])
    except TokenUnreadable:
        return False
    return True


class _Change(NamedTuple):
    """New sealed text for an account's tokens."""

    open_id: str
    #: The generation of the tokens that were read: if it has grown, they stay as they are.
    generation: int
    access_token: str | None
    refresh_token: str | None


def _changed(row: Record, seal: Callable[[str | None], str | None]) -> _Change | None:
    access_token, refresh_token = seal(row["access_token"]), seal(row["refresh_token"])
    if (access_token, refresh_token) == (row["access_token"], row["refresh_token"]):
        return None
    return _Change(row["open_id"], row["tokens_generation"], access_token, refresh_token)


async def _store(
    connection: "PoolConnectionProxy[Record]",
    statement: Statement,
    changes: Sequence[_Change],
    seconds: float = STATEMENT_SECONDS,
) -> Sequence[str]:
    """The accounts that could be changed."""
    if not changes:
        return ()
    asked = statement(
        open_ids=[change.open_id for change in changes],
        generations=[change.generation for change in changes],
        access_tokens=[change.access_token for change in changes],
        refresh_tokens=[change.refresh_token for change in changes],
    )
    stored = await connection.fetch(*asked, timeout=seconds)
    return [row["open_id"] for row in stored]
