"""REFRESHER_DATABASE_URL as libpq reads it: what is kept, what is ignored, what is refused by name.

docs/connection-strings.md has the table in words.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from urllib.parse import unquote, unquote_to_bytes

EXPECTED_URL: Final = "expected a URL as postgresql://user@host:5432/database"
DEFAULT_PORT: Final = 5432
LAST_PORT: Final = 65535

ANY: Final = r"(?s:.*)"
NONE: Final = r"(?!)"
NUMBER: Final = r"\s*[+-]?\d{1,9}\s*"
PORTS: Final = r"\s*\d*\s*(,\s*\d*\s*)*"
#: Linux's bounds of what TCP counts and of its seconds: beyond them no connection can be opened.
MOST_SECONDS: Final = 32767
MOST_TIMES: Final = 127
SECONDS: Final = f"whole seconds, {MOST_SECONDS} at most"
TLS_VERSION: Final = r"TLSv1(\.[123])?"


class ConnectionStringError(ValueError):
    """What is wrong with the string, in one line that holds no password."""


class Rule(NamedTuple):
    """What becomes of a parameter, by its value: patterns of those kept and of those ignored.

    All others are refused, with the word to write instead. `variable` is libpq's own for it. A
    number that is kept is `most` so high.
    """

    variable: str | None = None
    kept: str = NONE
    ignored: str = NONE
    instead: str = "nothing in its place: leave it out"
    most: int | None = None


#: Every parameter of libpq 18, and of others those that clouds and frameworks put into a URL.
RULES: Final[Mapping[str, Rule]] = {
    # Where to, and who.
    "host": Rule("PGHOST", ANY),
    "hostaddr": Rule("PGHOSTADDR", instead="the address as host"),
    "port": Rule("PGPORT", PORTS, instead=f"a port from 1 to {LAST_PORT}, or one for each host"),
    "dbname": Rule("PGDATABASE", ANY),
    "user": Rule("PGUSER", ANY),
    "password": Rule("PGPASSWORD", ANY),
    "passfile": Rule("PGPASSFILE", ANY),
    "service": Rule("PGSERVICE", instead="the service's own parameters"),
    "servicefile": Rule(instead="the service's own parameters"),
    "load_balance_hosts": Rule("PGLOADBALANCEHOSTS", "disable", "random", "disable or random"),
    # A daemon that writes has no use for a server that does not.
    "target_session_attrs": Rule(
        "PGTARGETSESSIONATTRS",
        "any|read-write|primary",
        instead="target_session_attrs=read-write, as the daemon writes",
    ),
    # How the connection behaves.
    "connect_timeout": Rule("PGCONNECT_TIMEOUT", NUMBER, instead="whole seconds"),
    "keepalives": Rule(None, NUMBER, instead="1 or 0"),
    "keepalives_idle": Rule(None, NUMBER, instead=SECONDS, most=MOST_SECONDS),
    "keepalives_interval": Rule(None, NUMBER, instead=SECONDS, most=MOST_SECONDS),
    "keepalives_count": Rule(
        None, NUMBER, instead=f"a whole number, {MOST_TIMES} at most", most=MOST_TIMES
    ),
    "tcp_user_timeout": Rule(None, NUMBER, instead="whole milliseconds"),
    "options": Rule("PGOPTIONS", ANY),
    "application_name": Rule("PGAPPNAME", ANY),
    "fallback_application_name": Rule(None, ANY),
    "client_encoding": Rule(
        "PGCLIENTENCODING", "(?i:auto|utf-?8|unicode)", instead="client_encoding=UTF8"
    ),
    "replication": Rule(None, "false|off|no|0"),
    "min_protocol_version": Rule("PGMINPROTOCOLVERSION", r"3\.0", instead="3.0"),
    "max_protocol_version": Rule("PGMAXPROTOCOLVERSION", r"3\.[02]|latest", instead="3.0"),
    # Who may listen, and who is at the other end.
    "sslmode": Rule(
        "PGSSLMODE",
        "disable|allow|prefer|require|verify-ca|verify-full",
        instead="sslmode=require, or disable, allow, prefer, verify-ca or verify-full",
    ),
    "sslnegotiation": Rule("PGSSLNEGOTIATION", "postgres|direct", instead="postgres or direct"),
    "sslcert": Rule("PGSSLCERT", ANY),
    "sslkey": Rule("PGSSLKEY", r"(?!\w{2,}:).*", instead="a file"),
    "sslpassword": Rule(None, ANY),
    "sslrootcert": Rule("PGSSLROOTCERT", ANY),
    "sslcrl": Rule("PGSSLCRL", ANY),
    "sslcrldir": Rule("PGSSLCRLDIR", instead="sslcrl, a file"),
    "sslcertmode": Rule("PGSSLCERTMODE", "allow", instead="sslcertmode=allow"),
    "sslsni": Rule("PGSSLSNI", "1", instead="sslsni=1"),
    "sslcompression": Rule("PGSSLCOMPRESSION", "0", ANY),
    "sslkeylogfile": Rule(),
    "ssl_min_protocol_version": Rule("PGSSLMINPROTOCOLVERSION", TLS_VERSION, instead="TLSv1.2"),
    "ssl_max_protocol_version": Rule("PGSSLMAXPROTOCOLVERSION", TLS_VERSION, instead="TLSv1.3"),
    "requiressl": Rule("PGREQUIRESSL", instead="sslmode=require"),
    "requirepeer": Rule("PGREQUIREPEER", instead="a server known by sslmode=verify-full"),
    "require_auth": Rule("PGREQUIREAUTH", instead="a server known by sslmode=verify-full"),
    # `require` is kept as what it is for: see `_bound`.
    "channel_binding": Rule(
        "PGCHANNELBINDING", "disable", "prefer|require", "require, prefer or disable"
    ),
    "gssencmode": Rule("PGGSSENCMODE", "disable", "prefer", "gssencmode=disable"),
    "gssdelegation": Rule("PGGSSDELEGATION", "0", instead="gssdelegation=0"),
    "krbsrvname": Rule("PGKRBSRVNAME", ANY),
    "gsslib": Rule("PGGSSLIB", "gssapi", instead="gssapi"),
    "scram_client_key": Rule(instead="a password"),
    "scram_server_key": Rule(instead="a password"),
    "oauth_issuer": Rule(instead="a password"),
    "oauth_client_id": Rule(instead="a password"),
    "oauth_client_secret": Rule(instead="a password"),
    "oauth_scope": Rule(instead="a password"),
    # Not libpq's. A pooler is recognized by its answers, and our tables have a schema of their own.
    "pgbouncer": Rule(None, NONE, ANY),
    "schema": Rule(None, NONE, ANY),
    "ssl": Rule(instead="sslmode=require"),
    "database": Rule(instead="dbname, or the database after the host"),
}  # fmt: skip
#: What libpq sets in the session for these changes no statement of ours.
IGNORED_VARIABLES: Final = ("PGDATESTYLE", "PGTZ", "PGGEQO")
#: Their values are not shown.
SECRET: Final = re.compile("password|scram_|oauth_")
UNKNOWN: Final = (
    "expected parameters of libpq, not {}: leave it out, or write a setting of the server as"
    " options=-c%20name%3Dvalue"
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


@dataclass(frozen=True, slots=True)
class Host:
    """One of the places to try. `name` is None for the machine itself."""

    name: str | None
    port: int

    @property
    def is_socket(self) -> bool:
        """A folder of Unix sockets, where nobody can listen and TLS has no place."""
        return self.name is not None and self.name.startswith(("/", "@"))


@dataclass(frozen=True, slots=True)
class ConnectionString:
    """What a connection needs. `parameters` are libpq's others, in its names and values.

    `user` and `database` are None where the system's user is meant. `ignored` names what cannot
    matter, as it was given.
    """

    hosts: tuple[Host, ...]
    user: str | None
    password: str | None = field(repr=False)
    database: str | None
    parameters: Mapping[str, str] = field(repr=False)
    ignored: tuple[str, ...]


class Given(NamedTuple):
    """A value, and the name under which it was given."""

    value: str
    name: str


def read_connection_string(url: str, environment: Mapping[str, str]) -> ConnectionString:
    """The string's parts, and from the environment what it leaves open.

    Raises `ConnectionStringError`.
    """
    given = {name: Given(value, name) for name, value in _parts(url)}
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
    """Whether it cannot matter. Raises `ConnectionStringError` where it is refused."""
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
    """With the TLS that the parameters ask for together, never less."""
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
    """In place of the channel binding that the driver lacks: the server's certificate is checked.

    Both show that nobody stands between.
    """
    if kept.get("sslmode") == "disable" or any(
        host.name is None or host.is_socket for host in hosts
    ):
        raise ConnectionStringError("expected a host and TLS with channel_binding=require")
    return {"sslmode": "verify-full", "sslrootcert": kept.get("sslrootcert", "system")}


def _parts(url: str) -> Iterator[tuple[str, str]]:
    """libpq's names and values, in its order: what comes later counts."""
    scheme, separator, rest = DRIVER.sub(r"\1", url, count=1).partition("://")
    for shape, hint in SHAPES:
        if shape.fullmatch(url):
            raise ConnectionStringError(f"{EXPECTED_URL}; {hint}")
    if not separator or scheme not in {"postgresql", "postgres"}:
        raise ConnectionStringError(f"{EXPECTED_URL}, not the value given")
    if PLACEHOLDER.search(rest.partition("?")[0]):
        raise ConnectionStringError(f"{EXPECTED_URL}; it still holds a placeholder")
    # As libpq looks for it: an @ before any slash.
    login, at, place = rest.partition("@")
    if not at or "/" in login:
        login, place = "", rest
    yield from _login(login)
    # What stands before a further @ may be a piece of the password: it is not looked up or shown.
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
    """What follows a password may be a piece of it, and is not shown."""
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
