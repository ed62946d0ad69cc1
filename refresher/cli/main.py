"""The command line: its commands, its errors and its exit codes."""

import sys

import typer
from pydantic import ValidationError

from refresher.cli import accounts, daemon, demo, simulate, status, tokens, videos
from refresher.cli.errors import OPERATOR_ERRORS
from refresher.cli.output import EXIT_INCOMPLETE, EXIT_USAGE, fail, say
from refresher.csv_files import BadFileError
from refresher.domain.errors import DatabaseUnavailable
from refresher.postgres.database import ROWS_REFUSED, first_line
from refresher.settings import expected

app = typer.Typer(
    name="refresher",
    help="Keeps every stored TikTok cover alive.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(daemon.run)
app.command()(daemon.once)
app.command()(daemon.migrate)
app.command()(demo.demo)
app.command()(demo.emulator)
app.command()(simulate.simulate)
app.command("status")(status.show_status)
app.add_typer(accounts.accounts, name="accounts")
app.add_typer(videos.videos, name="videos")
app.add_typer(tokens.tokens, name="tokens")


def main() -> None:
    """The console script."""
    try:
        code = app(standalone_mode=False)
    except typer.TyperException as error:
        fail(_misuse(error))
    except BadFileError as error:
        for complaint in error.complaints:
            say(complaint)
        sys.exit(EXIT_USAGE)
    except DatabaseUnavailable as error:
        fail(f"database: {error}")
    except OPERATOR_ERRORS as error:
        fail(str(error))
    except ROWS_REFUSED as error:
        reason = first_line(error)
        fail(f"database: {reason} (a trigger or constraint of yours on schema refresher?)")
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        # Its text may quote a row of the database, so it passes the redaction; no traceback does.
        say(f"unexpected {type(error).__name__}: {error}")
        sys.exit(EXIT_INCOMPLETE)
    sys.exit(code)


def _misuse(error: typer.TyperException) -> str:
    """Of a bad value the option and what was expected; of all else what Typer says."""
    cause = error.__cause__
    if (
        isinstance(error, typer.BadParameter)
        and isinstance(cause, ValidationError)
        and error.param is not None
    ):
        found = cause.errors()[0]
        return f"{error.param.opts[0]}: {expected(found)}, not {found['input']!r}"
    return f"{error.format_message().strip().rstrip('.')}; see refresher --help"
