"""`accounts`: import, list, show, pause, resume and remove."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from refresher.cli.imports import DryRun, Strict, csv_file, doubts_of, import_file
from refresher.cli.listing import AsCsv, AsJson, one_of, printing, text
from refresher.cli.options import TAKES_HYPHENS, OneAccount, unknown_account
from refresher.cli.output import print_pairs, short
from refresher.csv_files.columns import ACCOUNT_COLUMNS, ACCOUNT_NEEDS
from refresher.domain.spans import counted

if TYPE_CHECKING:
    from datetime import datetime

    from refresher.domain.standing import Standing
    from refresher.postgres.database import Pool

#: As they are stored, and two that are no states of their own.
ACCOUNT_STATES: Final = (
    "active", "paused", "needs_reauthorization", "needs_scope", "isolated", "dead_token"
)  # fmt: skip
#: A column of the table, and what of an account is in it.
ACCOUNT_CELLS: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "open_id": text("open_id"),
    "state": text("state"),
    "reason": lambda row: row["isolated_reason"] or row["state_reason"] or "",
    "since": lambda row: short(row["isolated_since"] or row["state_since"]),
    # Of an account that is worked all the time, that may be long ago.
    "videos at last release": text("videos"),
    "valid then": text("valid"),
    "consent ends": text("refresh_token_expires_at"),
    "failed last": text("last_failure_at"),
    "with": text("last_failure_code"),
    "wakes at": text("wake_at"),
}

accounts = typer.Typer(help="The accounts whose videos are kept alive.")


@accounts.command("import")
def import_accounts(
    file: Annotated[Path, csv_file(ACCOUNT_COLUMNS, ACCOUNT_NEEDS)],
    dry_run: DryRun = False,
    strict: Strict = False,
) -> None:
    """Add accounts, or re-authorize known ones, from a CSV file; all or nothing.

    Example: refresher accounts import accounts.csv --dry-run
    """
    from refresher.cli.database import sealer_of
    from refresher.cli.progress import progress
    from refresher.csv_files.complaints import named
    from refresher.csv_files.rows import read_accounts
    from refresher.csv_files.sheet import count_lines
    from refresher.postgres import imports
    from refresher.settings import read_settings

    sealer = sealer_of(read_settings())
    lines = count_lines(file)

    async def read(pool: Pool) -> None:
        with progress(named(file), lines) as on_progress:
            doubts = doubts_of(strict=strict)
            rows = read_accounts(file, lambda line: on_progress(line, None), doubts=doubts)
            imported = await imports.import_accounts(pool, rows, sealer, dry_run=dry_run)
        older = imported.rows - imported.stored - imported.used_up
        left = f", {older} left alone: the stored tokens are newer" if older else ""
        if imported.used_up:
            left += f", {imported.used_up} left alone: their refresh tokens are used up"
        would = " would be" if dry_run else ""
        print(f"{counted(imported.stored, 'account')}{would} added or re-authorized{left}")

    import_file(file, read)


@accounts.command("list")
def list_accounts(
    state: Annotated[
        str | None, typer.Option(help=f"Only these: {', '.join(ACCOUNT_STATES)}.")
    ] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Accounts with state, reason, videos, end of consent, last failure and next wake-up.

    Example: refresher accounts list --state needs_reauthorization
    """
    from refresher.cli.database import with_database
    from refresher.postgres import listing
    from refresher.settings import read_settings

    wanted = one_of("--state", state, ACCOUNT_STATES)
    show = printing(ACCOUNT_CELLS, listing.ACCOUNT_FIELDS, as_json=as_json, as_csv=as_csv)
    settings = read_settings()
    managed = settings.renews_tokens
    with_database(settings, lambda pool: show(listing.list_accounts(pool, wanted, managed=managed)))


@accounts.command(context_settings=TAKES_HYPHENS)
def show(
    open_id: OneAccount,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """All that is known of one account; no token is shown.

    Example: refresher accounts show -000abc
    """
    import json

    from refresher.cli.account_card import as_data, as_pairs
    from refresher.cli.database import with_database
    from refresher.cli.explain import read_account
    from refresher.settings import read_settings

    settings = read_settings()
    facts = with_database(settings, lambda pool: read_account(pool, settings, open_id))
    if as_json:
        print(json.dumps(as_data(facts), indent=2))
    else:
        print_pairs(as_pairs(facts))


@accounts.command(context_settings=TAKES_HYPHENS)
def pause(open_id: OneAccount) -> None:
    """Stop working an account until it is resumed.

    Example: refresher accounts pause -000abc
    """
    _set_state(open_id, "paused", "paused by the operator")


@accounts.command(context_settings=TAKES_HYPHENS)
def resume(open_id: OneAccount) -> None:
    """Work an account again, and end its back-off.

    Example: refresher accounts resume -000abc
    """
    _set_state(open_id, "active", None)


@accounts.command(context_settings=TAKES_HYPHENS)
def remove(
    open_id: OneAccount,
    keep_consent: Annotated[
        bool, typer.Option("--keep-consent", help="Do not revoke the consent at TikTok.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Revoke a user's consent, and delete all that is stored of the account.

    It says what it will do, and asks. Run it again where it was interrupted.

    Example: refresher accounts remove -000xyz --yes
    """
    from refresher.cli.removal import remove_account

    remove_account(open_id, keep_consent=keep_consent, yes=yes)


def _set_state(open_id: str, state: str, reason: str | None) -> None:
    from refresher.cli.database import with_database
    from refresher.domain.standing import standing_line
    from refresher.postgres import status
    from refresher.settings import read_settings

    settings = read_settings()

    async def set_state(pool: Pool) -> tuple[Standing | None, datetime | None]:
        standing = await status.set_state(pool, open_id, state, reason)
        return standing, await status.read_paused_since(pool)

    standing, paused_since = with_database(settings, set_state)
    if standing is None:
        raise unknown_account(open_id)
    everything = f"; but everything is paused since {short(paused_since)}" if paused_since else ""
    print(standing_line(open_id, standing, managed=settings.renews_tokens) + everything)
