"""What the emulated TikTok knows: users, their videos and their tokens."""

import math
import secrets
import sys
from collections.abc import Callable

from refresher.emulator.grants import Account, Consent, Grant, Origins, Refusal, Tokens
from refresher.emulator.options import (
    CODE_LIFE_SECONDS,
    DEFAULT_SCOPE,
    REFRESH_TOKEN_TTL_SECONDS,
    EmulatorOptions,
)


class World:
    """Users, their videos and their tokens.

    `options` may be replaced at any time. `clock` is Unix time and decides every expiry.
    """

    def __init__(self, options: EmulatorOptions, clock: Callable[[], float]) -> None:
        self.options = options
        self.clock = clock
        self._begin()

    def _begin(self) -> None:
        """Nobody has authorized the app yet."""
        self.accounts: dict[str, Account] = {}
        self.access_tokens = Tokens()
        self.refresh_tokens = Tokens()
        #: Also of refresh tokens that are dead by now.
        self.origins = Origins()
        #: By authorization code. One that was tried is gone.
        self.consents: dict[str, Consent] = {}
        #: IDs of videos for which a query is refused.
        self.refused: set[str] = set()

    def add_account(
        self,
        open_id: str,
        access_token: str,
        *,
        access_token_expires_at: float | None = None,
        refresh_token: str | None = None,
        refresh_token_expires_at: float | None = None,
        scope: str = DEFAULT_SCOPE,
    ) -> None:
        """Let a user authorize the app; times are Unix times.

        Again for a known open_id is a new authorization: its videos stay, its tokens so far die.
        An access token without expiry lives until revoked, a refresh token for 180 days.
        """
        account = self.accounts.setdefault(open_id, Account(open_id, scope, set()))
        account.scope = scope
        self.access_tokens.drop_all(open_id)
        self.refresh_tokens.drop_all(open_id)
        expires_at = math.inf if access_token_expires_at is None else access_token_expires_at
        self.access_tokens.add(access_token, account, expires_at)
        if refresh_token is not None:
            if refresh_token_expires_at is None:
                refresh_token_expires_at = self.clock() + REFRESH_TOKEN_TTL_SECONDS
            self._add_refresh_token(refresh_token, account, refresh_token_expires_at)

    def _add_refresh_token(self, refresh_token: str, account: Account, expires_at: float) -> None:
        self.refresh_tokens.add(refresh_token, account, expires_at)
        self.origins.add(refresh_token, account.open_id)

    def add_video(self, open_id: str, video_id: str) -> None:
        """Idempotent; KeyError for an account that was never added."""
        self.accounts[open_id].videos.add(sys.intern(video_id))

    def remove_video(self, open_id: str, video_id: str) -> None:
        """As if deleted or made private: left out from now on. Idempotent."""
        self.accounts[open_id].videos.discard(video_id)

    def revoke_access_token(self, open_id: str) -> None:
        """Every access token of the account dies at once; its refresh token goes on working."""
        self.access_tokens.drop_all(open_id)

    def revoke_refresh_token(self, open_id: str) -> None:
        """The user takes the consent back: every refresh token of the account dies at once.

        Not documented: that its access tokens go on working; `revoke_access_token` ends them.
        """
        self.refresh_tokens.drop_all(open_id)

    def end_consent(self, open_id: str) -> None:
        """The user or the app ends the authorization: every token of the account dies at once.

        Likely, not documented in so many words: that the refresh tokens die, too. The page on
        revoking says that it disconnects the app. KeyError for an account that was never added.
        """
        account = self.accounts[open_id]
        self.access_tokens.drop_all(account.open_id)
        self.refresh_tokens.drop_all(account.open_id)

    def refuse_account(self, open_id: str, code: str, http_status: int = 403) -> None:
        """Refuse every query of this user with that error code until `accept_account`.

        Not documented: which codes a restricted user brings, and with which status. KeyError for
        an account that was never added.
        """
        self.accounts[open_id].refusal = Refusal(code, http_status)

    def accept_account(self, open_id: str) -> None:
        """The end of `refuse_account`. Idempotent; KeyError for an account never added."""
        self.accounts[open_id].refusal = None

    def holds_access_token(self, open_id: str, token: str) -> bool:
        """Whether the token is that account's and alive now."""
        return self.access_tokens.holds(open_id, token, self.clock())

    def holds_refresh_token(self, open_id: str, token: str) -> bool:
        """Whether the token is that account's and alive now."""
        return self.refresh_tokens.holds(open_id, token, self.clock())

    def set_scope(self, open_id: str, scope: str) -> None:
        """What the user agrees to from now on, with all tokens.

        Raises KeyError for an account that was never added.
        """
        self.accounts[open_id].scope = scope

    def refuse_video(self, video_id: str) -> None:
        """Answer every query that contains this ID with invalid_params as a whole. Idempotent.

        Not documented: that any ID does so. TikTok does not say which ID it was, either.
        """
        self.refused.add(video_id)

    def accept_video(self, video_id: str) -> None:
        """The end of `refuse_video`. Idempotent."""
        self.refused.discard(video_id)

    def renew(self, used: str, grant: Grant, now: float) -> tuple[str, str]:
        """A new access token and refresh token for a used refresh token.

        The new refresh token expires when the used one would have: the consent ends then.
        """
        account, options = grant.account, self.options
        all_die = options.old_access_tokens == "die"
        self.access_tokens.drop_all(account.open_id, expired_by=math.inf if all_die else now)
        self.origins.use(used)
        if options.refresh_token_rotation == "strict":  # noqa: S105 - a mode
            self.refresh_tokens.drop(used)
        access, refresh = new_pair()
        self.access_tokens.add(access, account, now + options.access_token_ttl_seconds)
        self._add_refresh_token(refresh, account, grant.expires_at)
        return access, refresh

    def consent(self, open_id: str, scope: str, redirect_uri: str, code_challenge: str) -> str:
        """A code for what the user agrees to on the authorization page.

        Not documented: that it lives five minutes. KeyError for an account that was never added.
        """
        consent = Consent(
            self.accounts[open_id].open_id,
            scope,
            redirect_uri,
            code_challenge,
            self.clock() + CODE_LIFE_SECONDS,
        )
        # Real ones hold characters that a redirect has to encode, too.
        code = f"{secrets.token_urlsafe(24)}*v!4523.s1"
        self.consents[code] = consent
        return code

    def exchange(self, consent: Consent, now: float) -> tuple[str, str]:
        """The first access token and refresh token of an authorization.

        Not documented: that the tokens of an earlier one die.
        """
        access, refresh = new_pair()
        self.add_account(
            consent.open_id,
            access,
            access_token_expires_at=now + self.options.access_token_ttl_seconds,
            refresh_token=refresh,
            refresh_token_expires_at=now + REFRESH_TOKEN_TTL_SECONDS,
            scope=consent.scope,
        )
        return access, refresh


def new_pair() -> tuple[str, str]:
    """An access token and a refresh token that nobody has.

    Not from the seed: two emulators must not give the same token to different accounts.
    """
    return f"act.{secrets.token_hex(20)}", f"rft.{secrets.token_hex(20)}"
