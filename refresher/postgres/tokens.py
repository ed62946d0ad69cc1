"""Refreshing an account's tokens: begun and ended in its row, so a crash in between shows."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from refresher.domain.model import Claim, OpenId, RefreshToken, TokenPair
from refresher.postgres.database import Pool, connection
from refresher.postgres.sealing import Sealer

# Committed before the request is sent. Under the lease, and only with the tokens of the claim:
# whoever has lost it, or was overtaken by a new authorization, gets no row.
SQL_BEGIN: Final = """
WITH held AS MATERIALIZED (
    SELECT open_id, token_request_at IS NOT NULL AS interrupted
    FROM refresher.accounts
    WHERE open_id = $1
      AND lease_epoch = $2
      AND lease_expires_at > now()
      AND tokens_generation = $3
    FOR NO KEY UPDATE
)
UPDATE refresher.accounts AS a
SET token_request_at = now()
FROM held
WHERE a.open_id = held.open_id
RETURNING a.refresh_token, held.interrupted
"""

# Not under the lease: the API has taken the old pair away, so the new one is the account's,
# whoever works it now. Where the tokens have been replaced meanwhile, theirs are newer.
SQL_REPLACE: Final = """
UPDATE refresher.accounts AS a
SET access_token = $3,
    access_token_expires_at = now() + $4::float8 * interval '1 second',
    refresh_token = coalesce($5, a.refresh_token),
    refresh_token_expires_at =
        coalesce(now() + $6::float8 * interval '1 second', a.refresh_token_expires_at),
    scope = coalesce($7, a.scope),
    tokens_generation = a.tokens_generation + 1,
    token_standing = CASE a.token_standing WHEN 'trusted' THEN 'trusted' ELSE 'renewed' END,
    token_due_at = now() + $8::float8 * interval '1 second',
    token_failures = 0,
    token_request_at = NULL,
    -- A consent that has been prolonged is warned of again.
    consent_warned_days = CASE
        WHEN now() + $6::float8 * interval '1 second'
             > a.refresh_token_expires_at + interval '1 day' THEN NULL
        ELSE a.consent_warned_days END
WHERE a.open_id = $1 AND a.tokens_generation = $2
RETURNING a.tokens_generation
"""

# A definite refusal: nothing is open any more.
SQL_END: Final = """
UPDATE refresher.accounts
SET token_request_at = NULL
WHERE open_id = $1 AND tokens_generation = $2 AND token_request_at IS NOT NULL
"""

# Each threshold once for all replicas, and anew after a new authorization.
SQL_CONSENTS: Final = """
UPDATE refresher.accounts
SET consent_warned_days = CASE
    WHEN refresh_token_expires_at <= now() + interval '3 days' THEN 3 ELSE 14 END
WHERE state IN ('active', 'paused')
  AND refresh_token_expires_at <= now() + interval '14 days'
  AND (consent_warned_days IS NULL
       OR (consent_warned_days > 3 AND refresh_token_expires_at <= now() + interval '3 days'))
RETURNING open_id, refresh_token_expires_at, consent_warned_days
"""


class TokenStore:
    """The tokens in the accounts' rows. Raises `DatabaseUnavailable`."""

    def __init__(self, pool: Pool, sealer: Sealer) -> None:
        self._pool = pool
        self._sealer = sealer

    async def begin(self, claim: Claim) -> RefreshToken | None:
        """What to refresh with, noted as under way; None where it is no longer ours to do.

        Raises `TokenUnreadable`.
        """
        async with connection(self._pool) as taken:
            row = await taken.fetchrow(
                SQL_BEGIN, claim.open_id, claim.lease_epoch, claim.token.generation
            )
        token = self._sealer.unseal(row["refresh_token"]) if row else None
        return RefreshToken(token, row["interrupted"]) if row and token else None

    async def replace(self, claim: Claim, pair: TokenPair, due_in_seconds: float) -> bool:
        """Store a new pair; False where the tokens have been replaced by somebody else.

        Lifetimes count from now.
        """
        async with connection(self._pool) as taken:
            stored = await taken.fetchval(
                SQL_REPLACE,
                claim.open_id,
                claim.token.generation,
                self._sealer.seal(pair.access_token),
                pair.access_token_lives_seconds,
                self._sealer.seal(pair.refresh_token),
                pair.refresh_token_lives_seconds,
                pair.scope,
                due_in_seconds,
            )
        return stored is not None

    async def end(self, claim: Claim) -> None:
        """A request that was begun is over, and the stored tokens stay."""
        async with connection(self._pool) as taken:
            await taken.execute(SQL_END, claim.open_id, claim.token.generation)


async def consents_ending(pool: Pool) -> Sequence[tuple[OpenId, datetime, int]]:
    """The accounts whose consent ends within 14 or 3 days and for whom that was not said yet."""
    async with connection(pool) as taken:
        rows = await taken.fetch(SQL_CONSENTS)
    return [
        (OpenId(row["open_id"]), row["refresh_token_expires_at"], row["consent_warned_days"])
        for row in rows
    ]
