"""One run: in the middle of a full run and of a token request, the primary changes."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

import asyncpg

from refresher.postgres.failures import DRIVER_ERRORS
from tests.chaos.application import INSERT_ACCOUNT, INSERT_VIDEOS, Application
from tests.chaos.invariants import lost_covers
from tests.chaos.observer import Observer
from tests.chaos.run import LOG_LINES, say
from tests.patroni.cluster import Cluster, Node
from tests.patroni.stage import ClusterStage, staged

ACCOUNTS, VIDEOS_AT_FIRST, VIDEOS_OF_THE_RUN = 30, 5, 100
NEWCOMERS = 4
#: The share of the full run that is done when the fault comes.
DONE = 1 / 3
FRESH_WITHIN_SECONDS = 120.0
STAYS_FRESH_SECONDS = 4.0
LOOK_SECONDS = 0.2
CONNECT_SECONDS = 1.0

#: How many videos have no valid cover.
NOT_FRESH = """
SELECT count(*) FROM refresher.videos
WHERE cover_image_url IS NULL OR cover_expires_at IS NULL OR cover_expires_at <= now()
"""

Fault = Callable[[Cluster, Node], AbstractAsyncContextManager[None]]


# --- The faults: each begins on entry, and ends on exit ---


@asynccontextmanager
async def switched_over(cluster: Cluster, leader: Node) -> AsyncIterator[None]:
    order = asyncio.create_task(asyncio.to_thread(cluster.switch_over, leader))
    try:
        yield
    finally:
        await order


@asynccontextmanager
async def killed(cluster: Cluster, leader: Node) -> AsyncIterator[None]:
    cluster.away.add(leader.name)
    await asyncio.to_thread(leader.kill)
    try:
        yield
    finally:
        leader.start()


@asynccontextmanager
async def paused(cluster: Cluster, leader: Node) -> AsyncIterator[None]:
    """It goes on as soon as another leads, and does not know that yet."""
    cluster.away.add(leader.name)
    leader.pause()
    try:
        yield
    finally:
        leader.go_on()


FAULTS: dict[str, Fault] = {
    "switchover": switched_over,
    "primary killed": killed,
    "primary paused": paused,
}


@dataclass(slots=True)
class Report:
    """The figures of a run; seconds count from the fault."""

    fault: str
    fresh_at_fault: float = 0.0  # the share
    tokens_under_way: int = 0
    writes_after_seconds: float = 0.0  # another node takes them
    fresh_after_seconds: float = 0.0  # and so it stayed
    whole_after_seconds: float = 0.0  # the old primary follows, one standby is synchronous
    requests: int = 0
    token_requests: int = 0
    asked_again: int = 0  # covers that were answered and are in no commit
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.fault}: {self.fresh_at_fault:.0%} fresh, {self.tokens_under_way} token requests"
            f" under way; writes after {self.writes_after_seconds:.1f} s, all fresh after "
            f"{self.fresh_after_seconds:.1f} s, cluster whole after "
            f"{self.whole_after_seconds:.1f} s; {self.requests} requests, {self.token_requests} for"
            f" tokens, {self.asked_again} covers asked for again; "
            f"{len(self.violations)} violations"
        )


class Freshness:
    """Looks all the time whether all is fresh."""

    def __init__(self, stage: ClusterStage) -> None:
        self._stage = stage
        self.stale: int | None = None  # videos; None while the database does not answer
        self.last_stale_at = monotonic()

    async def watch(self) -> None:
        while True:
            rows = await self._stage.fetch(NOT_FRESH)
            self.stale = rows[0][0] if rows else None
            if self.stale != 0:
                self.last_stale_at = monotonic()
            await asyncio.sleep(LOOK_SECONDS)

    async def until(self, condition: Callable[[int | None], bool]) -> None:
        """Raises TimeoutError."""
        async with asyncio.timeout(FRESH_WITHIN_SECONDS):
            while True:
                if condition(self.stale):
                    return
                await asyncio.sleep(LOOK_SECONDS / 4)


async def play(cluster: Cluster, fault: str) -> Report:
    """A run with this fault. The logs stay only after a failure."""
    await asyncio.to_thread(cluster.wait_until_whole)
    cluster.away.clear()
    folder = Path(tempfile.mkdtemp(prefix="patroni-"))
    report = Report(fault)
    try:
        async with staged(cluster, folder) as stage:
            await _play(stage, report)
    except BaseException:
        _keep(cluster, folder)
        raise
    if report.violations:
        _keep(cluster, folder)
        say("\n".join(f"VIOLATED: {what}" for what in report.violations))
    else:
        shutil.rmtree(folder)
    say(str(report))
    return report


async def _play(stage: ClusterStage, report: Report) -> None:
    observer, freshness = Observer(stage), Freshness(stage)
    application = Application(stage, seed=0)
    for _ in range(ACCOUNTS):
        await application.add_account(VIDEOS_AT_FIRST)
    for replica in stage.replicas:
        await replica.start()
    stop = asyncio.Event()
    watching = asyncio.create_task(observer.watch(stop))
    looking = asyncio.create_task(freshness.watch())
    try:
        await _play_fault(stage, application, freshness, report)
        await _settle(stage, observer)
    finally:
        looking.cancel()
    await asyncio.gather(*(replica.terminate() for replica in stage.replicas))
    stop.set()
    await watching
    await observer.look()
    await observer.at_the_end()
    await _judge(stage, observer, report)


async def _play_fault(
    stage: ClusterStage, application: Application, freshness: Freshness, report: Report
) -> None:
    cluster, upstream = stage.cluster, stage.upstream
    leader = await asyncio.to_thread(cluster.leader)
    assert leader
    await freshness.until(lambda stale: stale == 0)
    await _begin_full_run(stage, application)
    await freshness.until(bool)
    some = ACCOUNTS * VIDEOS_OF_THE_RUN * (1 - DONE)
    await freshness.until(lambda stale: stale is not None and stale <= some)
    await asyncio.gather(upstream.hold(), _sign_in(stage, application))
    report.fresh_at_fault = 1 - (freshness.stale or 0) / len(stage.owners)
    began = monotonic()
    with stage.journal.during("away", "database"):
        async with FAULTS[report.fault](cluster, leader):
            await _until_away(cluster, leader)
            report.tokens_under_way = upstream.held
            upstream.release()
            await _until_another_writes(stage, leader)
            report.writes_after_seconds = monotonic() - began
        await freshness.until(lambda stale: stale == 0)
    await asyncio.to_thread(cluster.wait_until_whole)
    report.whole_after_seconds = monotonic() - began
    cluster.away.clear()
    await asyncio.sleep(STAYS_FRESH_SECONDS)
    report.fresh_after_seconds = freshness.last_stale_at - began


async def _begin_full_run(stage: ClusterStage, application: Application) -> None:
    """All accounts get new videos at once."""
    new = [(o, application.new_videos(o, VIDEOS_OF_THE_RUN)) for o in application.accounts]
    await stage.transact(*((INSERT_VIDEOS, open_id, ids) for open_id, ids in new))


async def _sign_in(stage: ClusterStage, application: Application) -> None:
    """Some more users come, whose access tokens have to be renewed first."""
    rows: list[tuple[object, ...]] = []
    for open_id in (f"newcomer-{number}" for number in range(NEWCOMERS)):
        access_token, _, *others = application.authorized(open_id)
        rows += [
            (INSERT_ACCOUNT, open_id, access_token, datetime.now(UTC), *others),
            (INSERT_VIDEOS, open_id, application.new_videos(open_id, VIDEOS_AT_FIRST)),
        ]
    await stage.transact(*rows)


async def _until_away(cluster: Cluster, leader: Node) -> None:
    """The old primary takes no writes any more."""
    while leader.name not in cluster.away:
        if not await _takes_writes(cluster.url_of(leader)):
            return
        await asyncio.sleep(0.02)


async def _until_another_writes(stage: ClusterStage, leader: Node) -> None:
    others = [node for node in stage.cluster.nodes if node is not leader]
    gone = stage.journal.note("gone", "database", lasting=leader.name in stage.cluster.away)
    while True:
        looked_at = monotonic()
        for node in others:
            if await _takes_writes(stage.cluster.url_of(node)):
                return
        gone.ended = looked_at  # nobody took writes when this look began
        await asyncio.sleep(0.05)


async def _takes_writes(url: str) -> bool:
    with suppress(TimeoutError, *DRIVER_ERRORS):
        connection = await asyncpg.connect(url, timeout=CONNECT_SECONDS)
        try:
            return not await connection.fetchval("SELECT pg_is_in_recovery()", timeout=1)
        finally:
            connection.terminate()
    return False


async def _settle(stage: ClusterStage, observer: Observer) -> None:
    for _ in range(20):
        unsettled = await observer.unsettled()
        if not unsettled:
            return
        await asyncio.sleep(0.5)
    for invariant, what in unsettled:
        stage.violated(invariant, what)


async def _judge(stage: ClusterStage, observer: Observer, report: Report) -> None:
    rows = await stage.fetch("SELECT open_id, url FROM chaos.written")
    written = [(row["open_id"], row["url"]) for row in rows or ()]
    for what in lost_covers(observer.events, written):
        stage.violated("9 acknowledged", what)
    for event in observer.events:
        if event["event"] == "replica.lost":
            stage.violated("10 takeover", f"no replica has died: {event}")
    if report.fresh_at_fault == 1 or not report.tokens_under_way:
        stage.violated("0 moment", "the fault did not meet a full run and a token request")
    report.requests = len(stage.emulator.record)
    report.token_requests = len(stage.emulator.token_record)
    report.asked_again = len(stage.emulator.handed_out.keys() - {url for _, url in written})
    report.violations = [f"invariant {number}: {what}" for number, what in stage.violations]


def _keep(cluster: Cluster, folder: Path) -> None:
    for node in cluster.nodes:
        shutil.copyfile(node.folder / "log", folder / f"{node.name}.log")
    for log in sorted(folder.glob("replica-*.log")):
        say(f"--- the end of {log.name}")
        say("\n".join(log.read_text().splitlines()[-LOG_LINES:]))
    say(f"logs: {folder}")
