"""The daemon and what prepares its database: `run`, `once` and `migrate`."""

from typing import Annotated

import typer

from refresher.cli.output import Incomplete, Misuse
from refresher.domain.spans import counted


def run() -> None:
    """The daemon. SIGTERM or SIGINT: finish what is in flight, release leases, exit.

    Example: refresher run
    """
    import uvloop

    from refresher import app as composition
    from refresher import logs
    from refresher.assembly import replica_name
    from refresher.cli.errors import OPERATOR_ERRORS
    from refresher.events import DAEMON_FAILED
    from refresher.settings import read_settings

    settings = read_settings()
    replica = replica_name()
    logs.configure(log_format=settings.log_format, level=settings.log_level, replica=replica)
    try:
        uvloop.run(composition.run(settings, replica))
    except OPERATOR_ERRORS:
        raise
    except Exception as error:
        logs.emit(DAEMON_FAILED, exc_info=error)
        raise Incomplete from None


def once() -> None:
    """Everything due now, then exit: 0 when every due video was answered, else 1.

    Example: refresher once
    """
    import uvloop

    from refresher import app as composition
    from refresher import logs
    from refresher.assembly import replica_name
    from refresher.cli.database import database_url_of, say_ignored
    from refresher.cli.progress import progress
    from refresher.settings import read_settings

    settings = read_settings()
    say_ignored(database_url_of(settings))
    replica = replica_name()
    logs.configure(log_format=settings.log_format, level="warning", replica=replica)
    try:
        with progress("due videos") as on_progress:
            left = uvloop.run(composition.once(settings, replica, on_progress))
    except composition.EverythingPausedError as error:
        raise Incomplete(str(error)) from None
    if left:
        raise Incomplete(
            f"{counted(left, 'due video')} could not be answered: parked, in back-off, stopped by "
            "a lock or sealed with an unknown key, see refresher accounts list and the log"
        )


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
    database_url, schema = database_url_of(settings), settings.schema_name
    say_ignored(database_url)
    migrated = uvloop.run(migrate_database(database_url, schema))
    if video_partitions is None:
        print(f"migrated to revision {SCHEMA_REVISION}" if migrated else "nothing to migrate")
        return
    try:
        with progress("pages of videos") as on_progress:
            rows = uvloop.run(
                partition_videos(database_url, video_partitions, on_progress, schema=schema)
            )
    except PartitioningRefusedError as error:
        raise Misuse(str(error)) from None
    if rows is None:
        print(f"already in {video_partitions} partitions")
    else:
        print(f"{counted(rows, 'video')} in {video_partitions} partitions")
