"""The command line: its commands, and the only place that decides on exit codes.

`refresher --help` loads this package and Typer alone. What a command needs, it imports when it
runs.
"""

import gc
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Final

import typer

from refresher.cli import (
    accounts,
    attach,
    daemon,
    demo,
    doctor,
    explain,
    forecast,
    healthcheck,
    pause,
    simulate,
    status,
    tokens,
    videos,
    webhooks,
)
from refresher.cli.output import Incomplete, Misuse, say

EXIT_INCOMPLETE: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130
#: As of a program that the signal ends.
EXIT_BROKEN_PIPE: Final = 141

app = typer.Typer(
    name="refresher",
    help="Keeps every stored TikTok cover alive.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _say_version(wanted: bool) -> None:  # noqa: FBT001 - Typer calls it so
    if wanted:
        from importlib.metadata import version

        print(f"refresher {version('cover-refresher')}")
        raise typer.Exit


@app.callback()
def refresher(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_say_version, is_eager=True, help="Say the version and exit."
        ),
    ] = False,
) -> None:
    pass


app.command()(daemon.run)
app.command()(daemon.once)
app.command()(daemon.migrate)
app.command()(demo.demo)
app.command()(demo.emulator)
app.command()(simulate.simulate)
app.command()(forecast.forecast)
app.command("status")(status.show_status)
app.command()(healthcheck.healthcheck)
app.command()(pause.pause)
app.command()(pause.resume)
app.command()(doctor.doctor)
app.command(context_settings=explain.CONTEXT)(explain.explain)
app.command()(attach.attach)
app.command()(attach.detach)
app.add_typer(accounts.accounts, name="accounts")
app.add_typer(videos.videos, name="videos")
app.add_typer(tokens.tokens, name="tokens")
app.add_typer(webhooks.webhooks, name="webhooks")


def main() -> None:
    """The console script."""
    # Modules stay loaded, and the objects of a chunk have no cycles. With the default thresholds
    # the garbage collector took a tenth of the start and a sixth of the daemon's CPU time.
    gc.set_threshold(20_000, 20, 50)
    try:
        # Also as `python -m refresher`: what is printed, completion too, names the command.
        code = app(prog_name="refresher", standalone_mode=False)
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        # Who reads has seen enough. Nothing is left to be written at the end of the interpreter.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_BROKEN_PIPE
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
        from refresher.cli.usage import complaint

        return [complaint(error)], EXIT_USAGE
    from refresher.cli.errors import complaints

    if lines := complaints(error):
        return lines, EXIT_USAGE
    # The text may quote a row of the database: `say` redacts it. A traceback is not printed.
    return [f"unexpected {type(error).__name__}: {error}"], EXIT_INCOMPLETE
