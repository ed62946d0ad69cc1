"""`migrate`."""

from typing import Annotated

import typer

from refresher.cli.output import Misuse
from refresher.domain.spans import counted


def migrate(
    video_partitions: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=1024,
            help="Also partition videos by the hash of open_id: for good, and with nobody reading"
            " or writing accounts and videos meanwhile.",
        ),
    ] = None,
) -> None:
    """Bring the database to the current schema; safe to run from several places at once.

    Example: refresher migrate
    """
    import uvloop

    from refresher.cli.database import database_url_of, say_ignored
    from refresher.cli.progress import progress
    from refresher.postgres.database import SCHEMA_REVISION
    from refresher.postgres.migrate import migrate as migrate_database
    from refresher.postgres.partitioning import PartitioningRefusedError, partition_videos
    from refresher.settings import read_settings

    settings = read_settings()
    database_url = database_url_of(settings)
    say_ignored(database_url)
    migrated = uvloop.run(migrate_database(database_url, settings.schema))
    if video_partitions is None:
        print(f"migrated to revision {SCHEMA_REVISION}" if migrated else "nothing to migrate")
        return
    try:
        with progress("pages of videos") as on_progress:
            rows = uvloop.run(
                partition_videos(
                    database_url, video_partitions, on_progress, schema=settings.schema
                )
            )
    except PartitioningRefusedError as error:
        raise Misuse(str(error)) from None
    if rows is None:
        print(f"already in {video_partitions} partitions")
    else:
        print(f"{counted(rows, 'video')} in {video_partitions} partitions")
