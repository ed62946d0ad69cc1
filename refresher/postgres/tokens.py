"""Renewing an account's tokens: begin and end are noted in its row, so a crash in between shows."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from asyncpg import Record

from refresher.domain.errors import RowUnchanged, TokenUnreadable
from refresher.domain.model import Claim, OpenId, RefreshToken, TokenPair
from refresher.postgres.database import Pool, acquired
from refresher.postgres.parts import REFUSALS, Refused, in_parts
from refresher.postgres.sealing import Sealer
from refresher.postgres.statements import Bound, statement

# Single statements, no transactions: so a machine that vanishes leaves no row locked.
READ_TOKENS: Final = statement("read_tokens")
BEGIN_RENEWAL: Final = statement("begin_renewal")
REPLACE_TOKENS: Final = statement("replace_tokens")
END_RENEWAL: Final = statement("end_renewal")
NOTE_NAME: Final = statement("note_name")

CREDENTIALS_REFUSED: Final = statement("credentials_refused")
WAITING: Final = statement("waiting")
FREE: Final = statement("free")

WARN_OF_CONSENTS: Final = statement("warn_of_consents")
CONSENTS_ENDING: Final = statement("consents_ending")
WARN_OF_CONSENTS_PART: Final = statement("warn_of_consents_part")

UNSAID_IGNORED_TOKENS: Final = statement("unsaid_ignored_tokens")
SAY_IGNORED_TOKENS: Final = statement("say_ignored_tokens")


class TokenStore:
    """The tokens in the accounts' rows. Raises `DatabaseUnavailable`.

    If a token request was begun and its end was not noted, the token is not renewed again for
    `unknown_seconds`: whoever sent the request may hold the new pair and be cut off. `credentials`
    is the fingerprint of the app credentials that requests are sent with.
    """

    def __init__(
        self, pool: Pool, sealer: Sealer, *, unknown_seconds: float = 60.0, credentials: str = ""
    ) -> None:
        self._pool = pool
        self._sealer = sealer
        self._unknown = timedelta(seconds=unknown_seconds)
        self._credentials = credentials

    async def begin(self, claim: Claim) -> RefreshToken | None:
        """The token to renew with, noted as in use; None if it is no longer ours to renew.

        Raises `TokenUnreadable`; then nothing is noted.
        """
        async with acquired(self._pool) as connection:
            row = await connection.fetchrow(*READ_TOKENS(open_id=claim.open_id))
            if row is None or row["tokens_generation"] != claim.token.generation:
                return None
            token = self._sealer.unseal(row["refresh_token"]) or ""
            begun = await connection.fetchval(
                *BEGIN_RENEWAL(
                    open_id=claim.open_id,
                    lease_epoch=claim.lease_epoch,
                    generation=claim.token.generation,
                    unknown=self._unknown,
                )
            )
        return RefreshToken(token, row["interrupted"]) if begun else None

    async def replace(
        self, claim: Claim, used: RefreshToken, pair: TokenPair, due_in_seconds: float
    ) -> bool:
        """Store a new pair; False if somebody else has replaced the refresh token `used` for it.

        Then theirs is newer. If they have stored an access token, it stays in any case. Idempotent;
        lifetimes count from now. Raises `RowUnchanged` if the row cannot be written.
        """
        before = None
        async with acquired(self._pool) as connection:
            while True:
                row = await connection.fetchrow(*READ_TOKENS(open_id=claim.open_id))
                if row is None:
                    return False
                if row == before:
                    raise RowUnchanged("a trigger or a rule suppresses the UPDATE")
                before = row
                if not self._is(row["refresh_token"], used.token):
                    # It is ours, too, if the answer to our own commit was lost.
                    return self._is(row["refresh_token"], pair.refresh_token)
                values = self._pair(row, claim, used, pair)
                if await connection.fetchval(
                    *REPLACE_TOKENS(**values, due_in_seconds=due_in_seconds)
                ):
                    return True

    def _pair(
        self, row: Record, claim: Claim, used: RefreshToken, pair: TokenPair
    ) -> Mapping[str, object]:
        is_same = pair.refresh_token == used.token
        keeps_ours = self._is(row["access_token"], claim.access_token)
        return {
            "open_id": claim.open_id,
            "access_token": self._sealer.seal(pair.access_token) if keeps_ours else None,
            "access_token_lives_seconds": pair.access_token_lives_seconds,
            "refresh_token": None if is_same else self._sealer.seal(pair.refresh_token),
            "refresh_token_lives_seconds": pair.refresh_token_lives_seconds,
            "scope": pair.scope,
            "stored_access_token": row["access_token"],
            "stored_refresh_token": row["refresh_token"],
            "used_token": fingerprint(used.token),
        }

    def _is(self, stored: str | None, token: str | None) -> bool:
        """Whether a stored token is still this one.

        Its text and its generation do not tell, because keys may be rotated at any time. So we also
        say yes for a token that we cannot read.
        """
        try:
            return self._sealer.unseal(stored) == token
        except TokenUnreadable:
            return True

    async def note_name(self, claim: Claim, open_id: str) -> bool:
        """Store under which open_id the API knows the account; whether it was not stored yet."""
        async with acquired(self._pool) as connection:
            noted = await connection.fetchval(
                *NOTE_NAME(open_id=claim.open_id, token_open_id=open_id)
            )
        return bool(noted)

    async def end(self, claim: Claim, *, unknown: bool) -> None:
        """Note that a token request is over; `unknown`: we did not learn its outcome."""
        async with acquired(self._pool) as connection:
            await connection.execute(
                *END_RENEWAL(
                    open_id=claim.open_id,
                    lease_epoch=claim.lease_epoch,
                    generation=claim.token.generation,
                    unknown=unknown,
                )
            )

    async def note_refused_credentials(self) -> None:
        """Note for later starts that the app credentials were refused."""
        async with acquired(self._pool) as connection:
            await connection.execute(*CREDENTIALS_REFUSED(credentials=self._credentials))


async def free_waiting(pool: Pool, credentials: str, refused: Refused = lambda _, __: None) -> int:
    """End the wait of accounts that wait for other app credentials. Returns their number.

    None if `credentials`, the fingerprint of those in use now, was the last to be refused.
    `refused` hears of accounts that a trigger, a constraint or a lock kept from being freed.
    Idempotent. Raises `DatabaseUnavailable`.
    """
    freed, walked_to = 0, ""
    while waiting := _open_ids(
        await _fetched(pool, WAITING(credentials=credentials, after=walked_to)),
    ):
        freed += len(
            await in_parts(
                waiting,
                lambda open_ids: _fetched(pool, FREE(credentials=credentials, open_ids=open_ids)),
                refused,
            )
        )
        walked_to = waiting[-1]
    return freed


def fingerprint(token: str) -> bytes:
    """By this we recognize a refresh token that comes back. It does not reveal the token."""
    return sha256(token.encode()).digest()


async def consents_ending(
    pool: Pool, refused: Refused = lambda _, __: None
) -> Sequence[tuple[OpenId, datetime, int]]:
    """Some accounts whose consent ends soon, each with its end and the days of this warning.

    Each warning comes once for all replicas. `refused` hears of accounts for which that could not
    be noted because of a trigger, a constraint or a lock; they are skipped.
    """
    try:
        rows = await _fetched(pool, WARN_OF_CONSENTS())
    except REFUSALS:
        rows = await in_parts(
            _open_ids(await _fetched(pool, CONSENTS_ENDING())),
            lambda open_ids: _fetched(pool, WARN_OF_CONSENTS_PART(open_ids=open_ids)),
            refused,
        )
    return [
        (OpenId(row["open_id"]), row["refresh_token_expires_at"], row["consent_warned_days"])
        for row in rows
    ]


async def ignored_tokens(
    pool: Pool, refused: Refused = lambda _, __: None
) -> Sequence[tuple[OpenId, int]]:
    """Some accounts into which somebody wrote used-up tokens, and how often since the last time.

    `refused` as for `consents_ending`.
    """
    unsaid = _open_ids(await _fetched(pool, UNSAID_IGNORED_TOKENS()))
    rows: Sequence[Record] = ()
    if unsaid:  # mostly there is none, and one statement was enough
        rows = await in_parts(
            unsaid,
            lambda open_ids: _fetched(pool, SAY_IGNORED_TOKENS(open_ids=open_ids)),
            refused,
        )
    return [(OpenId(row["open_id"]), row["tokens_ignored"]) for row in rows]


async def _fetched(pool: Pool, asked: Bound) -> Sequence[Record]:
    async with acquired(pool) as connection:
        rows: Sequence[Record] = await connection.fetch(*asked)
    return rows


def _open_ids(rows: Sequence[Record]) -> Sequence[OpenId]:
    return [OpenId(row["open_id"]) for row in rows]
