"""A connection URL taken apart, as libpq takes it apart."""

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote, unquote_to_bytes

from refresher.domain.connection_rules import (
    EXPECTED_URL,
    LAST_PORT,
    RULES,
    SECRET,
    ConnectionStringError,
)

DRIVER: Final = re.compile(r"(postgres(?:ql)?)\+\w+(?=://)")
BAD_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})|%00")
PLACEHOLDER: Final = re.compile(r"\[your[-_ ]?password\]|<password>|\$\{?\w+", re.IGNORECASE)
#: The shapes that people paste, and what to do about each.
SHAPES: Final = (
    (re.compile(r"""(?s)['"].*"""), "it stands in quotes: leave them out"),
    (re.compile(r"(?s)\s.*"), "it begins with a blank: leave it out"),
    (re.compile(r"(?s).*\s"), "it ends with a blank or a line break: leave it out"),
    (re.compile(r"(?s)psql\b.*"), "it is a command: leave out psql and the quotes"),
    (re.compile(r"(?s)jdbc:.*"), "JDBC's form: user and password go before the host"),
    (re.compile(r"(?s)\w+=postgres.*"), "a name stands before it: leave it out"),
    (re.compile(r"(?s)\w+ *= *\S.*"), "libpq's form of keywords: write them as a URL"),
)


def parameters_of(url: str) -> Iterator[tuple[str, str]]:
    """libpq's names and values, in its order: the last value of a name counts.

    Raises `ConnectionStringError`.
    """
    rest = _after_scheme(url)
    if PLACEHOLDER.search(rest.partition("?")[0]):
        raise ConnectionStringError(f"{EXPECTED_URL}; it still holds a placeholder")
    # libpq takes what stands before an @ for the login if there is no slash in it.
    login, at, place = rest.partition("@")
    if not at or "/" in login:
        login, place = "", rest
    yield from _login(login)
    # Text before another @ may be a part of the password: it must not be looked up or shown.
    if "@" in place:
        raise ConnectionStringError(
            f"{EXPECTED_URL}; in all its parts write @ as %40, / as %2F, ? as %3F and : as %3A"
        )
    place, _, query = place.partition("?")
    places, _, database = place.partition("/")
    yield from _places(places)
    if database:
        yield "dbname", _decoded(database, "the database")
    if query:
        yield from _parameters(query)


def _after_scheme(url: str) -> str:
    for shape, hint in SHAPES:
        if shape.fullmatch(url):
            raise ConnectionStringError(f"{EXPECTED_URL}; {hint}")
    scheme, separator, rest = DRIVER.sub(r"\1", url, count=1).partition("://")
    if not separator or scheme not in {"postgresql", "postgres"}:
        raise ConnectionStringError(f"{EXPECTED_URL}, not the value given")
    return rest


def _login(login: str) -> Iterator[tuple[str, str]]:
    user, _, password = login.partition(":")
    if user:
        yield "user", _decoded(user, "the user")
    if password:
        yield "password", _decoded(password, "the password")


def _places(places: str) -> Iterator[tuple[str, str]]:
    names, ports = [], []
    for place in places.split(","):
        found = re.fullmatch(r"(?:\[([^\]]+)\]|([^\[\]:]*))(?::(\d*))?", place)
        if not found or int(found[3] or 1) > LAST_PORT or int(found[3] or 1) == 0:
            raise ConnectionStringError(f"{EXPECTED_URL}, not the value given")
        names.append(_decoded(found[1] or found[2], "the host"))
        ports.append(found[3] or "")
    if any(names):
        yield "host", ",".join(names)
    if port := ",".join(ports):
        yield "port", port


def _parameters(query: str) -> Iterator[tuple[str, str]]:
    """Text after a password may be a part of it: it must not be shown."""
    secret = ""
    for text in query.split("&"):
        if secret and text.partition("=")[0] not in RULES:
            raise ConnectionStringError(f"expected & written as %26 in the value of {secret}")
        name, value = _parameter(text)
        if SECRET.search(name):
            secret = name
        yield name, value


def _parameter(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise ConnectionStringError("expected parameters as name=value, with & between them")
    name = _decoded(name, "the name of a parameter")
    if not re.fullmatch(r"\w+", name):
        raise ConnectionStringError("expected parameters as name=value, not a name of other signs")
    if "=" in value:
        raise ConnectionStringError(f"expected = written as %3D in the value of {name}")
    return name, _decoded(value, f"the value of {name}")


def _decoded(text: str, what: str) -> str:
    if BAD_PERCENT.search(text):
        raise ConnectionStringError(f"expected % written as %25 in {what}")
    try:
        unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise ConnectionStringError(f"expected UTF-8 behind the % in {what}") from None
    return unquote(text)
