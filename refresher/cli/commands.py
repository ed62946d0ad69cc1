"""The command line: its commands, each group in a module.

`refresher --help` loads these modules and Typer alone. What a command needs, it imports when it
runs.
"""

from typing import Annotated

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
    migrate,
    pause,
    simulate,
    status,
    tokens,
    videos,
    webhooks,
)
from refresher.cli.output import Misuse

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
app.command()(migrate.migrate)
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


def call() -> int | None:
    """Run the command of the command line; its exit code. Raises `Misuse`, and what it raises."""
    try:
        # Also as `python -m refresher`: what is printed, completion too, names the command.
        code: int | None = app(prog_name="refresher", standalone_mode=False)
    except typer.TyperException as error:
        from refresher.cli.usage import complaint

        raise Misuse(complaint(error)) from None
    return code
