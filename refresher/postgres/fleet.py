"""The fleet as it is stored, for the simulation: videos counted by when they are due and expire."""

from typing import Final

from asyncpg import Record

from refresher.domain.fleet import NO_COVER, Cohort, Fleet
from refresher.domain.model import OpenId
from refresher.postgres.database import REPORT_SECONDS, Pool, connection
from refresher.postgres.status import read_now

#: Accounts read by one statement.
PAGE: Final = 1000

# By the second, so that videos of one answer are one cohort. Accounts are read by their primary key
# and their videos by theirs, page after page: no snapshot stays open over all rows.
SQL_FLEET: Final = """
SELECT a.open_id, v.*
FROM (
    SELECT open_id
    FROM refresher.accounts
    WHERE state = 'active' AND open_id > $1
    ORDER BY open_id
    LIMIT $2
) AS a
LEFT JOIN LATERAL (
    SELECT floor(extract(epoch FROM due_at))::float8 AS due,
           floor(extract(epoch FROM CASE WHEN cover_image_url IS NOT NULL
                                         THEN cover_expires_at END))::float8 AS expires,
           misses,
           missing_since IS NOT NULL AS missing,
           refusal IS NOT NULL AS alone,
           count(*) AS videos
    FROM refresher.videos
    WHERE open_id = a.open_id
    GROUP BY 1, 2, 3, 4, 5
) AS v ON true
ORDER BY a.open_id, v.due
"""


async def read_fleet(pool: Pool) -> Fleet:
    """The active accounts as they stand now. Raises `DatabaseUnavailable`."""
    accounts: dict[OpenId, list[Cohort]] = {}
    now = (await read_now(pool)).timestamp()
    page, last = PAGE, ""
    while page == PAGE:
        async with connection(pool) as taken:
            rows = await taken.fetch(SQL_FLEET, last, PAGE, timeout=REPORT_SECONDS)
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
