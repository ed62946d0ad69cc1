"""`videos`: import, list and retry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from refresher.cli.imports import DryRun, Strict, csv_file, doubts_of, import_file
from refresher.cli.listing import AsCsv, AsJson, one_of, printing, text
from refresher.cli.options import TAKES_HYPHENS, unknown_account, unknown_video
from refresher.cli.output import Misuse, encodable
from refresher.csv_files.columns import VIDEO_COLUMNS, VIDEO_NEEDS
from refresher.domain.spans import counted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from datetime import datetime

    from refresher.csv_files.rows import VideoRow
    from refresher.domain.due import DuePolicy
    from refresher.postgres.database import Pool
    from refresher.postgres.listing import Row

VIDEO_STATES: Final = ("missing", "gone", "rejected", "expired")
#: A column of the table, and what of a video is in it.
VIDEO_CELLS: Final = {
    "open_id": text("open_id"),
    "video_id": text("video_id"),
    "cover expires": text("cover_expires_at"),
    "missing since": text("missing_since"),
    "gone since": text("gone_at"),
    "refusal": text("refusal"),
    "misses": text("misses"),
    "asked for at": text("due_at"),
    "account": text("account_state"),
}

videos = typer.Typer(help="The videos whose covers are kept alive.")


@videos.command("import")
def import_videos(
    file: Annotated[Path, csv_file(VIDEO_COLUMNS, VIDEO_NEEDS)],
    dry_run: DryRun = False,
    strict: Strict = False,
) -> None:
    """Add videos of known accounts from a CSV file; all or nothing.

    Example: refresher videos import videos.csv --dry-run
    """
    from refresher.cli.progress import progress
    from refresher.csv_files.complaints import named
    from refresher.csv_files.rows import read_videos
    from refresher.csv_files.sheet import count_lines
    from refresher.postgres import imports
    from refresher.postgres.status import read_now
    from refresher.settings import read_settings

    policy = read_settings().due_policy
    lines = count_lines(file)

    async def read(pool: Pool) -> None:
        now = await read_now(pool)
        with progress(named(file), lines) as on_progress:
            doubts = doubts_of(strict=strict)
            rows = read_videos(file, now, lambda line: on_progress(line, None), doubts=doubts)
            due_at = _first_due(policy, now)
            imported = await imports.import_videos(pool, rows, due_at, dry_run=dry_run)
        known = imported.rows - imported.stored
        would = " would be" if dry_run else ""
        print(f"{counted(imported.stored, 'video')}{would} added, {known:,} known already")

    import_file(file, read)


@videos.command("list", context_settings=TAKES_HYPHENS)
def list_videos(
    state: Annotated[
        str | None, typer.Option(help=f"Only these: {', '.join(VIDEO_STATES)}.")
    ] = None,
    account: Annotated[str | None, typer.Option(metavar="OPEN_ID", help="Only its videos.")] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Videos with what is known of their covers, and when they are asked for next.

    Example: refresher videos list --state gone --csv
    """
    from refresher.cli.database import with_database
    from refresher.domain.model import OpenId
    from refresher.postgres import listing
    from refresher.settings import read_settings

    wanted = one_of("--state", state, VIDEO_STATES)
    show = printing(VIDEO_CELLS, listing.VIDEO_FIELDS, as_json=as_json, as_csv=as_csv)
    open_id = None if account is None else OpenId(account)

    async def list_known(pool: Pool) -> None:
        await _check_known(pool, account)
        await show(listing.list_videos(pool, wanted, open_id))

    with_database(read_settings(), list_known)


async def _check_known(pool: Pool, account: str | None) -> None:
    """Raises `Misuse` for an account that is not stored."""
    from refresher.postgres.status import is_known

    if account is not None and not (encodable(account) and await is_known(pool, account)):
        raise unknown_account(account)


@videos.command("retry", context_settings=TAKES_HYPHENS)
def retry_videos(
    video_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[VIDEO_ID]...", help="These videos.")
    ] = None,
    account: Annotated[str | None, typer.Option(metavar="OPEN_ID", help="Only its videos.")] = None,
    state: Annotated[
        str | None, typer.Option(help=f"Only these: {', '.join(VIDEO_STATES)}.")
    ] = None,
) -> None:
    """Ask for videos again at the next poll, as if they had never been missing.

    Example: refresher videos retry --state gone
    """
    from refresher.cli.database import with_database
    from refresher.domain.retried import retried_lines
    from refresher.postgres.retries import retry_all
    from refresher.postgres.status import read_paused_since
    from refresher.settings import read_settings

    wanted = one_of("--state", state, VIDEO_STATES)
    if not (video_ids or account or wanted) or (video_ids and wanted):
        raise Misuse("expected VIDEO_ID, --account or --state; IDs go without --state")

    settings = read_settings()

    async def retry(pool: Pool) -> None:
        pages = await _retried(pool, video_ids or [], account, wanted)
        retried = await retry_all(pool, pages, managed=settings.renews_tokens)
        paused_since = await read_paused_since(pool)
        print(*retried_lines(retried, paused=paused_since is not None), sep="\n")

    with_database(settings, retry)


async def _retried(
    pool: Pool, video_ids: Sequence[str], account: str | None, wanted: str | None
) -> AsyncIterator[Sequence[Row]]:
    from refresher.domain.model import OpenId
    from refresher.postgres.listing import list_videos
    from refresher.postgres.retries import find_videos

    await _check_known(pool, account)
    open_id = None if account is None else OpenId(account)
    if not video_ids:
        return list_videos(pool, wanted, open_id)
    found = await find_videos(pool, set(filter(encodable, video_ids)), open_id)
    known = {row["video_id"] for row in found}
    if unknown := [video_id for video_id in video_ids if video_id not in known]:
        raise unknown_video(*unknown, account=account)
    return _one_page(found)


async def _one_page(rows: Sequence[Row]) -> AsyncIterator[Sequence[Row]]:
    yield rows


def _first_due(policy: DuePolicy, now: datetime) -> Callable[[VideoRow], datetime | None]:
    """When an imported video is first due: before its cover dies, or None, at once, without one."""
    from refresher.domain.due import account_spread, due_after_refresh
    from refresher.domain.model import OpenId

    def due_at(row: VideoRow) -> datetime | None:
        if row.cover_expires_at is None or row.cover_expires_at <= now:
            return None
        spread = account_spread(OpenId(row.open_id))
        return due_after_refresh(policy, spread, now, row.cover_expires_at)

    return due_at
