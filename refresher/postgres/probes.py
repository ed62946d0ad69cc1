"""Probes of covers as the replicas share them: turns, what they showed, and the leads that grew.

Every function raises `DatabaseUnavailable`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, NamedTuple

from refresher.domain.due import DuePolicy
from refresher.domain.model import OpenId, VideoId
from refresher.domain.probing import Cover, Outcome, Probe
from refresher.postgres.database import REPORT_SECONDS, Pool, acquired
from refresher.postgres.parts import Refused, in_parts
from refresher.postgres.sampling import sample_percent
from refresher.postgres.statements import statement

#: Covers to choose from: about so many from anywhere, but no more than twice as many,
COVERS_SAMPLED: Final = 200
#: and so many of each of some accounts.
ACCOUNTS_SAMPLED: Final = 20
COVERS_OF_ACCOUNT: Final = 25
#: What is known of a host: its last probes of a day.
PROBES_READ: Final = 100
#: A lead that has not changed for a week shrinks, and what is less than this is nothing.
LEAST_GROWTH_SECONDS: Final = 60.0
#: How long answers that were reconciled by the old lead may take to be stored.
SETTLING: Final = timedelta(seconds=30)
#: Covers are brought forward in steps of so many: a trigger looks at each, and until all are done
#: their rows are locked.
FORWARD_VIDEOS: Final = 500
FORWARD_ACCOUNTS: Final = 100

ROOM_FOR_HOSTS: Final = statement("room_for_hosts")
NAME_HOSTS: Final = statement("name_hosts")
COVER_HOSTS: Final = statement("cover_hosts")
TAKE_PROBE: Final = statement("take_probe")
BEGIN_PROBING: Final = statement("begin_probing")
PROBE_CANDIDATES: Final = statement("probe_candidates")
NOTE_PROBES: Final = statement("note_probes")
PUT_OFF_PROBE: Final = statement("put_off_probe")
FORGET_PROBES: Final = statement("forget_probes")
PROBES_OF_HOST: Final = statement("probes_of_host")
GROW_LEAD: Final = statement("grow_lead")
SHRINK_LEADS: Final = statement("shrink_leads")
TELL_PROBES: Final = statement("tell_probes")
FORWARD_BATCH: Final = statement("forward_batch")
FORWARD: Final = statement("forward")
FORWARD_WALKED: Final = statement("forward_walked")
COUNT_PROBES: Final = statement("count_probes")


class Probed(NamedTuple):
    """A cover that was chosen, and what came of it."""

    cover: Cover
    #: Empty where it is no host that a cover may have.
    host: str
    outcome: Outcome

    def is_news(self, grown: Mapping[str, float]) -> bool:
        """Whether it has more left than its host is known to leave to covers."""
        return self.cover.left_seconds > grown.get(self.host, 0.0)


class Told(NamedTuple):
    """What an event is made of."""

    host: str
    left_seconds: float
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Forwarding:
    """A host some of whose stored covers are still to be brought forward."""

    host: str
    grown_seconds: float
    forward_to: str
    #: The accounts that come next; empty: none are left.
    open_ids: Sequence[OpenId]


@dataclass(frozen=True, slots=True)
class DayOfProbes:
    """What became of the covers that were fetched within a day."""

    served: int
    refused: int
    unknown: int


async def count_probes(pool: Pool) -> DayOfProbes:
    """Those of the whole fleet."""
    async with acquired(pool) as connection:
        (row,) = await connection.fetch(*COUNT_PROBES(), timeout=REPORT_SECONDS)
    return DayOfProbes(**dict(row))


async def name_hosts(pool: Pool, hosts: Sequence[str]) -> None:
    """Store hosts that TikTok's answers have named. Idempotent."""
    async with acquired(pool) as connection:
        if await connection.fetchval(*ROOM_FOR_HOSTS()):
            await connection.execute(*NAME_HOSTS(hosts=hosts))


async def read_hosts(pool: Pool) -> Mapping[str, float]:
    """The hosts that covers come from, and by how many seconds the lead of each has grown."""
    async with acquired(pool) as connection:
        rows = await connection.fetch(*COVER_HOSTS())
    return {row["host"]: row["grown_seconds"] for row in rows}


async def take_probe(pool: Pool, every: timedelta) -> bool:
    """Whether it is our turn to fetch a cover. The next turn comes `every` so often."""
    async with acquired(pool) as connection:
        for turn in (TAKE_PROBE, BEGIN_PROBING):
            if await connection.fetchval(*turn(every=every)):
                return True
    return False


async def probe_candidates(pool: Pool) -> Sequence[Cover]:
    """Some covers that count as valid, a bounded number. Locks nothing."""
    async with acquired(pool) as connection:
        percent = await sample_percent(connection, "refresher.videos", COVERS_SAMPLED)
        asked = PROBE_CANDIDATES(
            percent=percent,
            rows=2 * COVERS_SAMPLED,
            accounts=ACCOUNTS_SAMPLED,
            of_one=COVERS_OF_ACCOUNT,
        )
        rows = await connection.fetch(*asked, timeout=REPORT_SECONDS)
    return [
        Cover(
            OpenId(row["open_id"]),
            VideoId(row["video_id"]),
            row["url"],
            row["left_seconds"],
            row["life_seconds"],
        )
        for row in rows
    ]


async def note_probes(pool: Pool, probes: Sequence[Probed], every: timedelta) -> None:
    """Store what became of the covers of one turn. All fetches but one put the next turn off."""
    if not probes:
        return
    fetched = sum(probe.outcome is not Outcome.SKIPPED for probe in probes)
    early = every * max(0, fetched - 1)
    columns = {
        "hosts": [probe.host for probe in probes],
        "open_ids": [probe.cover.open_id for probe in probes],
        "video_ids": [probe.cover.video_id for probe in probes],
        "left_seconds": [probe.cover.left_seconds for probe in probes],
        "life_seconds": [probe.cover.life_seconds for probe in probes],
        "outcomes": [probe.outcome.value for probe in probes],
    }
    async with acquired(pool) as connection, connection.transaction():
        await connection.execute(*FORGET_PROBES())
        await connection.execute(*PUT_OFF_PROBE(early=early))
        await connection.execute(*NOTE_PROBES(**columns))


async def probes_of_host(pool: Pool, host: str) -> Sequence[Probe]:
    """What a day's probes of a host showed, the latest first."""
    async with acquired(pool) as connection:
        rows = await connection.fetch(*PROBES_OF_HOST(host=host, rows=PROBES_READ))
    return [Probe(**dict(row)) for row in rows]


async def grow_lead(pool: Pool, host: str, grown_seconds: float) -> bool:
    """Let the lead of a host grow to this. False if it had grown as far."""
    async with acquired(pool) as connection:
        return bool(await connection.fetchval(*GROW_LEAD(host=host, grown_seconds=grown_seconds)))


async def shrink_leads(pool: Pool) -> Mapping[str, float]:
    """The hosts whose lead has shrunk after a quiet week, and by how much it is still grown."""
    async with acquired(pool) as connection:
        rows = await connection.fetch(*SHRINK_LEADS(least_seconds=LEAST_GROWTH_SECONDS))
    return {row["host"]: row["grown_seconds"] for row in rows}


async def tell_probes(pool: Pool, every: timedelta, *, at_once: bool) -> Sequence[Told]:
    """The probes that no replica has told of, if it is time to; each is returned once."""
    async with acquired(pool) as connection:
        rows = await connection.fetch(*TELL_PROBES(every=every, at_once=at_once))
    return [Told(row["host"], row["left_seconds"], Outcome(row["outcome"])) for row in rows]


async def next_forwarding(pool: Pool) -> Forwarding | None:
    """Whose covers are to be brought forward; None: everything is where it belongs."""
    asked = FORWARD_BATCH(settling=SETTLING, accounts=FORWARD_ACCOUNTS, videos_read=FORWARD_VIDEOS)
    async with acquired(pool) as connection:
        row = await connection.fetchrow(*asked)
    return Forwarding(**dict(row)) if row else None


async def bring_forward(
    pool: Pool, work: Forwarding, prefix: str, policy: DuePolicy, refused: Refused
) -> None:
    """Make covers of these accounts due as their host's lead says now, and note how far that is.

    `prefix`: how the URLs of the host begin. `refused` hears of accounts that a trigger, a
    constraint or a lock kept from it.
    """

    async def forward(open_ids: Sequence[OpenId]) -> Sequence[object]:
        asked = FORWARD(
            open_ids=open_ids,
            prefix=prefix,
            lead_seconds=policy.lead.total_seconds() + work.grown_seconds,
            spread_seconds=policy.spread.total_seconds(),
            rows=FORWARD_VIDEOS,
        )
        async with acquired(pool) as connection:
            return await connection.fetch(*asked, timeout=REPORT_SECONDS)

    brought = await in_parts(work.open_ids, forward, refused) if work.open_ids else []
    if len(brought) >= FORWARD_VIDEOS:
        return  # there may be more of these accounts
    done_to = work.open_ids[-1] if work.open_ids else None
    async with acquired(pool) as connection:
        await connection.execute(
            *FORWARD_WALKED(
                host=work.host,
                forward_to=work.forward_to,
                grown_seconds=work.grown_seconds,
                done_to=done_to,
            )
        )
