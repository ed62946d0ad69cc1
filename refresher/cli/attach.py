"""`attach` and `detach`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from refresher.cli.output import Incomplete, Misuse, one_line, say

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping

    from refresher.domain.attachment import AnyMapping
    from refresher.domain.attachment_check import Standing
    from refresher.domain.told import Told
    from refresher.postgres.attached import Attachment
    from refresher.postgres.attaching.attach import Counts, Plan, Stored
    from refresher.postgres.database import Pool
    from refresher.settings import Settings

T = TypeVar("T")

Table = Annotated[
    str, typer.Option("--table", metavar="TABLE", help="The application's table, with its schema.")
]
#: Which options go with which kind of table.
OF_VIDEOS: Final = frozenset(
    {"video_id", "account", "account_table", "account_key", "account_where", "cover", "expires"}
)
OF_TOKENS: Final = frozenset(
    {
        "access_token",
        "access_token_expires",
        "refresh_token",
        "refresh_token_expires",
        "scope",
    }
)
#: Before a step that a daemon is at is tried again.
BREATH_SECONDS: Final = 0.2


def column(option: str, text: str) -> Any:
    return typer.Option(option, metavar="COLUMN", help=text)


def condition(option: str, text: str) -> Any:
    return typer.Option(option, metavar="SQL", help=text)


def attach(
    table: Table,
    video_id: Annotated[str | None, column("--video-id", "Holds TikTok's ID of a video.")] = None,
    account: Annotated[
        str | None,
        column("--account", "Holds its account's open_id; with --account-table, what leads there."),
    ] = None,
    account_table: Annotated[
        str | None,
        typer.Option("--account-table", metavar="TABLE", help="Has the open_id of each account."),
    ] = None,
    account_key: Annotated[
        str | None, column("--account-key", "What --account leads to there; else id.")
    ] = None,
    account_where: Annotated[
        str | None, condition("--account-where", "Only rows there of which this is true.")
    ] = None,
    cover: Annotated[str | None, column("--cover", "Fresh cover URLs are written here.")] = None,
    expires: Annotated[str | None, column("--expires", "And here, when they expire.")] = None,
    access_token: Annotated[
        str | None, column("--access-token", "Attaches a table of tokens: holds the access token.")
    ] = None,
    access_token_expires: Annotated[
        str | None, column("--access-token-expires", "Holds when the access token expires.")
    ] = None,
    refresh_token: Annotated[
        str | None, column("--refresh-token", "Holds the refresh token.")
    ] = None,
    refresh_token_expires: Annotated[
        str | None, column("--refresh-token-expires", "Holds when the consent ends.")
    ] = None,
    scope: Annotated[str | None, column("--scope", "Holds the granted scopes.")] = None,
    open_id: Annotated[
        str | None,
        column("--open-id", "Holds the open_id: of the tokens, or in --account-table."),
    ] = None,
    where: Annotated[
        str | None, condition("--where", "Only rows of --table of which this is true.")
    ] = None,
    skip_without_open_id: Annotated[
        bool,
        typer.Option("--skip-without-open-id", help="Leave rows of users without one alone."),
    ] = False,
    print_sql: Annotated[
        bool, typer.Option("--print-sql", help="Only print the SQL, one idempotent file.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Only say whether an attached table is as it should be.")
    ] = False,
) -> None:
    """Keep the covers of a table that an application has, or take its users' tokens from one.

    Example: refresher attach --table videos --video-id tiktok_id --account open_id --print-sql
    """
    given = {name: value for name, value in locals().items() if isinstance(value, str)}
    if check:
        _check(table)
        return
    _with_database(
        lambda pool, settings: _planned(
            pool,
            _mapping(given, settings),
            print_sql=print_sql,
            skip_without_open_id=skip_without_open_id,
        )
    )


def _mapping(given: Mapping[str, str], settings: Settings) -> AnyMapping:
    """What the options declare."""
    from refresher.domain.attachment import TokenMapping, VideoMapping

    if given.keys() & OF_VIDEOS and given.keys() & OF_TOKENS:
        raise Misuse("expected options of videos or of tokens: a table for each, a call for each")
    if given.keys() & OF_TOKENS:
        _need(given, "open_id", "access_token")
        return TokenMapping(**given, holder=settings.token_management)
    _need(given, "video_id", "account")
    if ("account_table" in given) != ("open_id" in given):
        raise Misuse("expected --account-table and --open-id together, or neither")
    if "expires" in given and "cover" not in given:
        raise Misuse("--expires: expected --cover, too")
    return VideoMapping(**given)


def _need(given: Mapping[str, str], *names: str) -> None:
    for name in names:
        if name not in given:
            options = " and ".join(f"--{each.replace('_', '-')}" for each in names)
            raise Misuse(f"expected {options}; refresher attach --help says what they are")


def _with_database(unit: Callable[[Pool, Settings], Coroutine[Any, Any, T]]) -> T:
    from refresher.cli.database import with_database
    from refresher.postgres.attaching.attach import AttachRefusedError
    from refresher.settings import read_settings

    settings = read_settings()
    try:
        return with_database(settings, lambda pool: unit(pool, settings))
    except AttachRefusedError as error:
        raise Misuse(str(error)) from error


async def _planned(
    pool: Pool, mapping: AnyMapping, *, print_sql: bool, skip_without_open_id: bool
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

    async def standing_of(pool: Pool, _: Settings) -> Standing:
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

    async def detached(pool: Pool, _: Settings) -> tuple[Stored, int]:
        stored = await attaching.read_stored(pool, table)
        if stored is None:
            raise not_attached(table)
        with progress(table) as on_progress:
            return stored, await attaching.detach(
                pool,
                stored,
                keep_videos=keep_videos,
                on_progress=lambda done: on_progress(done, None),
            )

    stored, forgotten = _with_database(detached)
    if stored.mapping.kind == "tokens":
        kept = "its accounts stay, with their tokens"
    elif keep_videos:
        kept = "its videos stay"
    else:
        kept = f"{counted(forgotten, 'video')} taken away"
    print(f"detached {table}: {kept}; what its own columns hold stays")


async def _attach(pool: Pool, planned: Plan, *, skip_without_open_id: bool) -> None:
    from refresher.domain.attachment_obstacles import costly_indexes, exposed_rights
    from refresher.postgres.attaching.attach import attach as attach_planned
    from refresher.postgres.attaching.attach import count

    counts = await count(pool, planned)
    _refuse_rows(planned, counts, skip_without_open_id=skip_without_open_id)
    await attach_planned(pool, planned)
    added = await _add(pool, planned, counts.rows - counts.without_open_id)
    print("; ".join(_told(planned, counts, added)))
    table = planned.table
    for note in (
        *costly_indexes(planned.mapping, table),
        *exposed_rights(table, table.role, is_superuser=table.role_is_superuser),
    ):
        say(note)


def _refuse_rows(planned: Plan, counts: Counts, *, skip_without_open_id: bool) -> None:
    """One line for what the table should not hold."""
    shown, one = planned.table.shown, planned.mapping.one
    if counts.ambiguous:
        raise Misuse(
            f"--account-key: expected one open_id for each, but {counts.ambiguous:,} have more, "
            f"for example {counts.ambiguous_one!r}"
        )
    if counts.repeated:
        raise Misuse(
            f"{shown}: expected each {one} once, but {counts.repeated:,} stand there more than "
            f"once, for example {counts.repeated_one!r}"
        )
    if counts.held:
        raise Misuse(
            f"{shown}: expected accounts of which no attached table has tokens, but of "
            f"{counts.held:,} one has others, for example {counts.held_one!r}: which are newer, "
            "nobody can say; leave them out with --where, or detach the other table"
        )
    if counts.without_open_id and not skip_without_open_id:
        example = counts.without_open_id_one
        those = f", for example of account {example!r}" if example else ""
        raise Misuse(
            f"{shown}: expected an open_id for each {one}, but {counts.without_open_id:,} have "
            f"none{those}; --skip-without-open-id leaves them alone until they get one"
        )


async def _add(pool: Pool, planned: Plan, expected: int) -> int:
    """Walk through all accounts once, and add what was found; how many rows were added."""
    import asyncio

    from refresher.cli.progress import progress
    from refresher.postgres.attached import (
        Attachment,
        AttachmentUnfitError,
        count_attached,
        is_applied,
    )

    mapping = planned.mapping
    attachment = Attachment(planned.name, mapping.kind, carries=mapping.carries, walked_at=None)
    added, walked, complete = 0, False, False
    with progress(planned.table.shown, expected) as on_progress:
        while not complete:
            try:
                more, walked, left = await _add_some(pool, attachment, walked=walked)
            except AttachmentUnfitError as error:
                await _take_back(pool, planned)
                raise Misuse(f"{planned.table.shown}: {error}; it is not attached") from error
            added += more
            on_progress(added, None)
            if not left:
                # A daemon may be at it, too.
                complete = walked and await is_applied(pool, attachment)
                await asyncio.sleep(0 if complete else BREATH_SECONDS)
    return await count_attached(pool, attachment)


async def _take_back(pool: Pool, planned: Plan) -> None:
    """So that nothing half done is left."""
    from refresher.postgres.attaching.attach import detach, read_stored

    if stored := await read_stored(pool, planned.mapping.table):
        await detach(pool, stored, keep_videos=False, on_progress=lambda _: None)


async def _add_some(pool: Pool, attachment: Attachment, *, walked: bool) -> tuple[int, bool, bool]:
    """A step of the walk unless it is complete, and then of what was told.

    How many rows were added, whether the walk is complete, whether to go on at once.
    """
    from refresher.postgres.attached import apply_told, is_walked, walk_step

    left = False
    if not walked:
        _, left = await walk_step(pool, attachment, _say_refused)
        walked = not left and await is_walked(pool, attachment)
    done, more = await apply_told(pool, attachment, _say_refused)
    return done.added, walked, left or more


def _say_refused(told: Told, error: Exception) -> None:
    from refresher.postgres.failures import first_line

    say(f"account {(told.open_ids or [''])[0]!r} is passed over for now: {first_line(error)}")


def _told(planned: Plan, counts: Counts, added: int) -> Iterator[str]:
    """What was done, and what is left out."""
    from refresher.domain.spans import counted

    mapping = planned.mapping
    yield f"attached {planned.table.shown}: {counted(added, mapping.one)} {mapping.taken}"
    if counts.waiting_rows:
        accounts = counted(counts.waiting_accounts, "account")
        yield f"{counts.waiting_rows:,} wait for {accounts} that are not stored yet"
    if counts.unusable:
        yield f"{counts.unusable:,} {mapping.unusable}, for example {counts.unusable_one!r}"
    if counts.without_open_id:
        yield f"{counts.without_open_id:,} without an open_id left out"
    yield mapping.afterwards
