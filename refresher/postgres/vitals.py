"""Reads what `doctor` looks at: catalogue, statistics and bounded samples, never a whole table.

The status page asks for some of it, too. What reads all accounts may take `REPORT_SECONDS`: a
time-out closes the idle connections of the pool, which are the daemon's.

Only the accounts are counted as a whole, by the summary of each minute, `demand.sql` and
`troubles.sql`. Nothing here takes a lock that the daemon waits for. Every function raises
`DatabaseUnavailable`, and `asyncpg.PostgresError` where tables or columns are missing.
"""

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Final

from refresher.domain.checkup import facts
from refresher.domain.clocks import Clock
from refresher.domain.due import DuePolicy
from refresher.domain.errors import DatabaseUnavailable
from refresher.domain.pacing import Pace
from refresher.domain.quota import Demand
from refresher.postgres.database import (
    CONNECTIONS,
    REPORT_SECONDS,
    SCHEMA_REVISION,
    Pool,
    acquired,
    read_revision,
)
from refresher.postgres.details import read_missing
from refresher.postgres.failures import DatabaseRefusedError
from refresher.postgres.listening import WAKE_CHANNEL
from refresher.postgres.naming import named, schema_of
from refresher.postgres.outbox import read_outbox
from refresher.postgres.probes import count_probes, read_hosts
from refresher.postgres.replicas import seen_replicas
from refresher.postgres.role import check_role, connection_limit
from refresher.postgres.sampling import sample_percent
from refresher.postgres.sealing import Sealer, sealed_tokens
from refresher.postgres.statements import statement
from refresher.postgres.status import read_now, read_paused_since, read_summary
from refresher.postgres.told import read_waiting

if TYPE_CHECKING:
    from refresher.postgres.database import Pooled

#: How many rows a sample should bring; where they lie together, it brings more.
COVERS_SAMPLED: Final = 2_000
ACCOUNTS_SAMPLED: Final = 50
#: Videos read of each of these: as many as a claim of several chunks reads.
VIDEOS_OF_ACCOUNT: Final = 200

PROCESS: Final = statement("process")
SESSION: Final = statement("session")
LACKING_RIGHTS: Final = statement("lacking_rights")
TABLE_STATISTICS: Final = statement("table_statistics")
AUTOVACUUM: Final = statement("autovacuum")
OLD_SNAPSHOTS: Final = statement("old_snapshots")
HIDDEN_SESSIONS: Final = statement("hidden_sessions")
LISTENING: Final = statement("listening")
HARMFUL_INDEXES: Final = statement("harmful_indexes")
SCATTER: Final = statement("scatter")
LIVES: Final = statement("lives")
TROUBLES: Final = statement("troubles")
DEMAND: Final = statement("demand")
APP_STANDING: Final = statement("app_standing")


async def read_server(
    pool: Pool, clock: Callable[[], datetime]
) -> tuple[facts.Reached, facts.Session, facts.Clocks]:
    """The server, the way to it, and its clock compared with `clock`."""
    async with acquired(pool) as connection:
        begun = clock()
        (row,) = await connection.fetch(*SESSION())
        half = (clock() - begun) / 2
        pooled = row["process"] != connection.get_server_pid()
        pooling = await _pooling(pool, connection) if pooled else facts.Pooling.NONE
    return (
        facts.Reached(None),
        facts.Session(
            row["version"], row["version_number"], pooling, row["lock_timeout"], row["jit"]
        ),
        facts.Clocks((row["now"] - begun - half).total_seconds(), half.total_seconds()),
    )


async def _pooling(pool: Pool, connection: "Pooled") -> facts.Pooling:
    """The mode of a pooler, by what two of its clients get."""
    try:
        async with acquired(pool) as other, other.transaction():
            theirs = await other.fetchval(*PROCESS())
    except DatabaseUnavailable:
        return facts.Pooling.STATEMENT
    # Idle, both have a process in session mode, and none in transaction mode: there the process
    # that was free last serves whoever comes next.
    ours = await connection.fetchval(*PROCESS())
    return facts.Pooling.TRANSACTION if ours == theirs else facts.Pooling.SESSION


async def read_role(pool: Pool) -> facts.Role:
    """What the role may do. The schema must be there."""
    async with acquired(pool) as connection:
        lacking = [row["lacking"] for row in await connection.fetch(*LACKING_RIGHTS())]
    restricted: list[str] = []
    refused = None
    try:
        restricted = await check_role(pool)
    except DatabaseRefusedError as error:
        refused = str(error)
    limit = await connection_limit(pool)
    return facts.Role(lacking, refused, restricted, limit, CONNECTIONS)


async def read_schema(pool: Pool) -> facts.Schema:
    """The revision of the tables."""
    return facts.Schema(await read_revision(pool), SCHEMA_REVISION)


async def read_app(pool: Pool, fingerprint: str | None, *, needed: bool) -> facts.App:
    """How the app credentials with this fingerprint stand, and the app's limit."""
    async with acquired(pool) as connection:
        asked = APP_STANDING(credentials=fingerprint)
        (row,) = await connection.fetch(*asked, timeout=REPORT_SECONDS)
    return facts.App(needed=needed, given=fingerprint is not None, **dict(row))


async def read_troubles(pool: Pool, *, managed: bool) -> facts.Troubles:
    """What of the accounts cannot be kept alive; `managed`: we renew access tokens."""
    async with acquired(pool) as connection:
        (row,) = await connection.fetch(*TROUBLES(managed=managed), timeout=REPORT_SECONDS)
    missing_of, _ = await read_missing(pool)
    return facts.Troubles(**dict(row), missing_of=missing_of)


async def read_covers(pool: Pool, lead_seconds: float) -> facts.Covers:
    """How fresh the covers are."""
    summary = await read_summary(pool)
    return facts.Covers(summary.expired, summary.due, summary.oldest_overdue_seconds, lead_seconds)


async def read_pause(pool: Pool) -> facts.Pause:
    """Whether everything is paused."""
    since = await read_paused_since(pool)
    if since is None:
        return facts.Pause(None)
    return facts.Pause((await read_now(pool) - since).total_seconds())


async def read_lives(pool: Pool, policy: DuePolicy) -> facts.Lives:
    """How long covers live."""
    async with acquired(pool) as connection:
        percent = await sample_percent(connection, "refresher.videos", COVERS_SAMPLED)
        asked = LIVES(percent=percent, rows=COVERS_SAMPLED)
        (row,) = await connection.fetch(*asked, timeout=REPORT_SECONDS)
    return facts.Lives(**dict(row), policy=policy)


async def read_cover_hosts(pool: Pool) -> facts.CoverHosts:
    """The hosts of covers, and which of them kill covers early."""
    return facts.CoverHosts(await read_hosts(pool))


async def read_probes(pool: Pool) -> facts.Probes:
    """What the probes of a day have shown."""
    probes = await count_probes(pool)
    return facts.Probes(probes.served, probes.refused, probes.unknown)


async def read_demand(pool: Pool, lives: facts.Lives, pace: Pace, app: facts.App) -> Demand:
    """What the active accounts need, if all covers live as those do."""
    async with acquired(pool) as connection:
        row = await connection.fetchrow(*DEMAND(), timeout=REPORT_SECONDS)
    return Demand(
        **dict(row or {"chunks": 0, "most_videos": 0, "largest": ""}),
        life_seconds=lives.usual_seconds,
        policy=lives.policy,
        pace=pace,
        found_per_minute=app.found_per_minute,
    )


async def read_stored_demand(pool: Pool, policy: DuePolicy, pace: Pace) -> Demand | None:
    """What the active accounts need, as the stored covers live; None: there are none."""
    lives = await read_lives(pool, policy)
    if not lives.sampled:
        return None
    return await read_demand(pool, lives, pace, await read_app(pool, None, needed=False))


async def read_tokens(pool: Pool, sealer: Sealer, seconds: float, clock: Clock) -> facts.Tokens:
    """Which sealed tokens the keys open: as many as there is time for, in the order of open_id."""
    ends_at = clock() + seconds
    sealed, all_seen = 0, True
    unreadable: list[str] = []
    async for accounts in sealed_tokens(pool, sealer):
        sealed += len(accounts)
        unreadable += [open_id for open_id, readable in accounts.items() if not readable]
        if clock() > ends_at:
            all_seen = False
            break
    return facts.Tokens(
        sealer.seals, sealed, len(unreadable), next(iter(unreadable), None), all_seen
    )


async def read_tables(pool: Pool) -> facts.Tables:
    """What the server counted of our tables."""
    async with acquired(pool) as connection:
        rows = await connection.fetch(*TABLE_STATISTICS())
        on = await connection.fetchval(*AUTOVACUUM())
    return facts.Tables([facts.Table(**dict(row)) for row in rows], on)


async def read_snapshots(pool: Pool) -> facts.Snapshots:
    """What keeps dead rows, as far as the role may see it."""
    async with acquired(pool) as connection:
        rows = await connection.fetch(*OLD_SNAPSHOTS())
        hidden = await connection.fetchval(*HIDDEN_SESSIONS())
    return facts.Snapshots([facts.Holder(**dict(row)) for row in rows], hidden)


async def read_indexes(pool: Pool) -> facts.Indexes:
    """The indexes that do harm."""
    async with acquired(pool) as connection:
        rows = await connection.fetch(*HARMFUL_INDEXES())
    return facts.Indexes(
        invalid=[row["name"] for row in rows if not row["is_valid"]],
        hindering=[row["name"] for row in rows if row["hinders"]],
    )


async def read_scatter(pool: Pool) -> facts.Scatter:
    """How far apart the videos of some accounts lie."""
    async with acquired(pool) as connection:
        percent = await sample_percent(connection, "refresher.accounts", ACCOUNTS_SAMPLED)
        (row,) = await connection.fetch(
            *SCATTER(percent=percent, accounts=ACCOUNTS_SAMPLED, rows=VIDEOS_OF_ACCOUNT)
        )
    return facts.Scatter(**dict(row))


async def read_fleet(pool: Pool, version: str) -> facts.Replicas:
    """The replicas that run."""
    seen, now = await seen_replicas(pool), await read_now(pool)
    return facts.Replicas(
        [
            facts.Replica(one.replica, one.version, (now - one.seen_at).total_seconds())
            for one in seen
            if one.version is not None and one.seen_at
        ],
        sum(one.leases > 0 for one in seen),
        version,
    )


async def read_listening(pool: Pool, pooling: facts.Pooling) -> facts.Listening:
    """Whether the daemons listen; `pooling`: what they, too, have in between."""
    seen, now = await seen_replicas(pool), await read_now(pool)
    async with acquired(pool) as connection:
        channel = named(WAKE_CHANNEL, schema_of(connection))
        listening = await connection.fetchval(*LISTENING(channel=channel))
        hidden = await connection.fetchval(*HIDDEN_SESSIONS())
    running = sum(one.seen_at is not None and not one.is_silent(now) for one in seen)
    return facts.Listening(running, listening, hidden, pooling)


async def read_attachments(pool: Pool) -> facts.Attachments:
    """What attached tables have told and nobody has applied."""
    return facts.Attachments({one.name: one.waiting_seconds for one in await read_waiting(pool)})


async def read_webhooks(pool: Pool) -> facts.Webhooks:
    """What waits in the outbox."""
    outbox = await read_outbox(pool)
    return facts.Webhooks(outbox.waiting, outbox.oldest_seconds)
