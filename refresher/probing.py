"""Fetches a cover now and then, to see whether it lives; where covers die early, the lead grows."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Protocol

from refresher import events
from refresher.domain.clocks import Chance, Clock
from refresher.domain.cover_hosts import CoverHosts
from refresher.domain.due import DuePolicy, seconds_ahead
from refresher.domain.meter import Meter
from refresher.domain.probing import (
    Cover,
    Outcome,
    Verdict,
    choose,
    judge,
    refuses_all,
    to_confirm,
)
from refresher.fetching import Unreached
from refresher.logs import emit
from refresher.postgres.database import Pool
from refresher.postgres.parts import Refused
from refresher.postgres.probes import (
    Probed,
    Told,
    bring_forward,
    grow_lead,
    name_hosts,
    next_forwarding,
    note_probes,
    probe_candidates,
    probes_of_host,
    read_hosts,
    shrink_leads,
    take_probe,
    tell_probes,
)

#: How often a replica looks whether it is its turn, at most.
LOOK_SECONDS: Final = 60.0
#: Probes are told of so often, and at once where one was refused.
TOLD_EVERY: Final = timedelta(hours=1)
#: After so many probes in a row that reached no host, it is said that none is reached.
UNREACHED_PROBES: Final = 3
#: For so long covers are brought forward at a time, so that the database has time for others.
FORWARD_SECONDS: Final = 2.0
#: What was left of the life of a cover, as it is told: the upper bounds, in seconds.
LIFE_LEFT: Final = {"under 1 h": 3600.0, "under 3 h": 10_800.0, "under 12 h": 43_200.0}
MORE_LEFT: Final = "12 h or more"


class Fetch(Protocol):
    """Fetches covers. Raises `Unreached`."""

    async def fetch(self, url: str, *, is_local: bool) -> Outcome: ...


@dataclass(slots=True)
class Probing:
    """The probes of one replica. Each method raises `DatabaseUnavailable`."""

    pool: Pool
    hosts: CoverHosts
    policy: DuePolicy
    fetcher: Fetch
    #: For the whole fleet; 0: none.
    per_hour: int
    meter: Meter
    chance: Chance
    clock: Clock
    #: Hosts that are known to refuse covers of any age.
    refusing: set[str] = field(default_factory=set)
    #: Probes in a row that reached no host.
    unreached: int = 0

    @property
    def look_seconds(self) -> float:
        """How often to call `probe`."""
        return min(LOOK_SECONDS, 3600 / self.per_hour)

    async def share_hosts(self) -> None:
        """Tell other replicas of hosts that answers have named, and hear of theirs."""
        if news := self.hosts.news():
            await name_hosts(self.pool, news)
        self.hosts.hear(await read_hosts(self.pool))

    async def bring_forward(self, refused: Refused) -> None:
        """Make covers due earlier that were stored before their host's lead had grown."""
        ends_at = self.clock() + FORWARD_SECONDS
        while self.clock() < ends_at and (work := await next_forwarding(self.pool)):
            prefix = self.hosts.prefix(work.host)
            await bring_forward(self.pool, work, prefix, self.policy, refused)

    async def probe(self) -> None:
        """Fetch a cover if it is this replica's turn, and a few more if it is refused."""
        every = timedelta(hours=1) / self.per_hour
        if not await take_probe(self.pool, every):
            return
        probes = await self._fetch_some(await probe_candidates(self.pool))
        await note_probes(self.pool, probes, every)
        refusing = {probe.host for probe in probes if probe.outcome is Outcome.REFUSED}
        await self._tell(at_once=bool(refusing))
        for host in refusing:
            await self._learn(host)
        for host, grown_seconds in (await shrink_leads(self.pool)).items():
            emit(events.LEAD_LOWERED, host=host, lead_seconds=self._lead_seconds(grown_seconds))

    async def _fetch_some(self, covers: Sequence[Cover]) -> Sequence[Probed]:
        """One of them, and if that is refused some more of its host.

        One that may not be asked for only counts, and another one is chosen.
        """
        chosen, probes = choose(covers, self.chance), []
        if chosen and not self.hosts.of(chosen.url):
            probes.append(self._counted(chosen, "", Outcome.SKIPPED))
            covers = [cover for cover in covers if self.hosts.of(cover.url)]
            chosen = choose(covers, self.chance)
        if chosen is None:
            return probes
        first = await self._fetch(chosen)
        probes.append(first)
        if first.outcome is Outcome.REFUSED and first.is_news(self.hosts.grown):
            alike = [cover for cover in covers if self.hosts.of(cover.url) == first.host]
            probes += [await self._fetch(cover) for cover in to_confirm(alike, chosen)]
        return probes

    async def _fetch(self, cover: Cover) -> Probed:
        host = self.hosts.of(cover.url) or ""
        outcome = await self._outcome(cover.url, host)
        if outcome is Outcome.SERVED:
            self.refusing.discard(host)
        return self._counted(cover, host, outcome)

    def _counted(self, cover: Cover, host: str, outcome: Outcome) -> Probed:
        self.meter.probes[outcome] += 1
        return Probed(cover, host, outcome)

    async def _outcome(self, url: str, host: str) -> Outcome:
        try:
            outcome = await self.fetcher.fetch(url, is_local=self.hosts.is_local(url))
        except Unreached as error:
            self.unreached += 1
            if self.unreached == UNREACHED_PROBES:
                emit(events.PROBES_FAILED, host=host, reason=str(error))
            return Outcome.UNKNOWN
        self.unreached = 0
        return outcome

    async def _learn(self, host: str) -> None:
        """What the probes of a host say, now that one was refused."""
        probes = await probes_of_host(self.pool, host)
        if refuses_all(probes):
            if host not in self.refusing:
                refused = sum(not probe.served for probe in probes)
                emit(events.HOST_REFUSED, host=host, refused=refused)
            self.refusing.add(host)
            return
        verdict = judge(probes, self.hosts.grown.get(host, 0.0))
        if verdict and await grow_lead(self.pool, host, verdict.grown_seconds):
            await self.share_hosts()
            self._say_grown(host, verdict)

    def _say_grown(self, host: str, verdict: Verdict) -> None:
        ahead = seconds_ahead(self.policy, 0.0, verdict.life_seconds, verdict.grown_seconds)
        emit(
            events.LEAD_GROWN,
            host=host,
            early_seconds=round(verdict.early_seconds, 1),
            lead_seconds=self._lead_seconds(verdict.grown_seconds),
            is_enough=ahead > verdict.early_seconds,
            refused=verdict.refused,
            served=verdict.served,
        )

    def _lead_seconds(self, grown_seconds: float) -> float:
        return round(self.policy.lead.total_seconds() + grown_seconds, 1)

    async def _tell(self, *, at_once: bool) -> None:
        if told := await tell_probes(self.pool, TOLD_EVERY, at_once=at_once):
            counts = Counter(one.outcome for one in told)
            served = [one for one in told if one.outcome is Outcome.SERVED]
            refused = [one for one in told if one.outcome is Outcome.REFUSED]
            emit(
                events.FRESHNESS_PROBED,
                served=counts[Outcome.SERVED],
                refused=counts[Outcome.REFUSED],
                unknown=counts[Outcome.UNKNOWN],
                skipped=counts[Outcome.SKIPPED],
                served_by_host=_counted(one.host for one in served),
                refused_by_host=_counted(one.host for one in refused),
                served_by_life_left=_counted(map(_life_left, served)),
                refused_by_life_left=_counted(map(_life_left, refused)),
            )


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _life_left(one: Told) -> str:
    return next((name for name, end in LIFE_LEFT.items() if one.left_seconds < end), MORE_LEFT)
