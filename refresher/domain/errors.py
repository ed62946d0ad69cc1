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
    """A request that brought no answer for its videos.

    `code` is TikTok's error code, or our word where TikTok gave none; `status` the HTTP status, 0
    without an answer; `log_id` is what TikTok's support asks for, empty where none came. `spoken`:
    the code came in TikTok's own error object.
    """

    def __init__(
        self,
        code: str,
        *,
        status: int = 0,
        log_id: str = "",
        detail: str = "",
        spoken: bool = False,
    ) -> None:
        super().__init__(f"{code} (HTTP {status}) {detail}".rstrip())
        self.code = code
        self.status = status
        self.log_id = log_id
        self.detail = detail
        self.spoken = spoken


class AccessTokenRefused(UpstreamError):
    """The access token is invalid, expired or revoked."""


class ScopeRefused(UpstreamError):
    """The user did not grant, or took back, the scope `video.list`."""


class Throttled(UpstreamError):
    """429. `retry_after_seconds` is the reply's own wish, None as TikTok gives none."""

    def __init__(
        self, code: str, *, status: int, log_id: str, retry_after_seconds: float | None
    ) -> None:
        super().__init__(code, status=status, log_id=log_id)
        self.retry_after_seconds = retry_after_seconds


class DailyQuotaSpent(UpstreamError):
    """A quota for the whole day is spent; no 429 of a minute's limit. Else as `Throttled`."""

    def __init__(
        self, code: str, *, status: int, log_id: str, retry_after_seconds: float | None
    ) -> None:
        super().__init__(code, status=status, log_id=log_id)
        self.retry_after_seconds = retry_after_seconds


class QueryRefused(UpstreamError):
    """The request itself was refused, `invalid_params` for one. Sending it again is no help."""


class GrantRefused(UpstreamError):
    """The refresh token is used up, expired or taken back: only its user can give another."""


class ClientRefused(UpstreamError):
    """The app's client key or secret is wrong, or the app may not refresh: no account's fault."""


class UpstreamFailed(UpstreamError):
    """5xx, a time-out, a cut connection or a body that is no answer: to be tried again."""


class NotSent(UpstreamFailed):
    """No connection was made, so the request has not been sent."""


class TokenRequestFailed(UpstreamFailed):
    """The token endpoint said why it gives no tokens just now: nothing was used up."""


class TokenUnreadable(Exception):
    """A stored token is sealed with a key that is not among ours."""


class CoverUnusable(Exception):
    """An answer's cover that cannot be stored; the message is the reason, without the URL."""
