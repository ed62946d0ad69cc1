"""Ends a user's consent at TikTok, before an account is deleted.

To revoke takes a living access token, and deleting the account loses it: so this comes first.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from refresher.domain.due import account_spread
from refresher.domain.errors import (
    AccessTokenRefused,
    ClientRefused,
    DatabaseUnavailable,
    GrantRefused,
    RowUnchanged,
    TokenUnreadable,
    UpstreamError,
    UpstreamFailed,
)
from refresher.domain.model import RefreshToken, usable_token
from refresher.domain.token_renewal import renew_in_seconds
from refresher.postgres.database import Pool
from refresher.postgres.removal import Taken, give_back, take
from refresher.postgres.sealing import Sealer
from refresher.postgres.tokens import TokenStore
from refresher.tiktok.client import TikTok

T = TypeVar("T")

#: How often it is looked whether a token request of a daemon is over.
LOOK_SECONDS: Final = 0.5
#: Three requests may be sent under our lease, and each is stored.
REQUESTS: Final = 3
STORING_SECONDS: Final = 30.0


class NotRevokedError(Exception):
    """The consent was not revoked now; the message says why. To try again may help."""


class NotRevocableError(Exception):
    """The consent cannot be revoked; the message says why. To try again is no help."""


async def take_when_free(
    pool: Pool, sealer: Sealer, open_id: str, seconds: float, on_wait: Callable[[float], None]
) -> Taken | None:
    """Take the account from the daemons; None if it is not stored.

    A token request that is under way is waited for: `on_wait` hears for how many seconds at most.
    Then it is still `renewing` only if another one was begun meanwhile. `seconds` is the time-out
    of a request. Raises `DatabaseUnavailable`.
    """
    lease = timedelta(seconds=REQUESTS * seconds + STORING_SECONDS)

    def look() -> Coroutine[Any, Any, Taken | None]:
        return take(pool, sealer, open_id, lease)

    looking = asyncio.ensure_future(look())
    try:
        first = await asyncio.shield(looking)
        if first is None or not first.renewing:
            return first
        on_wait(first.renewing.total_seconds())
        return await _free(look, first, first.claim.time.now + first.renewing)
    except BaseException:
        # What the first look has changed is known only when it is over.
        await asyncio.wait([looking])
        if not looking.exception() and (first := looking.result()):
            with suppress(DatabaseUnavailable):
                await give_back(pool, first)
        raise


async def _free(
    look: Callable[[], Coroutine[Any, Any, Taken | None]], first: Taken, ends_at: datetime
) -> Taken | None:
    """The account when its token request is over, or should be."""
    taken: Taken | None = first
    while taken and taken.renewing and taken.claim.time.now <= ends_at:
        await asyncio.sleep(LOOK_SECONDS)
        taken = await look()
    # By then it is paused: it stood as the first look saw it.
    return replace(taken, was=first.was, since=first.since) if taken else None


@dataclass(frozen=True, slots=True)
class Consent:
    """A user's consent, and what it can be ended with."""

    taken: Taken
    store: TokenStore
    tiktok: TikTok
    #: For one request.
    seconds: float
    #: Refresh tokens are ours to use.
    renews: bool

    async def end(self) -> bool:
        """Whether it was revoked: False if TikTok says that it is over already.

        Raises `NotRevokedError` and `NotRevocableError`, `DatabaseUnavailable`.
        """
        try:
            return await self._end()
        except ClientRefused as error:
            told = f"TikTok refuses the app credentials: {_told(error)}"
            raise NotRevocableError(told) from error
        except UpstreamError as error:
            raise NotRevokedError(_told(error)) from error
        except TokenUnreadable as error:
            raise NotRevocableError(f"its tokens cannot be read: {error}") from error

    async def _end(self) -> bool:
        token = self.taken.claim.token
        if not token.readable:
            raise TokenUnreadable("sealed with a key that is not among REFRESHER_TOKEN_KEYS")
        # A dead one is not sent: other revoke endpoints (RFC 7009) call that a success, too.
        if not token.dead:
            with suppress(AccessTokenRefused):
                await self.tiktok.revoke(self.taken.claim.access_token or "", self.seconds)
                return True
        if self.taken.consent_ended:
            return False
        if not (token.renewable and self.renews):
            raise NotRevocableError(
                "its access token is dead, and there is no refresh token that we may renew it with"
            )
        try:
            access_token = await _undisturbed(self._renewed())
        except GrantRefused:
            return False
        await self.tiktok.revoke(access_token, self.seconds)
        return True

    async def _renewed(self) -> str:
        """A living access token. The pair is stored, so that a crash does not lose it."""
        claim = self.taken.claim
        used = await self.store.begin(claim)
        if used is None:
            raise NotRevokedError("somebody stores other tokens for it just now")
        if not usable_token(used.token):
            await self.store.end(claim, unknown=used.interrupted)
            raise NotRevocableError("its access token is dead, and its refresh token is no token")
        try:
            pair = await self.tiktok.renew_token(used.token, self.seconds)
        except UpstreamError as error:
            await self._renewal_failed(used, error)
            raise
        spread = account_spread(claim.open_id)
        due_in = renew_in_seconds(pair.access_token_lives_seconds, spread)
        # What could not be stored can still be revoked with.
        with suppress(DatabaseUnavailable, RowUnchanged):
            await self.store.replace(claim, used, pair, due_in)
        return pair.access_token

    async def _renewal_failed(self, used: RefreshToken, error: UpstreamError) -> None:
        # Itself, not its kinds: nobody knows whether the refresh token was used up.
        unclear = type(error) is UpstreamFailed
        await self.store.end(self.taken.claim, unknown=used.interrupted or unclear)
        if isinstance(error, GrantRefused) and used.interrupted:
            raise NotRevocableError(
                "its tokens are dead: a pair was lost in a renewal that was interrupted"
            ) from error


async def _undisturbed(work: Coroutine[Any, Any, T]) -> T:
    """Done to its end, also when we are cancelled meanwhile: a pair must not be lost."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _told(error: UpstreamError) -> str:
    log_id = f" (log_id {error.log_id})" if error.log_id else ""
    return f"{error}{log_id}"
