"""Reads what a forecast needs: a small fleet whole, of a large one a bounded sample."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import accumulate, groupby, pairwise
from typing import Final

from asyncpg import Record

from refresher.domain.cohorts import NO_COVER, Cohort, Fleet
from refresher.domain.model import OpenId
from refresher.domain.pacing import lost_seconds
from refresher.domain.stored import Consents, Life, Stored, Tokens, Unasked
from refresher.postgres.database import REPORT_SECONDS, Pool, acquired
from refresher.postgres.statements import statement

CONSENTS_WITHIN: Final = timedelta(days=30)

KINDS: Final = statement("forecast_kinds")
APP: Final = statement("forecast_app")
FLEET: Final = statement("forecast_fleet")
TAKE: Final = statement("take_forecast")
SAY_RISK: Final = statement("say_risk")


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """How much is read of a fleet with more videos than `videos`; a smaller one is read whole."""

    videos: int
    #: About so many accounts, the more likely the more videos they have.
    accounts: int
    #: Videos of one account.
    of_one: int


#: For an operator who asks: seconds. Twice as many accounts hardly change the answer.
THOROUGH: Final = Depth(videos=200_000, accounts=500, of_one=100)
#: For a daemon that looks now and then beside its work.
BRIEF: Final = Depth(videos=20_000, accounts=250, of_one=40)

#: Reads all videos of an account.
ALL: Final = 2**31


async def read_stored(
    pool: Pool, depth: Depth = THOROUGH, *, managed: bool, fingerprint: str | None
) -> Stored:
    """The accounts and covers as they stand now. Locks nothing. Raises `DatabaseUnavailable`.

    `managed`: we renew access tokens, with the app credentials that have this fingerprint.
    """
    credentials = fingerprint if managed else None
    async with acquired(pool) as connection:
        app = await connection.fetchrow(*APP(credentials=credentials), timeout=REPORT_SECONDS)
        assert app is not None  # noqa: S101 - the table has its one row
        found = await connection.fetch(
            *KINDS(managed=managed, consents_within=CONSENTS_WITHIN), timeout=REPORT_SECONDS
        )
        kinds = {row["kind"]: row for row in found}
        accounts, videos = _size(kinds.get("active"))
        whole = videos <= depth.videos
        of_one = ALL if whole else depth.of_one
        rows = await connection.fetch(
            *FLEET(
                managed=managed,
                videos_each=1.0 if whole else videos / depth.accounts,
                of_one=of_one,
            ),
            timeout=REPORT_SECONDS,
        )
    read = sum(row["videos"] for row in rows)
    return Stored(
        fleet=_fleet(rows, app, of_one),
        accounts=accounts,
        videos=read if whole else videos,
        sampled=None if whole else read,
        lives=list(_lives(rows)),
        app_rate=app["rate"],
        paused_since=app["paused_since"],
        unasked=_unasked(kinds),
        consents=_consents(kinds),
        tokens=_tokens(kinds.get("active"), app),
    )


def _size(active: Record | None) -> tuple[int, int]:
    """Accounts that are worked, and their videos."""
    return (int(active["accounts"]), int(active["videos"])) if active else (0, 0)


def _fleet(rows: Sequence[Record], app: Record, of_one: int) -> Fleet:
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
        weights={open_id: first["weight"] for open_id, first in firsts.items()},
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
    return [cohort.of(count) for cohort, count in zip(cohorts, counts, strict=True) if count]


def _free_at(account: Record, app: Record) -> float:
    """When it may be asked again. A lowered rate counts as a pause that costs as many slots."""
    free_at: float = max(account["free_at"], app["free_at"])
    lost = lost_seconds(account["rate_share"])
    return max(free_at, app["now"]) + lost if lost else free_at


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


def _tokens(active: Record | None, app: Record) -> Tokens:
    accounts, covers = (
        (active["without_token"], active["covers_without_token"]) if active else (0, 0)
    )
    return Tokens(app["client_refused_at"], int(accounts), int(covers))


async def take_forecast(pool: Pool, every: timedelta) -> bool:
    """Whether it is this replica's turn to make a forecast; then it is nobody else's for so long.

    Raises `DatabaseUnavailable`, as the next one.
    """
    async with acquired(pool) as connection:
        return await connection.fetchval(*TAKE(every=every)) is not None


async def must_say(
    pool: Pool, risk: Mapping[str, object] | None, *, again_after: timedelta
) -> bool:
    """Note which covers will die; None: none will.

    Whether that is to be said: it is new, or was said long ago.
    """
    noted = None if risk is None else json.dumps(risk)
    async with acquired(pool) as connection:
        return bool(await connection.fetchval(*SAY_RISK(risk=noted, again_after=again_after)))
