"""`videos import`."""

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from refresher.app import due_policy
from refresher.cli.database import settings_in_force
from refresher.cli.imports import DryRun, Strict, csv_file, doubts_of, import_file
from refresher.csv_files import (
    VIDEO_COLUMNS,
    VIDEO_NEEDS,
    VideoRow,
    count_lines,
    named,
    read_videos,
)
from refresher.domain.due import account_share, due_after_refresh
from refresher.domain.model import OpenId
from refresher.postgres import imports, status
from refresher.postgres.database import Pool

videos = typer.Typer(help="The videos whose covers are kept alive.")


@videos.command("import")
def import_videos(
    file: Annotated[Path, csv_file(VIDEO_COLUMNS, VIDEO_NEEDS)],
    dry_run: DryRun = False,
    strict: Strict = False,
) -> None:
    """Add videos of known accounts from a CSV file; all or nothing."""
    policy = due_policy(settings_in_force())
    lines = count_lines(file)

    async def read(pool: Pool) -> None:
        now = await status.read_now(pool)

        def due_at(row: VideoRow) -> datetime | None:
            if row.cover_expires_at is None or row.cover_expires_at <= now:
                return None
            share = account_share(OpenId(row.open_id))
            return due_after_refresh(policy, share, now, row.cover_expires_at)

        with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
            task = progress.add_task(named(file), total=lines)
            rows = read_videos(
                file,
                now,
                lambda done: progress.update(task, completed=done),
                doubts=doubts_of(strict=strict),
            )
            imported = await imports.import_videos(pool, rows, due_at, dry_run=dry_run)
        known = imported.rows - imported.stored
        would = " would be" if dry_run else ""
        print(f"{imported.stored} videos{would} added, {known} were known already")

    import_file(file, read)
