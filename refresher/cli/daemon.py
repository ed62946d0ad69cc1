"""The daemon, for good or for once: `run` and `once`."""

from refresher.cli.output import Incomplete
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
    from refresher.cli.progress import is_shown, progress
    from refresher.settings import read_settings

    settings = read_settings()
    say_ignored(database_url_of(settings))
    replica = replica_name()
    logs.configure(log_format=settings.log_format, level="warning", replica=replica)
    try:
        with progress("due videos") as on_progress:
            left = uvloop.run(
                composition.once(settings, replica, on_progress if is_shown() else None)
            )
    except composition.EverythingPausedError as error:
        raise Incomplete(str(error)) from None
    if left:
        raise Incomplete(
            f"{counted(left, 'due video')} could not be answered: parked, in back-off, stopped by "
            "a lock or sealed with an unknown key, see refresher accounts list and the log"
        )
