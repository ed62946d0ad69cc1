"""What can go wrong outside, as the flow sees it. Adapters raise these `from` the original."""


class DatabaseUnavailable(Exception):
    """The database did not answer; the statement may be tried again."""


class DatabaseBusy(DatabaseUnavailable):
    """A lock or a deadlock stood in the way of one statement; the database itself is there."""


class StatementFailed(DatabaseUnavailable):
    """One statement ran out of time, or failed for what may be its rows' matter or the database's.

    A statement about no rows tells which.
    """


def is_away(error: Exception) -> bool:
    """Whether the database itself is away, whatever the statement was about."""
    return isinstance(error, DatabaseUnavailable) and not isinstance(
        error, (DatabaseBusy, StatementFailed)
    )


class RowUnchanged(Exception):
    """Something suppresses the row's UPDATE: a trigger that returns NULL, or a rule."""


class UpstreamError(Exception):
    """A request that brought no covers and no tokens. `answers.understood` says what follows."""

    def __init__(
        self,
        code: str,
        *,
        status: int = 0,
        log_id: str = "",
        detail: str = "",
        spoken: bool = False,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(f"{code} (HTTP {status}) {detail}".rstrip())
        #: TikTok's error code, or our word where TikTok gave none.
        self.code = code
        #: The HTTP status; 0 without an answer.
        self.status = status
        #: What TikTok's support asks for; empty where none came.
        self.log_id = log_id
        self.detail = detail
        #: The code came in TikTok's own error object.
        self.spoken = spoken
        #: How long the reply asks us to wait; None where it does not say.
        self.retry_after_seconds = retry_after_seconds


class AccessTokenRefused(UpstreamError):
    """The access token is invalid, expired or revoked."""


class ScopeRefused(UpstreamError):
    """The user did not grant, or took back, the scope `video.list`."""


class Throttled(UpstreamError):
    """429: too many requests within a minute."""


class DailyQuotaSpent(UpstreamError):
    """A quota for the whole day is spent."""


class QueryRefused(UpstreamError):
    """The request itself was refused, `invalid_params` for one. Sending it again is no help."""


class GrantRefused(UpstreamError):
    """The refresh token is used up, expired or taken back: only its user can give another."""


class ClientRefused(UpstreamError):
    """The app's client key or secret is wrong, or the app may not refresh: no account's fault."""


class UpstreamFailed(UpstreamError):
    """5xx, a time-out, a cut connection or a body that is no answer: to be tried again."""


class NotSent(UpstreamFailed):
    """The request has not been sent: no connection was made, or now was not the time for it."""


class TokenRequestFailed(UpstreamFailed):
    """The token endpoint said why it gives no tokens just now: nothing was used up."""


class TokenUnreadable(Exception):
    """A stored token is sealed with a key that is not among ours."""


class CoverUnusable(Exception):
    """An answer's cover that cannot be stored; the message is the reason, without the URL."""
