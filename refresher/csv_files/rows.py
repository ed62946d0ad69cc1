"""The rows of `accounts import` and `videos import`, checked; errors with their line."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from refresher.csv_files.columns import ACCOUNT_COLUMNS, ACCOUNT_NEEDS, VIDEO_COLUMNS, VIDEO_NEEDS
from refresher.csv_files.complaints import Doubts
from refresher.csv_files.rounded import Rounded
from refresher.csv_files.sheet import opened
from refresher.csv_files.values import (
    cover_url_of,
    expiry_of,
    open_id_of,
    optional_token_of,
    scope_of,
    time_of,
    token_of,
    video_id_of,
)
from refresher.domain.errors import CoverUnusable


@dataclass(frozen=True, slots=True)
class AccountRow:
    """A row of `accounts import`."""

    line: int
    open_id: str
    access_token: str = field(repr=False)
    access_token_expires_at: datetime | None
    refresh_token: str | None = field(repr=False)
    refresh_token_expires_at: datetime | None
    scope: str | None


@dataclass(frozen=True, slots=True)
class VideoRow:
    """A row of `videos import`."""

    line: int
    open_id: str
    video_id: str
    cover_image_url: str | None
    #: None if the URL names no expiry, or there is no URL.
    cover_expires_at: datetime | None


def read_accounts(
    path: Path, on_progress: Callable[[int], None] = lambda _: None, *, doubts: Doubts | None = None
) -> Iterator[AccountRow]:
    """The accounts of a file, or of standard input for `-`.

    `on_progress` hears the number of each line. All rows are read and checked, but from the first
    wrong one on, none is yielded. Raises `BadFileError` at the end.
    """
    with opened(path, ACCOUNT_COLUMNS, ACCOUNT_NEEDS, doubts or Doubts()) as sheet:
        for line, cells in sheet.rows():
            open_id, access, access_ends, refresh, refresh_ends, scope = cells
            try:
                row = AccountRow(
                    line,
                    open_id_of(open_id),
                    token_of("access_token", access),
                    time_of("access_token_expires_at", access_ends),
                    optional_token_of("refresh_token", refresh),
                    time_of("refresh_token_expires_at", refresh_ends),
                    scope_of(scope),
                )
            except ValueError as error:
                sheet.wrong(line, str(error))
                continue
            if sheet.is_good:
                yield row
            on_progress(line)


def read_videos(
    path: Path,
    now: datetime,
    on_progress: Callable[[int], None] = lambda _: None,
    *,
    doubts: Doubts | None = None,
) -> Iterator[VideoRow]:
    """The videos of a file, as `read_accounts`; `on_progress` hears the number of each line."""
    doubts = doubts or Doubts()
    rounded = Rounded()
    raw_open_id, open_id = "", ""
    with opened(path, VIDEO_COLUMNS, VIDEO_NEEDS, doubts) as sheet:
        for line, cells in sheet.rows():
            try:
                # Nearly always the same as in the row before.
                if cells[0] != raw_open_id or not open_id:
                    raw_open_id, open_id = cells[0], ""
                    open_id = open_id_of(raw_open_id)
                video_id = video_id_of(cells[1])
                url = cover_url_of(cells[2]) if cells[2] else None
                expires_at = expiry_of(url, now) if url else None
            except (ValueError, CoverUnusable) as error:
                sheet.wrong(line, str(error))
                continue
            rounded.look(line, cells[1], video_id)
            if sheet.is_good:
                yield VideoRow(line, open_id, video_id, url, expires_at)
            on_progress(line)
        if sheet.is_good:
            rounded.tell(path, doubts)
