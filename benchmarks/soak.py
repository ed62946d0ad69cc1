"""Half an hour at full load, every row rewritten many times: python -m benchmarks.soak.

Covers live a few seconds, so that all of them are due again and again, and no rate limit holds the
daemon back. For a while another session holds an old snapshot open (REPEATABLE READ, idle in its
transaction, as a forgotten psql or a long report does): nothing that dies meanwhile can be cleared
away. Every ten seconds the database's own statistics are read.

Takes --minutes, and with the snapshot held for ten about 10 GB of disk, which it gives back.
"""

import argparse
import asyncio
from collections.abc import Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from time import monotonic
from typing import Any, Final

import uvloop

from benchmarks.arguments import parser_of, picture, real, whole
from benchmarks.live import MB, Daemon, daemon, print_table, print_verdict, stand_in
from benchmarks.world import Server, StandIn, make_fleet, postgres, settle

DATABASE: Final = "soak"
SAMPLE_SECONDS: Final = 10
#: What counts as flat, and as HOT throughout.
FLAT: Final = 1.02
HOT: Final = 0.9995

# Covers that outlived those the stand-in gives would be kept.
EXPIRE: Final = """
UPDATE refresher.videos SET cover_expires_at = now(), refreshed_at = now(), due_at = now()
"""
STATISTICS: Final = """
SELECT v.n_tup_upd AS updates, v.n_tup_hot_upd AS hot, v.n_dead_tup AS dead,
       v.autovacuum_count AS vacuums, v.autoanalyze_count AS analyzes,
       a.n_tup_upd AS account_updates, a.n_tup_hot_upd AS account_hot,
       a.autovacuum_count AS account_vacuums,
       pg_table_size(v.relid) AS videos_bytes, pg_indexes_size(v.relid) AS videos_index_bytes,
       pg_table_size(a.relid) AS accounts_bytes, pg_indexes_size(a.relid) AS accounts_index_bytes
FROM pg_stat_user_tables AS v, pg_stat_user_tables AS a
WHERE v.relid = 'refresher.videos'::regclass AND a.relid = 'refresher.accounts'::regclass
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """How it stood at a moment, seconds after the start; counts are those since the start."""

    at: float
    videos: int
    cpu_seconds: float
    postgres_cpu_seconds: float
    memory_bytes: int
    updates: int
    hot: int
    dead: int
    vacuums: int
    analyzes: int
    account_updates: int
    account_hot: int
    account_vacuums: int
    videos_bytes: int
    videos_index_bytes: int
    accounts_bytes: int
    accounts_index_bytes: int


@dataclass(frozen=True, slots=True)
class Minute:
    """What happened between two samples, the later of which tells the sizes."""

    before: Sample
    after: Sample

    @property
    def videos_per_second(self) -> float:
        return (self.after.videos - self.before.videos) / (self.after.at - self.before.at)

    @property
    def hot_share(self) -> float:
        updates = self.after.updates - self.before.updates
        return (self.after.hot - self.before.hot) / updates if updates else 1.0

    @property
    def account_hot_share(self) -> float:
        updates = self.after.account_updates - self.before.account_updates
        return (self.after.account_hot - self.before.account_hot) / updates if updates else 1.0

    def cores(self, name: str) -> float:
        spent = getattr(self.after, name) - getattr(self.before, name)
        return float(spent) / (self.after.at - self.before.at)


def main() -> None:
    options = read_options()
    samples = uvloop.run(soak(options))
    show(samples, options)
    if options.plot:
        plot(samples, options)


def read_options() -> argparse.Namespace:
    parser = parser_of("python -m benchmarks.soak", __doc__)
    add = parser.add_argument
    add("--minutes", type=real(1), default=30, help="at full load (default %(default)s)")
    add(
        "--snapshot-from",
        type=real(0),
        metavar="MINUTE",
        default=5,
        help="the old snapshot is taken so many minutes after the start (default %(default)s)",
    )
    add(
        "--snapshot-until",
        type=real(0),
        metavar="MINUTE",
        default=15,
        help="and given up so many after the start (default %(default)s); none is taken at all "
        "where this is not after --snapshot-from, or is after the end",
    )
    add("--accounts", type=whole(), default=2000, help="(default %(default)s)")
    add("--videos-each", type=whole(), default=100, help="of each account (default %(default)s)")
    add("--cover-ttl", type=whole(), default=6, help="seconds a cover lives (default %(default)s)")
    add("--before", metavar="SQL", default="", help="to run first, to try other settings")
    add("--plot", type=picture, metavar="FILE.png", help="the course of it, drawn")
    return parser.parse_args()


def holds_snapshot(options: argparse.Namespace) -> bool:
    return bool(options.snapshot_from < options.snapshot_until <= options.minutes)


async def soak(options: argparse.Namespace) -> Sequence[Sample]:
    async with postgres({}) as server:
        await make_fleet(server, DATABASE, options.accounts, options.videos_each)
        async with server.connected(DATABASE) as connection:
            await connection.execute(EXPIRE)
            await settle(connection)
            if options.before:
                await connection.execute(options.before)
            with (
                stand_in(cover_ttl_seconds=options.cover_ttl) as endpoint,
                daemon(server.url(DATABASE), endpoint.base_url, rate_limit_per_token=0) as watched,
            ):
                holding = asyncio.create_task(_hold_snapshot(server, options))
                samples = await _sampled(server, connection, endpoint, watched, options)
                await holding
                return samples


async def _hold_snapshot(server: Server, options: argparse.Namespace) -> None:
    """As a session that is idle in its transaction does."""
    if not holds_snapshot(options):
        return
    await asyncio.sleep(60 * options.snapshot_from)
    async with server.connected(DATABASE) as connection, _old_snapshot(connection):
        await asyncio.sleep(60 * (options.snapshot_until - options.snapshot_from))


@asynccontextmanager
async def _old_snapshot(connection: Any):
    async with connection.transaction(isolation="repeatable_read"):
        await connection.execute("SELECT count(*) FROM refresher.accounts")
        yield


async def _sampled(
    server: Server,
    connection: Any,
    endpoint: StandIn,
    watched: Daemon,
    options: argparse.Namespace,
) -> Sequence[Sample]:
    begun, samples = monotonic(), []
    for number in range(round(60 * options.minutes / SAMPLE_SECONDS) + 1):
        await asyncio.sleep(begun + number * SAMPLE_SECONDS - monotonic())
        samples.append(
            Sample(
                at=monotonic() - begun,
                videos=endpoint.stats().ids,
                cpu_seconds=watched.cpu_seconds(),
                postgres_cpu_seconds=server.cpu_seconds(),
                memory_bytes=watched.memory_bytes(),
                **await connection.fetchrow(STATISTICS),
            )
        )
    return samples


def minutes_of(samples: Sequence[Sample], seconds: float = 60) -> Sequence[Minute]:
    step = round(seconds / SAMPLE_SECONDS)
    return [Minute(before, after) for before, after in pairwise(samples[::step])]


def show(samples: Sequence[Sample], options: argparse.Namespace) -> None:
    minutes = minutes_of(samples)
    print_table(
        ["minute", "videos/s", "HOT", "HOT accounts", "table MB", "indexes MB", "accounts MB",
         "their indexes MB", "dead rows", "autovacuums", "daemon cores", "PostgreSQL cores",
         "memory MB"],
        [_row(number, minute) for number, minute in enumerate(minutes, 1)],
    )  # fmt: skip
    updates = samples[-1].updates - samples[0].updates
    rewritten = updates / options.accounts / options.videos_each
    print(f"\nEach row was rewritten {rewritten:.0f} times.")
    judge(minutes, options)


def _row(number: int, minute: Minute) -> Sequence[str]:
    after = minute.after
    return [
        str(number),
        f"{minute.videos_per_second:,.0f}",
        f"{minute.hot_share:.2%}",
        f"{minute.account_hot_share:.1%}",
        f"{after.videos_bytes / MB:,.0f}",
        f"{after.videos_index_bytes / MB:,.1f}",
        f"{after.accounts_bytes / MB:,.1f}",
        f"{after.accounts_index_bytes / MB:,.1f}",
        f"{after.dead:,}",
        f"{after.vacuums}+{after.account_vacuums}",
        f"{minute.cores('cpu_seconds'):.2f}",
        f"{minute.cores('postgres_cpu_seconds'):.2f}",
        f"{after.memory_bytes / MB:.0f}",
    ]


def judge(minutes: Sequence[Minute], options: argparse.Namespace) -> None:
    """Before the snapshot and after it: while it is held nothing can be cleared away."""
    held = holds_snapshot(options)
    before = [m for m in minutes if not held or m.after.at <= 60 * options.snapshot_from + 1]
    after = [m for m in minutes if held and m.before.at >= 60 * options.snapshot_until - 1]
    for name, stretch in (("before the old snapshot", before), ("after it", after)):
        if len(stretch) > 2:
            _judge_stretch(name, stretch)
    best = max(minute.videos_per_second for minute in minutes)
    share = minutes[-1].videos_per_second / best
    print_verdict(f"the last minute does {share:.2f} of the best one's videos/s", met=share >= 0.9)


def _judge_stretch(name: str, stretch: Sequence[Minute]) -> None:
    settled = stretch[2:]
    hot = fmean(minute.hot_share for minute in settled)
    print_verdict(f"{name}, from its third minute on, {hot:.3%} HOT on videos", met=hot >= HOT)
    for what in ("videos_bytes", "videos_index_bytes", "accounts_bytes", "accounts_index_bytes"):
        growth = getattr(settled[-1].after, what) / getattr(settled[0].before, what)
        words = what.removesuffix("_bytes").replace("_", " ")
        print_verdict(f"{name}, from its third minute on, {words} grew {growth:.3f} times",
                      met=growth <= FLAT)  # fmt: skip


def plot(samples: Sequence[Sample], options: argparse.Namespace) -> None:
    # An extra of its own: whoever draws nothing need not have it.
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    spans = minutes_of(samples, SAMPLE_SECONDS)
    at = [span.after.at / 60 for span in spans]
    figure, (speed, hot, size) = plt.subplots(3, sharex=True, figsize=(9, 8))
    speed.plot(at, [span.videos_per_second for span in spans])
    speed.set_ylabel("videos/s")
    hot.plot(at, [100 * span.hot_share for span in spans])
    hot.set_ylabel("HOT %")
    size.plot(at, [span.after.videos_bytes / MB for span in spans], label="videos")
    size.plot(at, [span.after.videos_index_bytes / MB for span in spans], label="its index")
    size.set_ylabel("MB")
    size.set_xlabel("minutes; grey: an old snapshot is held")
    size.legend()
    for axes in (speed, hot, size):
        axes.set_ylim(bottom=0)
        if holds_snapshot(options):
            axes.axvspan(options.snapshot_from, options.snapshot_until, color="0.9")
    figure.tight_layout()
    figure.savefig(options.plot, dpi=120)


if __name__ == "__main__":
    main()
