"""`healthcheck`."""

import os
from http import HTTPStatus
from typing import Annotated, Final

import typer

from refresher.cli.output import Incomplete

#: Below the time-out that a container usually gives its health check.
ANSWER_SECONDS: Final = 4.0
#: What a daemon that listens on all addresses is asked at.
ON_ALL: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - not ours
LISTEN: Final = "REFRESHER_HTTP_LISTEN"


def healthcheck(
    ready: Annotated[
        bool, typer.Option("--ready", help="Ask /readyz: is the database there, and migrated?")
    ] = False,
) -> None:
    """Ask the daemon beside us whether it lives: exit 0 if it does, else 1.

    Example: refresher healthcheck --ready
    """
    path = "/readyz" if ready else "/livez"
    address = _address()
    try:
        told = _asked(address, path)
    except OSError as error:
        raise Incomplete(f"{path} at {address}: {error.strerror or error}") from None
    print(told)


def _address() -> str:
    """Where the daemon listens. Raises `SettingsError`."""
    # To read all settings takes several times as long as the rest, and checks come every few
    # seconds.
    given = os.environ.get(LISTEN, "")
    if given.rpartition(":")[2].isdecimal():
        return given
    from refresher.settings import SettingsError, read_settings

    if listens := read_settings().http_listen:
        return listens
    raise SettingsError(f"{LISTEN} is not set: expected host:port, where the daemon answers")


def _asked(address: str, path: str) -> str:
    """The answer. Raises OSError, also `Incomplete` for one that is not good."""
    from http.client import HTTPConnection, HTTPException

    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    connection = HTTPConnection(ON_ALL.get(host, host), int(port), timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        told = answer.read().decode(errors="replace").strip()
    except HTTPException as error:
        raise OSError(f"no HTTP: {error or type(error).__name__}") from error
    finally:
        connection.close()
    if answer.status != HTTPStatus.OK:
        raise Incomplete(f"{path} at {address}: {told}")
    return told
