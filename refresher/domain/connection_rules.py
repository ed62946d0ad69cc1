"""Every parameter of a connection string: which values are kept, ignored or refused.

docs/connection-strings.md has the table in words.
"""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

EXPECTED_URL: Final = "expected a URL as postgresql://user@host:5432/database"
LAST_PORT: Final = 65535

ANY: Final = r"(?s:.*)"
NONE: Final = r"(?!)"
NUMBER: Final = r"\s*[+-]?\d{1,9}\s*"
PORTS: Final = r"\s*\d*\s*(,\s*\d*\s*)*"
#: Linux's bounds for TCP's seconds and counts: beyond them no connection can be opened.
MOST_SECONDS: Final = 32767
MOST_TIMES: Final = 127
SECONDS: Final = f"whole seconds, {MOST_SECONDS} at most"
TLS_VERSION: Final = r"TLSv1(\.[123])?"


class ConnectionStringError(ValueError):
    """What is wrong with the string, in one line that holds no password."""


class Rule(NamedTuple):
    """What becomes of a parameter, by its value. `kept` and `ignored` are patterns of values.

    Other values are refused.
    """

    #: libpq's environment variable for it.
    variable: str | None = None
    kept: str = NONE
    ignored: str = NONE
    #: What to write in place of a value that is refused.
    instead: str = "nothing in its place: leave it out"
    #: The highest number that is kept.
    most: int | None = None


#: Every parameter of libpq 18, and others that clouds and frameworks put into a URL.
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
    # The daemon writes, so it needs a server that takes writes.
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
    # TLS and authentication.
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
    # For `require` see `_bound`: TLS with a checked certificate takes its place.
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
    # Not libpq's. We tell a pooler by its answers, and our tables have a schema of their own.
    "pgbouncer": Rule(None, NONE, ANY),
    "schema": Rule(None, NONE, ANY),
    "ssl": Rule(instead="sslmode=require"),
    "database": Rule(instead="dbname, or the database after the host"),
}  # fmt: skip
#: libpq sets these in the session. They change no statement of ours.
IGNORED_VARIABLES: Final = ("PGDATESTYLE", "PGTZ", "PGGEQO")
#: Values of these parameters are not shown.
SECRET: Final = re.compile("password|scram_|oauth_")
