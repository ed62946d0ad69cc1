"""Reads the stored fleet for the simulation: videos counted by when they are due and expire."""

from typing import Final

from asyncpg import Record

from refresher.domain.cohorts import NO_COVER, Cohort, Fleet
from refresher.domain.model import OpenId
from refresher.postgres.database import REPORT_SECONDS, Pool, acquired
from refresher.postgres.statements import statement
from refresher.postgres.status import read_now

#: How many accounts one statement reads.
PAGE: Final = 1000

FLEET: Final = statement("fleet")


async def read_fleet(pool: Pool) -> Fleet:
    """The active accounts as they stand now. Raises `DatabaseUnavailable`."""
    accounts: dict[OpenId, list[Cohort]] = {}
    now = (await read_now(pool)).timestamp()
    page, last = PAGE, ""
    while page == PAGE:
        async with acquired(pool) as connection:
            rows = await connection.fetch(*FLEET(after=last, page=PAGE), timeout=REPORT_SECONDS)
        known = len(accounts)
        for row in rows:
            cohorts = accounts.setdefault(OpenId(row["open_id"]), [])
            if row["videos"] is not None:
                cohorts.append(_cohort(row))
            last = row["open_id"]
        page = len(accounts) - known
    return Fleet(now, accounts)


def _cohort(row: Record) -> Cohort:
    return Cohort(
        due_at=row["due"],
        expires_at=NO_COVER if row["expires"] is None else row["expires"],
        count=row["videos"],
        misses=row["misses"],
        missing=row["missing"],
        alone=row["alone"],
    )
