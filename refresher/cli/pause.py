"""`pause` and `resume` of everything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from refresher.cli.output import Misuse, short

if TYPE_CHECKING:
    from datetime import datetime

Everything = Annotated[bool, typer.Option("--all", help="Needed: it concerns all accounts.")]


def pause(everything: Everything = False) -> None:
    """Let all daemons rest: nothing is asked for until `resume --all`.

    Example: refresher pause --all
    """
    before = _set("pause", everything=everything, paused=True)
    told = f"paused already, since {short(before)}" if before else "paused"
    print(f"{told}: within one poll daemons begin nothing more; refresher resume --all goes on")


def resume(everything: Everything = False) -> None:
    """Go on after `pause --all`; daemons notice within one poll.

    Example: refresher resume --all
    """
    before = _set("resume", everything=everything, paused=False)
    print(f"resumed, paused since {short(before)}" if before else "nothing to resume: not paused")


def _set(command: str, *, everything: bool, paused: bool) -> datetime | None:
    if not everything:
        raise Misuse(f"expected --all; for one account: refresher accounts {command} OPEN_ID")
    from refresher.cli.database import with_database
    from refresher.postgres.status import pause_all
    from refresher.settings import read_settings

    return with_database(read_settings(), lambda pool: pause_all(pool, paused=paused))
