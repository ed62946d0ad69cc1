"""REFRESHER_DATABASE_URL as libpq reads it: parameters are kept, ignored, or refused by name."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from refresher.domain.connection_rules import (
    EXPECTED_URL,
    IGNORED_VARIABLES,
    LAST_PORT,
    RULES,
    SECRET,
    ConnectionStringError,
)
from refresher.domain.connection_url import parameters_of

__all__ = [
    "EXPECTED_URL",
    "ConnectionString",
    "ConnectionStringError",
    "Host",
    "read_connection_string",
]

DEFAULT_PORT: Final = 5432
UNKNOWN: Final = (
    "expected parameters of libpq, not {}: leave it out, or write a setting of the server as"
    " options=-c%20name%3Dvalue"
)


@dataclass(frozen=True, slots=True)
class Host:
    """One of the servers to try."""

    #: None for the machine itself.
    name: str | None
    port: int

    @property
    def is_socket(self) -> bool:
        """A folder of Unix sockets: nobody can listen there, and there is no TLS."""
        return self.name is not None and self.name.startswith(("/", "@"))


@dataclass(frozen=True, slots=True)
class ConnectionString:
    """What a connection needs."""

    hosts: tuple[Host, ...]
    #: None for the system's user.
    user: str | None
    password: str | None = field(repr=False)
    #: None for a database named as the system's user.
    database: str | None
    #: All others, in libpq's names and values.
    parameters: Mapping[str, str] = field(repr=False)
    #: Parameters and variables that were given and have no effect, under the names given.
    ignored: tuple[str, ...]


class Given(NamedTuple):
    """A value, and the name under which it was given."""

    value: str
    name: str


def read_connection_string(url: str, environment: Mapping[str, str]) -> ConnectionString:
    """The parts of the string; libpq's variables of the environment fill what it leaves out.

    Raises `ConnectionStringError`.
    """
    given = {name: Given(value, name) for name, value in parameters_of(url)}
    for name, rule in RULES.items():
        if rule.variable and environment.get(rule.variable) and name not in given:
            given[name] = Given(environment[rule.variable], rule.variable)
    ignored = [found.name for name, found in given.items() if _is_ignored(name, found)]
    ignored += [name for name in IGNORED_VARIABLES if environment.get(name)]
    kept = {name: found.value for name, found in given.items() if found.value}
    user, password, database = (kept.pop(name, None) for name in ("user", "password", "dbname"))
    hosts = tuple(_hosts(kept.pop("host", ""), kept.pop("port", "")))
    return ConnectionString(hosts, user, password, database, _secured(kept, hosts), tuple(ignored))


def _is_ignored(name: str, given: Given) -> bool:
    """Whether a parameter has no effect. Raises `ConnectionStringError` where it is refused."""
    rule = RULES.get(name)
    if rule is None:
        raise ConnectionStringError(UNKNOWN.format(given.name))
    if re.fullmatch(rule.kept, given.value) and not _is_beyond(rule.most, given.value):
        return False
    if re.fullmatch(rule.ignored, given.value):
        return True
    shown = given.name if SECRET.search(name) else f"{given.name}={given.value}"
    raise ConnectionStringError(f"expected {rule.instead}, not {shown}")


def _is_beyond(most: int | None, value: str) -> bool:
    return most is not None and int(value) > most


def _secured(kept: dict[str, str], hosts: tuple[Host, ...]) -> dict[str, str]:
    """The parameters with the TLS that they ask for together, never less."""
    if kept.pop("channel_binding", "") == "require":
        kept |= _bound(kept, hosts)
    if kept.get("sslrootcert") == "system":
        if kept.setdefault("sslmode", "verify-full") != "verify-full":
            raise ConnectionStringError(
                f"expected sslmode=verify-full with sslrootcert=system, not {kept['sslmode']}"
            )
        if "sslcrl" in kept:
            raise ConnectionStringError("expected no sslcrl with sslrootcert=system")
    if kept.get("sslnegotiation") == "direct" and (
        kept.get("sslmode") not in {"require", "verify-ca", "verify-full"}
    ):
        raise ConnectionStringError("expected sslmode=require with sslnegotiation=direct")
    return {name: value for name, value in kept.items() if name not in {"schema", "pgbouncer"}}


def _bound(kept: Mapping[str, str], hosts: tuple[Host, ...]) -> dict[str, str]:
    """Checks the server's certificate in place of channel binding, which the driver lacks.

    Both show that nobody stands in between.
    """
    if kept.get("sslmode") == "disable" or any(
        host.name is None or host.is_socket for host in hosts
    ):
        raise ConnectionStringError("expected a host and TLS with channel_binding=require")
    return {"sslmode": "verify-full", "sslrootcert": kept.get("sslrootcert", "system")}


def _hosts(names: str, ports: str) -> Iterator[Host]:
    places, numbers = names.split(","), ports.split(",")
    if len(numbers) == 1:
        numbers *= len(places)
    if len(numbers) != len(places):
        raise ConnectionStringError(
            f"expected one port or one for each host, not {len(numbers)} for {len(places)}"
        )
    for name, number in zip(places, numbers, strict=True):
        port = int(number.strip() or DEFAULT_PORT)
        if not 0 < port <= LAST_PORT:
            raise ConnectionStringError(f"expected {RULES['port'].instead}, not {port}")
        yield Host(name.strip() or None, port)
