"""What all replicas together know of the app's rate."""

from datetime import timedelta
from typing import Final

from asyncpg import Record

from refresher.domain.app_limit import Answers, AppLimit, Heard, app_limit
from refresher.postgres.database import Pool, acquired
from refresher.postgres.statements import statement

TELL_ANSWERS: Final = statement("tell_answers")
HEAR_ANSWERS: Final = statement("hear_answers")
LIMIT_APP: Final = statement("limit_app")


class AppRate:
    """The app's rate, in the app's row. Raises `DatabaseUnavailable`."""

    def __init__(self, pool: Pool, *, replica: str) -> None:
        self._pool = pool
        self._replica = replica

    async def tell_answers(self, answers: Answers) -> bool:
        """Add what this replica saw answered to what is known of all.

        Says whether the app is limited to a rate that was found. False if the app's row is gone.
        """
        told = " ".join(map(str, answers))
        async with acquired(self._pool) as connection:
            limited: bool | None = await connection.fetchval(
                *TELL_ANSWERS(replica=self._replica, answers=told)
            )
        return bool(limited)

    async def limit_app(self, wished_seconds: float, *, shown: bool = True) -> AppLimit | None:
        """Slow all tokens down to what all replicas together saw answered.

        Nobody sends until there is room again, and not for `wished_seconds`. `shown`: 429s of this
        replica showed the limit. If not, a rate that others found is only raised. None where
        nothing was changed: so, too, where another replica was faster or the app's row is gone.
        """
        async with acquired(self._pool) as connection:
            row = await connection.fetchrow(*HEAR_ANSWERS())
            if row is None:
                return None
            limit = app_limit(_heard(row), row["unheard"])
            if not shown and limit.rate_per_minute <= (row["rate"] or 0.0):
                return None
            pause = timedelta(seconds=max(limit.pause_seconds, wished_seconds))
            done = await connection.fetchval(
                *LIMIT_APP(rate=limit.rate_per_minute, pause=pause, as_of=row["as_of"])
            )
        return limit if done else None


def _heard(row: Record) -> list[Heard]:
    return [
        Heard(age, [int(number) for number in answers.split()])
        for age, answers in zip(row["ages"], row["answers"], strict=True)
    ]
