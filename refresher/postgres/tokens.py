"""Refreshing an account's tokens: begun and ended in its row, so a crash in between shows."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from asyncpg import Record

from refresher.domain.errors import RowUnchanged, TokenUnreadable
from refresher.domain.model import Claim, OpenId, RefreshToken, TokenPair
from refresher.domain.pacing import CLIENT_REFUSED_SECONDS
from refresher.postgres.database import Pool, connection
from refresher.postgres.parts import REFUSALS, Refused, in_parts
from refresher.postgres.sealing import Sealer

# Statements of their own, not transactions: a machine that vanishes amid one leaves no row locked.
# With a lock, as a pooler that balances reads would send a plain SELECT to a standby: by what was
# there some seconds ago a new pair would look overtaken, and be thrown away.
SQL_READ: Final = """
SELECT access_token, refresh_token, tokens_generation,
       token_request_until IS NOT NULL AS interrupted
FROM refresher.accounts
WHERE open_id = $1
FOR KEY SHARE
"""

# Committed before the request is sent. Under the lease, and only with the tokens of the claim:
# whoever has lost it, or was overtaken by a new authorization, gets no row.
SQL_BEGIN: Final = """
WITH held AS MATERIALIZED (
    SELECT open_id
    FROM refresher.accounts
    WHERE open_id = $1
      AND lease_epoch = $2
      AND lease_expires_at > now()
      AND tokens_generation = $3
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE refresher.accounts AS a
SET token_request_until = now() + $4::interval
FROM held
WHERE a.open_id = held.open_id
RETURNING a.open_id
"""

# Not under the lease: the API has taken the old pair away, so the new one is the account's, whoever
# works it now, as long as the row holds what was read ($8, $9). Without an access token ($2) the
# stored one stays, with all that belongs to it. Who parked the account meanwhile knew the old pair
# only. A refresh token that stays the same ($4 is NULL) was not used up; of one that was ($10), a
# trigger keeps the fingerprint, so that it is not taken for a new authorization later.
SQL_REPLACE: Final = """
UPDATE refresher.accounts AS a
SET access_token = coalesce($2, a.access_token),
    access_token_expires_at = CASE WHEN $2 IS NULL THEN a.access_token_expires_at
        ELSE now() + $3::float8 * interval '1 second' END,
    token_due_at = CASE WHEN $2 IS NULL THEN a.token_due_at
        ELSE now() + $7::float8 * interval '1 second' END,
    token_standing = CASE WHEN $2 IS NULL OR a.token_standing = 'trusted' THEN a.token_standing
        ELSE 'renewed' END,
    refresh_token = coalesce($4, a.refresh_token),
    refresh_token_expires_at =
        coalesce(now() + $5::float8 * interval '1 second', a.refresh_token_expires_at),
    used_token = CASE WHEN $4 IS NULL THEN a.used_token ELSE $10 END,
    scope = coalesce($6, a.scope),
    tokens_generation = a.tokens_generation + 1,
    token_failures = 0,
    token_request_until = NULL,
    -- A consent that has been prolonged is warned of again.
    consent_warned_days = CASE
        WHEN now() + $5::float8 * interval '1 second'
             > a.refresh_token_expires_at + interval '1 day' THEN NULL
        ELSE a.consent_warned_days END,
    state = CASE WHEN a.state = 'needs_reauthorization' THEN 'active' ELSE a.state END,
    state_reason = CASE WHEN a.state = 'needs_reauthorization' THEN NULL ELSE a.state_reason END,
    state_since = CASE WHEN a.state = 'needs_reauthorization' THEN now() ELSE a.state_since END,
    wake_at = CASE WHEN a.state = 'needs_reauthorization' THEN least(a.wake_at, now())
        ELSE a.wake_at END
WHERE a.open_id = $1
  AND a.access_token IS NOT DISTINCT FROM $8
  AND a.refresh_token IS NOT DISTINCT FROM $9
RETURNING a.open_id
"""

# Nobody needs to wait for it any longer. A request whose outcome is open stays told from none.
SQL_END: Final = """
UPDATE refresher.accounts
SET token_request_until = CASE WHEN $4 THEN '-infinity'::timestamptz END
WHERE open_id = $1 AND lease_epoch = $2 AND tokens_generation = $3
  AND token_request_until IS NOT NULL
"""

# Once for all replicas, and told by the row from then on.
SQL_NOTE_NAME: Final = """
WITH news AS MATERIALIZED (
    SELECT open_id
    FROM refresher.accounts
    WHERE open_id = $1 AND token_open_id IS DISTINCT FROM $2
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE refresher.accounts AS a
SET token_open_id = $2
FROM news
WHERE a.open_id = news.open_id
RETURNING a.open_id
"""

SQL_CLIENT_REFUSED: Final = """
UPDATE refresher.app
SET refused_client = $1, client_refused_at = now()
"""

#: Accounts of one statement that ends waiting.
FREED_AT_ONCE: Final = 500
# Who waits for better credentials is told by the time: a replica that was refused sends no token
# request for so long, and each account it meets meanwhile waits as long from then on. Another
# back-off that ends in the same time is ended, too: that costs one request.
WAITING: Final = f"""
SELECT a.open_id
FROM refresher.accounts AS a, refresher.app
WHERE app.refused_client <> $1
  AND a.state = 'active'
  AND a.token_failures > 0
  AND a.token_due_at > now()
  AND a.token_due_at
      <= app.client_refused_at + interval '{2 * CLIENT_REFUSED_SECONDS + 30} seconds'
"""
SQL_WAITING: Final = f"{WAITING} AND a.open_id > $2 ORDER BY a.open_id LIMIT {FREED_AT_ONCE}"
SQL_FREE: Final = f"""
WITH waiting AS MATERIALIZED (
    {WAITING} AND a.open_id = ANY ($2::text[])
    FOR NO KEY UPDATE OF a SKIP LOCKED
),
impatient AS MATERIALIZED (
    SELECT set_config('lock_timeout', '200ms', true)
)
UPDATE refresher.accounts AS a
SET token_due_at = now(),
    -- Not of an account in work: there the end of its lease stands.
    wake_at = CASE WHEN a.lease_expires_at > now() THEN a.wake_at ELSE least(a.wake_at, now()) END
FROM waiting
WHERE a.open_id = waiting.open_id
  AND (SELECT count(*) FROM impatient) > 0
RETURNING a.open_id
"""

# Each threshold once for all replicas, and anew after a new authorization.
ENDING: Final = """
    SELECT open_id
    FROM refresher.accounts
    WHERE state IN ('active', 'paused')
      AND refresh_token_expires_at <= now() + interval '14 days'
      AND (consent_warned_days IS NULL
           OR (consent_warned_days > 3 AND refresh_token_expires_at <= now() + interval '3 days'))
"""
NOTED: Final = """
    FOR NO KEY UPDATE SKIP LOCKED
),
impatient AS MATERIALIZED (
    SELECT set_config('lock_timeout', '200ms', true)
)
UPDATE refresher.accounts AS a
SET consent_warned_days = CASE
    WHEN a.refresh_token_expires_at <= now() THEN 0
    WHEN a.refresh_token_expires_at <= now() + interval '3 days' THEN 3
    ELSE 14 END
FROM ending
WHERE a.open_id = ending.open_id
  AND (SELECT count(*) FROM impatient) > 0
RETURNING a.open_id, a.refresh_token_expires_at, a.consent_warned_days
"""
SQL_CONSENTS: Final = f"WITH ending AS MATERIALIZED ({ENDING} LIMIT 500 {NOTED}"
# Where one account spoils it for the others: who they are, and then part by part.
SQL_ENDING: Final = f"{ENDING} LIMIT 500"
SQL_CONSENTS_PART: Final = f"""
WITH ending AS MATERIALIZED ({ENDING} AND open_id = ANY ($1::text[]) {NOTED}
"""

# Every account once an hour at most, however often somebody writes its old tokens.
SQL_UNSAID: Final = """
SELECT open_id
FROM refresher.accounts
WHERE tokens_ignored > 0 AND tokens_ignored_said < now() - interval '1 hour'
LIMIT 100
"""
SQL_IGNORED: Final = """
WITH unsaid AS MATERIALIZED (
    SELECT open_id, tokens_ignored
    FROM refresher.accounts
    WHERE open_id = ANY ($1::text[])
      AND tokens_ignored > 0 AND tokens_ignored_said < now() - interval '1 hour'
    FOR NO KEY UPDATE SKIP LOCKED
),
impatient AS MATERIALIZED (
    SELECT set_config('lock_timeout', '200ms', true)
)
UPDATE refresher.accounts AS a
SET tokens_ignored = 0,
    tokens_ignored_said = now()
FROM unsaid
WHERE a.open_id = unsaid.open_id
  AND (SELECT count(*) FROM impatient) > 0
RETURNING a.open_id, unsaid.tokens_ignored
"""


class TokenStore:
    """The tokens in the accounts' rows. Raises `DatabaseUnavailable`.

    Where a request was begun and nothing more was heard of it, the account's token is left alone
    for `unknown_seconds`: whoever sent it may hold the new pair and be cut off. `client` is the
    fingerprint of the app's credentials that the requests are sent with.
    """

    def __init__(
        self, pool: Pool, sealer: Sealer, *, unknown_seconds: float = 60.0, client: str = ""
    ) -> None:
        self._pool = pool
        self._sealer = sealer
        self._unknown = timedelta(seconds=unknown_seconds)
        self._client = client

    async def begin(self, claim: Claim) -> RefreshToken | None:
        """What to refresh with, noted as under way; None where it is no longer ours to do.

        Raises `TokenUnreadable`, having noted nothing.
        """
        async with connection(self._pool) as taken:
            row = await taken.fetchrow(SQL_READ, claim.open_id)
            if row is None or row["tokens_generation"] != claim.token.generation:
                return None
            token = self._sealer.unseal(row["refresh_token"]) or ""
            begun = await taken.fetchval(
                SQL_BEGIN,
                claim.open_id,
                claim.lease_epoch,
                claim.token.generation,
                self._unknown,
            )
        return RefreshToken(token, row["interrupted"]) if begun else None

    async def replace(
        self, claim: Claim, used: RefreshToken, pair: TokenPair, due_in_seconds: float
    ) -> bool:
        """Store a new pair; False where somebody has replaced the refresh token `used` for it.

        Then theirs is newer. An access token of theirs stays in any case. Idempotent; lifetimes
        count from now. Raises `RowUnchanged` where the row cannot be written.
        """
        renewed = pair.refresh_token if pair.refresh_token != used.token else None
        before = None
        async with connection(self._pool) as taken:
            while True:
                row = await taken.fetchrow(SQL_READ, claim.open_id)
                if row is None:
                    return False
                if row == before:
                    raise RowUnchanged("a trigger or a rule suppresses the UPDATE")
                before = row
                if not self._is(row["refresh_token"], used.token):
                    # Ours all the same after a commit whose answer was lost.
                    return self._is(row["refresh_token"], pair.refresh_token)
                keeps_ours = self._is(row["access_token"], claim.access_token)
                if await taken.fetchval(
                    SQL_REPLACE,
                    claim.open_id,
                    self._sealer.seal(pair.access_token) if keeps_ours else None,
                    pair.access_token_lives_seconds,
                    self._sealer.seal(renewed),
                    pair.refresh_token_lives_seconds,
                    pair.scope,
                    due_in_seconds,
                    row["access_token"],
                    row["refresh_token"],
                    fingerprint(used.token),
                ):
                    return True

    def _is(self, stored: str | None, token: str | None) -> bool:
        """Whether a stored token is this one still.

        Its text and its generation do not tell: keys are rotated at any time. For the same reason
        one that we cannot read is taken for it.
        """
        try:
            return self._sealer.unseal(stored) == token
        except TokenUnreadable:
            return True

    async def note_name(self, claim: Claim, open_id: str) -> bool:
        """Keep under which open_id the API knows the account; whether that is news."""
        async with connection(self._pool) as taken:
            return bool(await taken.fetchval(SQL_NOTE_NAME, claim.open_id, open_id))

    async def end(self, claim: Claim, *, unknown: bool) -> None:
        """A request that was begun is over; `unknown`: what came of it was not learnt."""
        async with connection(self._pool) as taken:
            await taken.execute(
                SQL_END, claim.open_id, claim.lease_epoch, claim.token.generation, unknown
            )

    async def client_refused(self) -> None:
        """Note for later starts that the app's credentials were refused."""
        async with connection(self._pool) as taken:
            await taken.execute(SQL_CLIENT_REFUSED, self._client)


async def free_waiting(pool: Pool, client: str, refused: Refused = lambda _, __: None) -> int:
    """End the waits for other credentials of the app than those refused; of how many accounts.

    None waits for that where `client`, the fingerprint of those to be used now, was itself refused
    last. `refused` hears of accounts that cannot be freed for a trigger, a constraint or a lock of
    theirs. Idempotent. Raises `DatabaseUnavailable`.
    """
    freed, walked_to = 0, ""
    while waiting := _open_ids(await _fetched(pool, SQL_WAITING, client, walked_to)):
        freed += len(
            await in_parts(
                waiting, lambda open_ids: _fetched(pool, SQL_FREE, client, open_ids), refused
            )
        )
        walked_to = waiting[-1]
    return freed


def fingerprint(token: str) -> bytes:
    """By which a refresh token is known when it comes back; it tells nothing of the token."""
    return sha256(token.encode()).digest()


async def consents_ending(
    pool: Pool, refused: Refused = lambda _, __: None
) -> Sequence[tuple[OpenId, datetime, int]]:
    """Some accounts whose consent ends within 14 or 3 days and for whom that was not said yet.

    `refused` hears of accounts for whom it cannot be noted: a trigger, a constraint or a lock
    stands in the way. They are left out.
    """
    try:
        rows = await _fetched(pool, SQL_CONSENTS)
    except REFUSALS:
        rows = await in_parts(
            _open_ids(await _fetched(pool, SQL_ENDING)),
            lambda open_ids: _fetched(pool, SQL_CONSENTS_PART, open_ids),
            refused,
        )
    return [
        (OpenId(row["open_id"]), row["refresh_token_expires_at"], row["consent_warned_days"])
        for row in rows
    ]


async def ignored_tokens(
    pool: Pool, refused: Refused = lambda _, __: None
) -> Sequence[tuple[OpenId, int]]:
    """Some accounts into which used-up tokens were written, and how often since that was said.

    `refused` as for `consents_ending`.
    """
    unsaid = _open_ids(await _fetched(pool, SQL_UNSAID))
    rows: Sequence[Record] = ()
    if unsaid:  # mostly nobody: one look is all that it costs
        rows = await in_parts(
            unsaid, lambda open_ids: _fetched(pool, SQL_IGNORED, open_ids), refused
        )
    return [(OpenId(row["open_id"]), row["tokens_ignored"]) for row in rows]


async def _fetched(pool: Pool, statement: str, *values: object) -> Sequence[Record]:
    async with connection(pool) as taken:
        rows: Sequence[Record] = await taken.fetch(statement, *values)
    return rows


def _open_ids(rows: Sequence[Record]) -> Sequence[OpenId]:
    return [OpenId(row["open_id"]) for row in rows]
