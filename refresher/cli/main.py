"""The command line: its commands, and the only place that decides on exit codes.

`refresher --help` loads this package and Typer alone. What a command needs, it imports when it
runs.
"""

import gc
import sys
from collections.abc import Sequence
from typing import Final

import typer

from refresher.cli import accounts, daemon, demo, simulate, status, tokens, videos
from refresher.cli.output import Incomplete, Misuse, say

EXIT_INCOMPLETE: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130

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
    # Modules stay loaded, and the objects of a chunk have no cycles. With the default thresholds
    # the garbage collector took a tenth of the start and a sixth of the daemon's CPU time.
    gc.set_threshold(20_000, 20, 50)
    try:
        code = app(standalone_mode=False)
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except Exception as error:
        lines, code = _explained(error)
        for line in lines:
            say(line)
    sys.exit(code)


def _explained(error: Exception) -> tuple[Sequence[str], int]:
    """What to print, and the exit code."""
    if isinstance(error, Incomplete):
        return error.args, EXIT_INCOMPLETE
    if isinstance(error, Misuse):
        return error.args, EXIT_USAGE
    if isinstance(error, typer.TyperException):
        return [_misuse(error)], EXIT_USAGE
    from refresher.cli.errors import complaints

    if lines := complaints(error):
        return lines, EXIT_USAGE
    # The text may quote a row of the database: `say` redacts it. A traceback is not printed.
    return [f"unexpected {type(error).__name__}: {error}"], EXIT_INCOMPLETE


def _misuse(error: typer.TyperException) -> str:
    """For a bad value, the option and what was expected; else what Typer says."""
    if isinstance(error, typer.BadParameter) and error.param is not None and error.__cause__:
        from pydantic import ValidationError

        from refresher.settings import expected

        if isinstance(error.__cause__, ValidationError):
            found = error.__cause__.errors()[0]
            return f"{error.param.opts[0]}: {expected(found)}, not {found['input']!r}"
    return f"{error.format_message().strip().rstrip('.')}; see refresher --help"
