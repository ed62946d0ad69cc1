"""What `accounts list` and `videos list` show, page by page: memory and snapshots stay small."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from refresher.domain.model import OpenId
from refresher.postgres.database import REPORT_SECONDS, Pool, acquired
from refresher.postgres.statements import statement

#: Accounts in a page, and videos that are read for one.
ACCOUNTS_AT_ONCE: Final = 1_000
VIDEOS_AT_ONCE: Final = 10_000

ACCOUNTS: Final = statement("accounts")
VIDEOS: Final = statement("videos")
VIDEOS_OF_ACCOUNT: Final = statement("videos_of_account")

#: The columns of both lists, also of an empty one.
ACCOUNT_FIELDS: Final = (
    "open_id", "state", "state_reason", "state_since", "isolated_reason", "isolated_since",
    "videos", "valid", "access_token_expires_at", "refresh_token_expires_at", "last_failure_at",
    "last_failure_code", "last_failure_http_status", "last_failure_log_id", "wake_at",
)  # fmt: skip
VIDEO_FIELDS: Final = (
    "open_id", "video_id", "cover_expires_at", "refreshed_at", "missing_since", "gone_at",
    "misses", "refusal", "due_at", "account_state",
)  # fmt: skip

#: What is stored of an account or a video, by the name of the column.
Row = Mapping[str, Any]


async def list_accounts(
    pool: Pool, wanted: str | None = None, *, managed: bool = True
) -> AsyncIterator[Sequence[Row]]:
    """The accounts in pages; with `wanted` those of a state, or isolated, or with a dead token.

    `managed`: we renew access tokens. Raises `DatabaseUnavailable`, as all functions here.
    """
    after = ""
    which = {"wanted": wanted, "managed": managed, "rows": ACCOUNTS_AT_ONCE}
    while page := await _page(pool, ACCOUNTS(after=after, **which)):
        yield page
        after = page[-1]["open_id"]


async def list_videos(
    pool: Pool, wanted: str | None = None, account: OpenId | None = None
) -> AsyncIterator[Sequence[Row]]:
    """The videos, of one account or of all, in pages; with `wanted` only those of that state.

    A page may be empty, and others come after it.
    """
    which = VIDEOS if account is None else VIDEOS_OF_ACCOUNT
    open_id, video_id = account or "", ""
    while page := await _page(
        pool,
        which(wanted=wanted, rows=VIDEOS_AT_ONCE, after_open_id=open_id, after_video_id=video_id),
    ):
        yield [_listed(row) for row in page if row["open_id"] is not None]
        open_id, video_id = page[-1]["last_open_id"], page[-1]["last_video_id"]


def _listed(row: Row) -> Row:
    return {name: value for name, value in row.items() if not name.startswith("last_")}


async def _page(pool: Pool, asked: tuple[Any, ...]) -> Sequence[Row]:
    async with acquired(pool) as connection:
        return [dict(row) for row in await connection.fetch(*asked, timeout=REPORT_SECONDS)]
