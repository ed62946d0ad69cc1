"""`attach` and `detach`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from refresher.cli.output import Incomplete, Misuse, one_line, say

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from refresher.domain.attachment import VideoMapping
    from refresher.domain.attachment_check import Standing
    from refresher.domain.told import Told
    from refresher.postgres.attaching.attach import Counts, Plan
    from refresher.postgres.database import Pool

T = TypeVar("T")
Table = Annotated[str, typer.Option("--table", metavar="TABLE", help="The table of videos.")]


def attach(
    table: Table,
    video_id: Annotated[
        str | None,
        typer.Option("--video-id", metavar="COLUMN", help="Holds TikTok's ID of the video."),
    ] = None,
    account: Annotated[
        str | None,
        typer.Option(
            "--account",
            metavar="COLUMN",
            help="Holds the open_id; with --account-table, the key of that table.",
        ),
    ] = None,
    account_table: Annotated[
        str | None,
        typer.Option("--account-table", metavar="TABLE", help="Has the open_id of each account."),
    ] = None,
    account_key: Annotated[
        str, typer.Option("--account-key", metavar="COLUMN", help="What --account leads to there.")
    ] = "id",
    open_id: Annotated[
        str | None, typer.Option("--open-id", metavar="COLUMN", help="Holds the open_id there.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option("--where", metavar="SQL", help="Only rows of which this condition is true."),
    ] = None,
    cover: Annotated[
        str | None,
        typer.Option("--cover", metavar="COLUMN", help="Fresh cover URLs are written here."),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option("--expires", metavar="COLUMN", help="And here, when they expire."),
    ] = None,
    skip_without_open_id: Annotated[
        bool,
        typer.Option("--skip-without-open-id", help="Leave videos of users without one alone."),
    ] = False,
    print_sql: Annotated[
        bool, typer.Option("--print-sql", help="Only print the SQL, one idempotent file.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Only say whether an attached table is as it should be.")
    ] = False,
) -> None:
    """Keep the covers of a table that an application has.

    Example: refresher attach --table videos --video-id tiktok_id --account open_id --print-sql
    """
    if check:
        _check(table)
        return
    mapping = _mapping(
        table, video_id, account, account_table, account_key, open_id, where, cover, expires
    )
    _with_database(
        lambda pool: _planned(
            pool, mapping, print_sql=print_sql, skip_without_open_id=skip_without_open_id
        )
    )


def _mapping(
    table: str,
    video_id: str | None,
    account: str | None,
    account_table: str | None,
    account_key: str,
    open_id: str | None,
    where: str | None,
    cover: str | None,
    expires: str | None,
) -> VideoMapping:
    from refresher.domain.attachment import VideoMapping

    if video_id is None or account is None:
        raise Misuse("expected --video-id and --account, the columns of the video and its account")
    if (account_table is None) != (open_id is None):
        raise Misuse("expected --account-table and --open-id together, or neither")
    if expires and not cover:
        raise Misuse("--expires: expected --cover, too")
    return VideoMapping(
        table, video_id, account, account_table, account_key, open_id, where, cover, expires
    )


def _with_database(unit: Callable[[Pool], Coroutine[Any, Any, T]]) -> T:
    from refresher.cli.database import with_database
    from refresher.postgres.attaching.attach import AttachRefusedError
    from refresher.settings import read_settings

    try:
        return with_database(read_settings(), unit)
    except AttachRefusedError as error:
        raise Misuse(str(error)) from error


async def _planned(
    pool: Pool, mapping: VideoMapping, *, print_sql: bool, skip_without_open_id: bool
) -> None:
    from importlib.metadata import version

    from refresher.postgres.attaching.attach import plan

    planned = await plan(pool, mapping, version("cover-refresher"))
    if print_sql:
        print(planned.script, end="")
    else:
        await _attach(pool, planned, skip_without_open_id=skip_without_open_id)


def _check(table: str) -> None:
    from importlib.metadata import version

    from refresher.cli.doctor import MARKS
    from refresher.domain.attachment_check import judged
    from refresher.postgres.attaching.attach import read_stored, standing

    async def standing_of(pool: Pool) -> Standing:
        stored = await read_stored(pool, table)
        if stored is None:
            raise not_attached(table)
        return await standing(pool, stored, version("cover-refresher"))

    found = list(judged(_with_database(standing_of)))
    for outcome, text in found:
        print(f"{MARKS[outcome][0]} {one_line(text)}")
    if any(outcome == "problem" for outcome, _ in found):
        raise Incomplete


def not_attached(table: str) -> Misuse:
    return Misuse(f"--table: expected an attached table, not {table!r}: it is not attached")


def detach(
    table: Table,
    keep_videos: Annotated[
        bool, typer.Option("--keep-videos", help="Go on to keep the covers of its videos alive.")
    ] = False,
) -> None:
    """Take back what `attach` has made, and the videos that it has added.

    Example: refresher detach --table public.videos
    """
    from refresher.cli.progress import progress
    from refresher.domain.spans import counted
    from refresher.postgres.attaching import attach as attaching

    async def detached(pool: Pool) -> int:
        stored = await attaching.read_stored(pool, table)
        if stored is None:
            raise not_attached(table)
        with progress(table) as on_progress:
            return await attaching.detach(
                pool,
                stored,
                keep_videos=keep_videos,
                on_progress=lambda done: on_progress(done, None),
            )

    forgotten = _with_database(detached)
    kept = "its videos stay" if keep_videos else f"{counted(forgotten, 'video')} taken away"
    print(f"detached {table}: {kept}; what its own columns hold stays")


async def _attach(pool: Pool, planned: Plan, *, skip_without_open_id: bool) -> None:
    from refresher.domain.attachment import costly_indexes
    from refresher.postgres.attaching.attach import attach as attach_planned
    from refresher.postgres.attaching.attach import count

    counts = await count(pool, planned)
    _refuse_videos(planned, counts, skip_without_open_id=skip_without_open_id)
    await attach_planned(pool, planned)
    added = await _add(pool, planned, counts.videos - counts.without_open_id)
    print(_told(planned, counts, added))
    for note in costly_indexes(planned.mapping, planned.videos):
        say(note)


def _refuse_videos(planned: Plan, counts: Counts, *, skip_without_open_id: bool) -> None:
    """One line for what the table should not hold."""
    shown = planned.videos.shown
    if counts.repeated:
        raise Misuse(
            f"{shown}: expected each video once for an account, but {counts.repeated:,} stand "
            f"there more than once, for example {counts.repeated_one!r}"
        )
    if counts.without_open_id and not skip_without_open_id:
        raise Misuse(
            f"{shown}: expected an open_id for each video, but {counts.without_open_id:,} have "
            f"none, for example those of {planned.mapping.account} {counts.without_open_id_one!r}; "
            "--skip-without-open-id leaves them alone until they get one"
        )


async def _add(pool: Pool, planned: Plan, expected: int) -> int:
    """Walk through all accounts once; the number of videos added."""
    from refresher.cli.progress import progress
    from refresher.postgres.attached import Attachment, AttachmentUnfitError, walk_step

    attachment = Attachment(planned.name, carries=planned.mapping.carries, walked_at=None)
    added, more = 0, True
    with progress(planned.videos.shown, expected) as on_progress:
        while more:
            try:
                done, more = await walk_step(pool, attachment, _say_refused)
            except AttachmentUnfitError as error:
                raise Misuse(f"{planned.videos.shown}: {error}") from error
            added += done.added
            on_progress(added, None)
    return added


def _say_refused(told: Told, error: Exception) -> None:
    from refresher.postgres.failures import first_line

    say(f"account {(told.open_ids or [''])[0]!r} is passed over for now: {first_line(error)}")


def _told(planned: Plan, counts: Counts, added: int) -> str:
    """What was done, and what is left out."""
    from refresher.domain.spans import counted

    mapping = planned.mapping
    parts = [f"attached {planned.videos.shown}: {counted(added, 'video')} added"]
    if counts.waiting_videos:
        accounts = counted(counts.waiting_accounts, "account")
        parts.append(f"{counts.waiting_videos:,} wait for {accounts} that are not stored yet")
    if counts.unusable:
        parts.append(
            f"{counts.unusable:,} left out: expected IDs of 1 to 20 characters, not "
            f"{counts.unusable_one!r}"
        )
    if counts.without_open_id:
        parts.append(f"{counts.without_open_id:,} without an open_id left out")
    where = " and ".join(filter(None, (mapping.cover, mapping.expires)))
    parts.append(
        f"the daemon writes covers into {where}" if where else "covers are in refresher.videos"
    )
    return "; ".join(parts)
