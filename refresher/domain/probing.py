"""Whether covers live as long as they say, judged by a few that were fetched."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from typing import Final, NamedTuple

from refresher.domain.clocks import Chance
from refresher.domain.due import longest_ahead
from refresher.domain.model import OpenId, VideoId

#: A cover that has less left may die while it is fetched.
LEAST_LEFT_SECONDS: Final = 15.0
#: After a refusal so many covers of about its age are fetched, and a young one.
CONFIRMED_BY: Final = 3
#: So many videos must be refused before the lead grows,
LEAST_REFUSED: Final = 3
#: and of the last probes with as little left so large a share.
REFUSED_SHARE: Final = 0.75
LAST_PROBES: Final = 8
#: The dead cover that had most left was hardly the youngest one: the lead grows by a quarter more.
BEYOND: Final = 1.25


#: Some videos are deleted while their covers count as valid: so many refusals within a day, and so
#: large a share, are more than that.
MANY_REFUSED: Final = 3
MANY_REFUSED_SHARE: Final = 0.1


class Outcome(StrEnum):
    """What a probe showed."""

    SERVED = "served"
    #: 403, 404, 410, or a page of HTML, as an expired cover gets.
    REFUSED = "refused"
    #: A time-out, a 429, a 5xx, a redirect: nothing is known of the cover.
    UNKNOWN = "unknown"
    #: Not asked for: the host is none of TikTok's, or its address is a local one.
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Cover:
    """A stored cover that counts as valid."""

    open_id: OpenId
    video_id: VideoId
    url: str = field(repr=False)  # a URL holds its signature
    #: Seconds until it expires, by what is stored.
    left_seconds: float
    #: Seconds from the answer that brought it to its expiry.
    life_seconds: float


class Probe(NamedTuple):
    """A cover that was served or refused."""

    open_id: str
    video_id: str
    left_seconds: float
    life_seconds: float
    served: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """That covers of a host die early, as its probes show."""

    #: So long before their expiry they were dead.
    early_seconds: float
    #: The probes with no more left than that.
    refused: int
    served: int
    #: By how much the lead is to have grown, at most by the last third of a life: no cover is asked
    #: for before that.
    grown_seconds: float
    #: The life of these covers.
    life_seconds: float


def are_many_refused(refused: int, served: int) -> bool:
    """Whether so many refusals within a day say more than that videos were deleted."""
    return refused >= MANY_REFUSED and refused > MANY_REFUSED_SHARE * (refused + served)


def choose(covers: Sequence[Cover], chance: Chance) -> Cover | None:
    """Which cover to fetch: each second time one of the tenth that has least left, else any."""
    ready = [cover for cover in covers if cover.left_seconds >= LEAST_LEFT_SECONDS]
    if not ready:
        return None
    if chance() < 1 / 2:
        ready.sort(key=lambda cover: cover.left_seconds)
        ready = ready[: -(-len(ready) // 10)]
    return ready[int(chance() * len(ready))]


def to_confirm(covers: Sequence[Cover], refused: Cover) -> Sequence[Cover]:
    """What else to fetch of a host after a refusal; `covers` are the host's.

    Some of about the same age, of other accounts first, and the youngest: where that is refused,
    too, age is not the reason.
    """
    others = [
        cover
        for cover in covers
        if cover.video_id != refused.video_id and cover.left_seconds >= LEAST_LEFT_SECONDS
    ]
    others.sort(
        key=lambda cover: (
            cover.open_id == refused.open_id,
            abs(cover.left_seconds - refused.left_seconds),
        )
    )
    alike, rest = others[:CONFIRMED_BY], others[CONFIRMED_BY:]
    return [*alike, *sorted(rest, key=lambda cover: -cover.left_seconds)[:1]]


def judge(probes: Sequence[Probe], grown_seconds: float) -> Verdict | None:
    """Whether covers of a host die earlier than its lead allows for; `probes`: the latest first.

    The lead has grown by `grown_seconds` so far: covers with less left are known to be dead. None:
    they do not, or nobody can say. Covers are taken to die early where nearly all with little left
    are refused, and the last ones with more left are served.
    """
    news = [probe for probe in probes if probe.left_seconds > grown_seconds]
    refused = sorted((probe for probe in news if not probe.served), key=_left, reverse=True)
    verdicts = (_verdict(news, probe.left_seconds) for probe in refused)
    return next((verdict for verdict in verdicts if verdict), None)


def refuses_all(probes: Sequence[Probe]) -> bool:
    """Whether a host refuses covers of any age: the last few, one of them too young for a lead."""
    last = probes[: LEAST_REFUSED + 1]
    if len(_videos(last)) <= LEAST_REFUSED or any(probe.served for probe in last):
        return False
    return any(probe.left_seconds > longest_ahead(probe.life_seconds) for probe in last)


def _verdict(news: Sequence[Probe], early_seconds: float) -> Verdict | None:
    """Whether covers with so much left, or less, are dead."""
    old = list(islice((p for p in news if p.left_seconds <= early_seconds), LAST_PROBES))
    young = [probe for probe in news if probe.left_seconds > early_seconds]
    refused = [probe for probe in old if not probe.served]
    if not (_is_clear(old, refused) and _is_of_several(news, refused) and _are_served(young)):
        return None
    life_seconds = max(probe.life_seconds for probe in refused)
    return Verdict(
        early_seconds=early_seconds,
        refused=len(refused),
        served=len(old) - len(refused),
        grown_seconds=min(
            BEYOND * early_seconds,
            longest_ahead(life_seconds),
            *(probe.left_seconds for probe in young if probe.served),
        ),
        life_seconds=life_seconds,
    )


def _is_clear(old: Sequence[Probe], refused: Sequence[Probe]) -> bool:
    return len(_videos(refused)) >= LEAST_REFUSED and len(refused) >= REFUSED_SHARE * len(old)


def _is_of_several(news: Sequence[Probe], refused: Sequence[Probe]) -> bool:
    """What is refused of one account among several may be that account's trouble."""
    accounts = {probe.open_id for probe in refused}
    return len(accounts) > 1 or accounts == {probe.open_id for probe in news}


def _are_served(young: Sequence[Probe]) -> bool:
    """The last two, if there are so many."""
    return bool(young) and all(probe.served for probe in young[:2])


def _videos(probes: Sequence[Probe]) -> set[tuple[str, str]]:
    return {(probe.open_id, probe.video_id) for probe in probes}


def _left(probe: Probe) -> float:
    return probe.left_seconds
