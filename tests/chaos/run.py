"""One run: a world, three replicas and a plan; then quiet, and the result."""

import asyncio
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic

from tests.chaos.application import Application
from tests.chaos.attached import Attached
from tests.chaos.mischief import inflict
from tests.chaos.observer import Observer
from tests.chaos.plan import Fault, Plan, make_plan
from tests.chaos.world import World, built

#: After the last fault everything is well again within this time, back-offs included, and stays
#: well for a while.
SETTLED_WITHIN_SECONDS = 100.0
STAYS_SETTLED_SECONDS = 4.0
#: A rate recovers from 429s within an hour. No run waits so long: its covers live for seconds.
AN_HOUR_LATER = (
    ("UPDATE refresher.app SET rate_lowered_at = rate_lowered_at - interval '1 hour'",),
    ("UPDATE refresher.accounts SET rate_lowered_at = rate_lowered_at - interval '1 hour'",),
)
LOG_LINES = 15


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of a run."""

    seed: int
    seconds: float
    faults: dict[str, int]
    requests: int
    token_requests: int
    throttled: int
    refreshed: int
    parked: int
    settled_after_seconds: float | None
    violations: list[str]

    def __str__(self) -> str:
        by_group = Counter[str]()
        for kind, number in self.faults.items():
            by_group[kind.partition(".")[0]] += number
        settled = self.settled_after_seconds
        figures = {
            "seed": self.seed,
            "seconds": f"{self.seconds:.0f}",
            "faults": sum(self.faults.values()),
            **by_group,
            "requests": self.requests,
            "token_requests": self.token_requests,
            "429s": self.throttled,
            "refreshed": self.refreshed,
            "parked": self.parked,
            "settled_after": "never" if settled is None else f"{settled:.1f} s",
            "violations": len(self.violations),
        }
        return "chaos: " + ", ".join(f"{name} {figure}" for name, figure in figures.items())

    def as_json(self) -> str:
        return json.dumps(asdict(self))


async def run(seed: int, seconds: float, only: Sequence[str] = ()) -> Report:
    """Run this seed, with faults whose names begin so, and print the result. The logs stay only after a failure."""
    plan = make_plan(seed, seconds, only)
    say(str(plan))
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-"))
    try:
        async with built(folder) as world:
            report = await _judged(world, plan)
    except BaseException:
        say(f"broken off; logs: {folder}")
        raise
    if report.violations:
        _explain(report, plan, folder, world)
    else:
        _remove(folder)
    say(str(report))
    return report


async def _judged(world: World, plan: Plan) -> Report:
    began = monotonic()
    observer = Observer(world)
    settled_after = await _run_in(world, observer, plan)
    return _report(world, observer, plan, monotonic() - began, settled_after)


async def _run_in(world: World, observer: Observer, plan: Plan) -> float | None:
    """Work until the end. How long it took to settle after the last fault; None for never."""
    application = Application(world, plan.seed)
    await application.populate()
    attached = Attached(world, application, random.Random(f"attached {plan.seed}"))
    await attached.populate()
    for replica in world.replicas:
        await replica.start()
    stop, quiet = asyncio.Event(), asyncio.Event()
    watching = asyncio.create_task(observer.watch(stop))
    tending = [
        asyncio.create_task(application.reauthorize_parked(quiet)),
        *attached.begin(quiet),
    ]
    began = monotonic()
    await _inflict_all(world, application, plan, began)
    quiet.set()
    await asyncio.gather(*tending)
    await attached.at_last()
    await world.transact(*AN_HOUR_LATER)
    settled_after = await _settle(world, observer, attached, began + plan.seconds)
    say(f"attached tables: {attached.transactions} transactions, {attached.statements} statements")
    await asyncio.gather(*(replica.terminate() for replica in world.replicas))
    stop.set()
    await watching
    await observer.look()
    await observer.at_the_end()
    return settled_after


async def _inflict_all(world: World, application: Application, plan: Plan, began: float) -> None:
    async def inflict_in_time(fault: Fault) -> None:
        await asyncio.sleep(began + fault.at - monotonic())
        await inflict(world, application, fault)

    async with asyncio.TaskGroup() as group:
        for fault in plan.faults:
            group.create_task(inflict_in_time(fault), name=str(fault))


async def _settle(
    world: World, observer: Observer, attached: Attached, earliest_end: float
) -> float | None:
    """Wait for the end of the run, and until nothing is unsettled."""
    began = monotonic()
    settled_since: float | None = None
    while True:
        unsettled = await observer.unsettled()
        unsettled += [("8 attached tables", what) for what in await attached.disagreements()]
        now = monotonic()
        settled_since = None if unsettled else settled_since or now
        if settled_since and now >= max(earliest_end, settled_since + STAYS_SETTLED_SECONDS):
            return settled_since - began
        if unsettled and now > began + SETTLED_WITHIN_SECONDS:
            for invariant, what in unsettled:
                world.violated(invariant, f"{what} (after {now - began:.0f} s of quiet)")
            return None
        await asyncio.sleep(0.5)


def _report(
    world: World, observer: Observer, plan: Plan, seconds: float, settled_after: float | None
) -> Report:
    record = world.emulator.record
    return Report(
        seed=plan.seed,
        seconds=round(seconds, 1),
        faults=plan.count(),
        requests=len(record),
        token_requests=len(world.emulator.token_record),
        throttled=sum(arrival.status == 429 for arrival in record),
        refreshed=observer.total("account.refreshed", "refreshed"),
        parked=observer.count("account.parked"),
        settled_after_seconds=settled_after and round(settled_after, 1),
        violations=[f"invariant {number}: {what}" for number, what in world.violations],
    )


def _explain(report: Report, plan: Plan, folder: Path, world: World) -> None:
    for replica in world.replicas:
        for output in replica.outputs:
            say(f"--- the end of {output.name}")
            say("\n".join(output.read_text().splitlines()[-LOG_LINES:]))
    say("\n".join(f"VIOLATED: {what}" for what in report.violations))
    say(f"again with: make chaos SEED={plan.seed} CHAOS_SECONDS={plan.seconds:g}")
    say(f"logs: {folder}")


def _remove(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
