"""Options that several commands have."""

from typing import Annotated, Final

import typer

from refresher.cli.output import Misuse

#: An open_id may begin with a hyphen, as an option does.
TAKES_HYPHENS: Final = {"ignore_unknown_options": True}
OneAccount = Annotated[
    str, typer.Argument(metavar="OPEN_ID", help="The account; it may begin with a hyphen.")
]


def whole(option: str, value: str, least: int = 1) -> int:
    """The number of seconds that an option names. Raises `Misuse`."""
    from refresher.domain.expiry import LONGEST_LIFE_SECONDS

    most = int(LONGEST_LIFE_SECONDS)
    if not value.isdecimal() or not least <= int(value) <= most:
        raise Misuse(f"{option}: expected hourly or seconds, {least} to {most}, not {value!r}")
    return int(value)
