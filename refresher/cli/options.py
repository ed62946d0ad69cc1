"""Options that several commands have."""

from typing import Annotated, Final

import typer

from refresher.cli.output import Misuse

#: An open_id may begin with a hyphen, as an option does.
TAKES_HYPHENS: Final = {"ignore_unknown_options": True}
OneAccount = Annotated[
    str, typer.Argument(metavar="OPEN_ID", help="The account; it may begin with a hyphen.")
]
ADD_VIDEOS: Final = "add it with refresher videos import FILE.csv or INSERT INTO refresher.videos"
ADD_ACCOUNTS: Final = (
    "add it with refresher accounts import FILE.csv or INSERT INTO refresher.accounts"
)


def unknown_account(open_id: str) -> Misuse:
    """What every command says of an account that is not stored."""
    hint = "of options tells refresher --help" if open_id.startswith("-") else ADD_ACCOUNTS
    return Misuse(f"open_id: expected a known account, not {open_id!r}; {hint}")


def unknown_video(*video_ids: str, account: str | None = None, hint: str = ADD_VIDEOS) -> Misuse:
    """What every command says of videos that are not stored."""
    what = "a stored video" if len(video_ids) == 1 else "stored videos"
    of = "" if account is None else f" of account {account!r}"
    named = ", ".join(map(repr, video_ids))
    return Misuse(f"VIDEO_ID: expected {what}{of}, not {named}; {hint}")


def whole(option: str, value: str, least: int = 1) -> int:
    """The number of seconds that an option names. Raises `Misuse`."""
    from refresher.domain.expiry import LONGEST_LIFE_SECONDS

    most = int(LONGEST_LIFE_SECONDS)
    if not value.isdecimal() or not least <= int(value) <= most:
        raise Misuse(f"{option}: expected hourly or seconds, {least} to {most}, not {value!r}")
    return int(value)
