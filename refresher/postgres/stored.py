"""Reads what a forecast needs: a small fleet whole, of a large one a bounded sample."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import accumulate, groupby, pairwise
from typing import Final

from asyncpg import Record

from refresher.domain.cohorts import NO_COVER, Cohort, Fleet
from refresher.domain.model import OpenId
from refresher.domain.pacing import lost_seconds
from refresher.domain.stored import Consents, Life, Stored, Unasked
from refresher.postgres.database import REPORT_SECONDS, Pool, acquired
from refresher.postgres.statements import statement

CONSENTS_WITHIN: Final = timedelta(days=30)

KINDS: Final = statement("forecast_kinds")
APP: Final = statement("forecast_app")
FLEET: Final = statement("forecast_fleet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """How much is read of a fleet with more videos than `videos`; a smaller one is read whole."""

    videos: int
    #: So many of the largest accounts, and about so many of the others.
    largest: int
    others: int
    #: Videos of one account.
    of_one: int


#: For an operator who asks: seconds. Ten times as many hardly change the answer.
THOROUGH: Final = Depth(videos=200_000, largest=200, others=800, of_one=50)
#: For a daemon that looks every few minutes beside its work.
BRIEF: Final = Depth(videos=20_000, largest=50, others=200, of_one=50)

#: Reads all of a fleet.
ALL: Final = 2**31


async def read_stored(pool: Pool, depth: Depth = THOROUGH) -> Stored:
    """The accounts and covers as they stand now. Locks nothing. Raises `DatabaseUnavailable`."""
    async with acquired(pool) as connection:
        kinds = {
            row["kind"]: row
            for row in await connection.fetch(
                *KINDS(consents_within=CONSENTS_WITHIN), timeout=REPORT_SECONDS
            )
        }
        app = await connection.fetchrow(*APP(), timeout=REPORT_SECONDS)
        assert app is not None  # noqa: S101 - the table has its one row
        accounts = int(kinds["active"]["accounts"]) if "active" in kinds else 0
        videos = int(kinds["active"]["videos"]) if "active" in kinds else 0
        whole = videos <= depth.videos
        of_one = ALL if whole else depth.of_one
        rows = await connection.fetch(
            *FLEET(
                largest=ALL if whole else depth.largest,
                every=1 if whole else max(1, (accounts - depth.largest) // depth.others),
                of_one=of_one,
            ),
            timeout=REPORT_SECONDS,
        )
    read = sum(row["videos"] for row in rows)
    return Stored(
        fleet=_fleet(rows, app, of_one=of_one),
        accounts=accounts,
        videos=read if whole else videos,
        sampled=None if whole else read,
        lives=list(_lives(rows)),
        app_rate=app["rate"],
        paused_since=app["paused_since"],
        unasked=_unasked(kinds),
        consents=_consents(kinds),
    )


def _fleet(rows: Sequence[Record], app: Record, *, of_one: int) -> Fleet:
    accounts: dict[OpenId, list[Cohort]] = {}
    firsts: dict[OpenId, Record] = {}
    for open_id, group in groupby(rows, key=lambda row: OpenId(row["open_id"])):
        of_account = list(group)
        firsts[open_id] = of_account[0]
        cohorts = [_cohort(row) for row in of_account]
        accounts[open_id] = _scaled(cohorts, of_account[0]["size"], of_one)
    return Fleet(
        now=app["now"],
        accounts=accounts,
        free_at={open_id: _free_at(first, app) for open_id, first in firsts.items()},
        weights=_weights(firsts),
    )


def _cohort(row: Record) -> Cohort:
    return Cohort(
        due_at=row["due"],
        expires_at=NO_COVER if row["expires"] is None else row["expires"],
        count=row["videos"],
        misses=row["misses"],
        missing=row["missing"],
        alone=row["refused"],
    )


def _scaled(cohorts: list[Cohort], size: int, of_one: int) -> list[Cohort]:
    """The cohorts of an account of that size, if only a part of its videos was read."""
    read = sum(cohort.count for cohort in cohorts)
    if read < of_one or read >= size:
        return cohorts
    ends = [end * size // read for end in accumulate(cohort.count for cohort in cohorts)]
    counts = [end - begin for begin, end in pairwise([0, *ends])]
    return [
        replace(cohort, count=count) for cohort, count in zip(cohorts, counts, strict=True) if count
    ]


def _free_at(account: Record, app: Record) -> float:
    """When it may be asked again. A lowered rate counts as a pause that costs as many slots."""
    free_at: float = max(account["free_at"], app["free_at"])
    lost = lost_seconds(account["rate_share"])
    return max(free_at, app["now"]) + lost if lost else free_at


def _weights(firsts: Mapping[OpenId, Record]) -> Mapping[OpenId, float]:
    """For how many accounts each of a sample stands: together they have as many videos."""
    others = {open_id: row["size"] for open_id, row in firsts.items() if not row["alone"]}
    if not others:
        return {}
    rows = firsts.values()
    left = int(next(iter(rows))["all_videos"]) - sum(row["size"] for row in rows if row["alone"])
    return dict.fromkeys(others, left / sum(others.values()))


def _lives(rows: Sequence[Record]) -> Iterator[Life]:
    for row in rows:
        if row["lived"] is not None and row["lived"] > 0:
            yield Life(row["expires"], row["lived"], row["videos"])


def _unasked(kinds: Mapping[str, Record]) -> Mapping[str, Unasked]:
    return {
        kind: Unasked(row["accounts"], row["valid"], row["first_death_at"])
        for kind, row in kinds.items()
        if kind != "active"
    }


def _consents(kinds: Mapping[str, Record]) -> Consents:
    rows = kinds.values()
    ends = [row["first_consent_ends_at"] for row in rows if row["consents"]]
    return Consents(
        accounts=sum(row["consents"] for row in rows),
        first_ends_at=min(ends, default=None),
        covers=sum(row["covers_of_consents"] for row in rows),
    )
