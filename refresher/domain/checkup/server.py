"""Judges the database server, the way to it, the schema and the role."""

from collections.abc import Iterator
from typing import Final

from refresher.domain.checkup.facts import Clocks, Pooling, Reached, Role, Schema, Session
from refresher.domain.checkup.findings import Finding, fine, problem, warning
from refresher.domain.spans import counted, span

OLDEST_VERSION: Final = 15
#: As the server counts: 150000 is version 15.
VERSION_UNIT: Final = 10_000
#: Differences below this do no harm.
CLOCK_SECONDS: Final = 5.0
GRANTS: Final = "run the grants of docs/security.md again, as the tables' owner"


def reachable(reached: Reached) -> Iterator[Finding]:
    if reached.error is not None:
        yield problem(reached.error, "check REFRESHER_DATABASE_URL, the network and the server")
    else:
        yield fine("the database answers")


def version(session: Session) -> Iterator[Finding]:
    if session.version_number < OLDEST_VERSION * VERSION_UNIT:
        yield problem(
            f"PostgreSQL {session.version} is too old", f"upgrade to {OLDEST_VERSION} or newer"
        )
    else:
        yield fine(f"PostgreSQL {session.version} is {OLDEST_VERSION} or newer")


def migrated(schema: Schema) -> Iterator[Finding]:
    if schema.revision is None:
        yield problem("there are no tables in schema refresher", "run refresher migrate")
    elif schema.is_outdated:
        yield problem(
            f"the schema is at revision {schema.revision}, this version needs {schema.needed}",
            "run refresher migrate",
        )
    else:
        yield fine(f"the schema is at revision {schema.revision}")


def pooler(session: Session) -> Iterator[Finding]:
    if session.pooling is Pooling.STATEMENT:
        yield problem(
            "the pooler allows no transactions (pool_mode=statement)", "set pool_mode=transaction"
        )
    elif session.pooling is Pooling.NONE:
        yield fine("no pooler in between")
    elif unset := _unset(session):
        yield warning(
            f"behind a pooler ({session.pooling} mode), and for the role {unset}",
            "ALTER ROLE … SET lock_timeout = '5s' and SET jit = off",
        )
    else:
        yield fine(f"behind a pooler ({session.pooling} mode)")


def _unset(session: Session) -> str:
    """What we would set on a direct connection and cannot set here."""
    unset = []
    if not session.lock_timeout_seconds:
        unset.append("lock_timeout is 0")
    if session.jit:
        unset.append("jit is on")
    return " and ".join(unset)


def clock(clocks: Clocks) -> Iterator[Finding]:
    off = max(0.0, abs(clocks.ahead_seconds) - clocks.tolerance_seconds)
    if off > CLOCK_SECONDS:
        yield warning(
            f"the database's clock is {_shift(clocks.ahead_seconds)} this machine's",
            "set both by NTP: the database's decides what is due",
        )
    else:
        yield fine(f"the database's clock and this machine's are {span(off)} apart")


def _shift(ahead_seconds: float) -> str:
    return f"{span(abs(ahead_seconds))} {'ahead of' if ahead_seconds > 0 else 'behind'}"


def rights(role: Role) -> Iterator[Finding]:
    if role.lacking:
        yield problem(f"the role lacks {', '.join(role.lacking)}", GRANTS)
    else:
        yield fine("the role may do all that the daemon does")


def rows(role: Role) -> Iterator[Finding]:
    if role.refused is not None:
        yield problem(role.refused, "see docs/security.md, Database roles")
    elif role.restricted:
        yield warning(
            f"row-level security may hide rows of refresher.{', refresher.'.join(role.restricted)}",
            "give the role BYPASSRLS, or a policy FOR ALL USING (true)",
        )
    else:
        yield fine("the role sees and changes every row")


def connections(role: Role) -> Iterator[Finding]:
    if role.connections is not None:
        yield warning(
            f"the role or the database allows {counted(role.connections, 'connection')}, a replica"
            f" opens up to {role.wanted}",
            "raise CONNECTION LIMIT",
        )
    else:
        yield fine(f"no limit of connections below the {role.wanted} of a replica")
