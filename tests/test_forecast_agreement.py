"""The forecast held against real runs: what it foretells happens, and nothing else."""

from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from refresher.domain.due import DuePolicy
from refresher.domain.pacing import Pace
from refresher.postgres.stored import read_stored
from refresher.simulation.outlook import look_ahead
from refresher.simulation.plan import Plan
from tests.conftest import eventually

#: Covers live forty seconds and are asked for anew thirteen before their end.
TTL, LEAD, SECONDS = 40, 13, 30
POLL, LATENCY = 0.2, 0.1
#: What a forecast may be off: one in twenty of the time that it looks ahead.
MARGIN = SECONDS / 20


@dataclass
class Held:
    """An account: its videos, and in how many seconds their covers end, the first and the last."""

    videos: int
    ends_in: tuple[float, float] = (34, 34)
    state: str = "active"
    paused_for: float = 0
    covered: bool = True


@dataclass
class Run:
    """A fleet under a quota."""

    accounts: dict[str, Held]
    per_token: int = 600
    per_app: int = 0
    unasked: set[str] = field(default_factory=set)


def waves(accounts, videos, first=15, apart=1):
    """Accounts whose covers end one after the other."""
    ends = [first + apart * n for n in range(accounts)]
    return {f"account-{n}": Held(videos, (end, end)) for n, end in enumerate(ends)}


#: Small accounts that fall due one by one, and between them what has no part in the quota.
MIXED = {
    **waves(16, 40),
    "parked": Held(100, (4, 27), state="needs_reauthorization"),
    "paused": Held(40, (7, 7), state="paused"),
    "throttled": Held(20, (17, 17), paused_for=21),
    "new": Held(60, covered=False),
}
LARGE = {"large": Held(400, (20, 23)), **waves(8, 20)}

TOO_LITTLE = [
    pytest.param(Run(waves(20, 40), per_app=45), id="app"),
    pytest.param(Run(LARGE, per_token=45), id="one-large-account"),
    pytest.param(Run(MIXED, per_app=60, unasked={"parked", "paused"}), id="mixed"),
]
#: In the last one nobody pauses: no quota keeps covers alive that end during a pause.
ENOUGH = [
    pytest.param(Run(waves(20, 40), per_app=180), id="app"),
    pytest.param(Run(LARGE, per_token=90), id="one-large-account"),
    pytest.param(
        Run({**MIXED, "throttled": Held(20)}, per_app=225, unasked={"parked", "paused"}),
        id="mixed",
    ),
]


VIDEOS = "INSERT INTO refresher.videos (open_id, video_id) SELECT $1, unnest($2::text[])"
#: Their covers end one after the other, evenly.
COVERS = f"""
    UPDATE refresher.videos
    SET cover_image_url = 'https://c', cover_expires_at = at,
        refreshed_at = at - interval '{TTL} seconds', due_at = at - interval '{LEAD} seconds'
    FROM unnest($2::text[]) WITH ORDINALITY AS v (id, n),
         LATERAL (SELECT date_trunc('second', now()) + make_interval(
             secs => $3::float8 + ($4::float8 - $3::float8) * (n - 1) / cardinality($2))) AS t (at)
    WHERE open_id = $1 AND video_id = id
"""


def plan(run):
    policy = DuePolicy(timedelta(seconds=LEAD), timedelta(0), timedelta(hours=6), missing_limit=5)
    return Plan(
        policy=policy,
        ttl="hourly",
        seconds=SECONDS,
        pace=Pace(run.per_token, run.per_app, lease_seconds=20),
        poll_seconds=POLL,
        request_seconds=LATENCY,
    )


async def store(world, accounts):
    """The accounts with their videos, all at once, as a daemon would have left them."""
    ids = {name: await exists(world, name, account) for name, account in accounts.items()}
    async with world.pool.acquire() as connection, connection.transaction():
        # As the daemon's own writes: the triggers that mend an application's stay out of it.
        await connection.execute("SET LOCAL session_replication_role = replica")
        for name, account in accounts.items():
            await connection.execute(
                "INSERT INTO refresher.accounts (open_id, access_token, state, next_slot_at)"
                " VALUES ($1, $2, $3, now() + make_interval(secs => $4))",
                name,
                f"act.{name}",
                account.state,
                account.paused_for,
            )
            await connection.execute(VIDEOS, name, ids[name])
            if account.covered:
                await connection.execute(COVERS, name, ids[name], *account.ends_in)
        await connection.execute("UPDATE refresher.accounts SET wake_at = now()")


async def exists(world, name, account):
    """The account and its videos, at TikTok. The video IDs."""
    ids = [str(next(world.ids)) for _ in range(account.videos)]
    world.emulator.add_account(name, f"act.{name}")
    for video_id in ids:
        world.emulator.add_video(name, video_id)
    return ids


async def foretold_and_seen(run, serve, start, pool):
    """The forecast, and by account the first death that was seen, in seconds from then on."""
    limits = {"rate_limit_per_token": run.per_token, "rate_limit_per_app": run.per_app}
    world = await serve(cover_ttl=TTL, latency_seconds=LATENCY, **limits)
    daemon = await start(world, lead_seconds=LEAD, spread_seconds=0, poll_seconds=POLL, **limits)
    await daemon.until_event("daemon.started")
    await store(world, run.accounts)
    told = look_ahead(await read_stored(pool, managed=True, fingerprint=None), plan(run))
    died = await seen(pool, told.now)
    assert daemon.process.returncode is None
    return told, died


async def seen(pool, begun):
    """The first death of each account that is worked, until the time is over."""
    first = {}

    async def over():
        rows = await pool.fetch(
            "SELECT open_id, extract(epoch FROM min(cover_expires_at))::float8 - $1 AS died"
            " FROM refresher.videos JOIN refresher.accounts USING (open_id)"
            " WHERE state = 'active' AND cover_expires_at < now()"
            "  AND cover_expires_at < to_timestamp($1 + $2::float8)"
            " GROUP BY open_id",
            begun,
            SECONDS,
        )
        for row in rows:
            first.setdefault(row["open_id"], row["died"])
        return await pool.fetchval(
            "SELECT now() > to_timestamp($1::float8 + $2::float8)", begun, SECONDS
        )

    await eventually(over, "the end of the run", SECONDS + 30)
    return first


@pytest.mark.long
@pytest.mark.parametrize("run", TOO_LITTLE)
async def test_a_run_with_too_little_quota_loses_what_it_foretold(run, serve, start, pool):
    """Nine in ten of the accounts by name, and the first death; what nobody asks for is apart."""
    told, died = await foretold_and_seen(run, serve, start, pool)
    named = {loss.open_id for loss in told.today.losses}
    assert died
    assert len(named & died.keys()) >= 0.9 * len(died)
    assert len(named - died.keys()) <= 0.1 * len(named)
    first = told.today.first_death_at - told.now
    assert first == pytest.approx(min(died.values()), abs=MARGIN)
    assert not named & run.unasked
    assert sum(unasked.accounts for unasked in told.unasked.values()) == len(run.unasked)


@pytest.mark.long
@pytest.mark.parametrize("run", ENOUGH)
async def test_a_run_with_enough_quota_is_not_warned_of(run, serve, start, pool):
    """No cover that is asked for dies, in the forecast or in the run."""
    told, died = await foretold_and_seen(run, serve, start, pool)
    assert (told.today.first_death_at, told.today.deaths, told.today.losses) == (None, 0, [])
    assert died == {}
