"""Expand and contract: the statements of earlier versions work on beside the new ones.

Their SQL lies in tests/previous, as the last code for each revision had it, parameters by name (see
`refresher.postgres.statements.source`); here it meets the schema of today.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import pytest
from alembic import command

from refresher.domain.errors import AccessTokenRefused
from refresher.domain.model import ChunkWrite, Park, Release, Write
from refresher.domain.pacing import APP_HORIZON_SECONDS, HORIZON_SECONDS, Pace, step_seconds
from refresher.postgres.accounts import Accounts
from refresher.postgres.audit import audit_step
from refresher.postgres.database import Pool, check_migrated, connected
from refresher.postgres.migrate import migrate
from refresher.postgres.partitioning import partition_videos
from refresher.postgres.sealing import Sealer
from refresher.postgres.statements import Statement
from refresher.postgres.status import read_summary
from refresher.postgres.tokens import TokenStore
from refresher.postgres.write_back import write_back
from tests.conftest import eventually, waits_for_a_lock

FOLDER = Path(__file__).parent / "previous"
LEASE = timedelta(seconds=60)
HOUR = timedelta(hours=1)
NOW = datetime.now(UTC).replace(microsecond=0)


class Previous:
    """A replica of an earlier version: its statements, called as it called them."""

    revision: ClassVar[str]

    def __init__(self, pool: Pool, *, per_token=600, per_app=0):
        self._pool = pool
        self._token_step = step_seconds(per_token)
        self._app_step = step_seconds(per_app, reach_seconds=2 * APP_HORIZON_SECONDS)
        self._step = max(self._token_step, self._app_step)

    async def ask(self, name, **values):
        statement = Statement((FOLDER / self.revision / f"{name}.sql").read_text())
        return await self._pool.fetch(*statement(**values))

    async def summary(self):
        return await self.ask("summary")

    async def write_back(self, claim, hours):
        """A cover for each video of the claim; how many were written."""
        ids = claim["video_ids"] or []
        chunks = await self.ask(
            "write_back",
            open_ids=[claim["open_id"]],
            lease_epochs=[claim["lease_epoch"]],
            **self._written(ids, hours),
        )
        return sum(chunk["videos"] for chunk in chunks)

    def _written(self, ids, hours):
        url, expires_at = cover(hours)
        same = {
            "chunks": 1,
            "urls": url,
            "cover_expires_at": expires_at,
            "due_at": expires_at - HOUR,
            "misses": 0,
            "missing": False,
            "gone": False,
        }
        return {"video_ids": ids} | {name: [value] * len(ids) for name, value in same.items()}

    def slots(self, claim):
        step = timedelta(seconds=self._step)
        return [claim["first_slot"] + n * step for n in range(-(-len(claim["video_ids"]) // 20))]


class Of0001(Previous):
    revision = "0001"

    async def claim(self, budget=10):
        horizon = APP_HORIZON_SECONDS if self._app_step else HORIZON_SECONDS
        return await self.ask(
            "claim",
            chunk_budget=budget,
            replica="previous",
            horizon=timedelta(seconds=horizon),
            most_chunks=max(1, int(horizon / self._step)) if self._step else budget,
            step=timedelta(seconds=self._step),
            app_step=timedelta(seconds=self._app_step),
            lease=LEASE,
            rows_read=20_000,
        )

    async def release(self, claim, *, failures=0, pause=0.0, park=None, retry=0.0):
        """What it learned, or None where nothing was released."""
        state, reason = park or (None, None)
        released = await self.ask(
            "release",
            open_ids=[claim["open_id"]],
            lease_epochs=[claim["lease_epoch"]],
            failures=[failures],
            retry_seconds=[retry],
            pause_seconds=[pause],
            park_states=[state],
            park_reasons=[reason],
            park_tokens=[park and claim["access_token"]],
            requests=[1],
        )
        return released[0] if released else None

    async def audit(self):
        return await self.ask("audit", longest_retry_seconds=300.0, walk_steps=360)


class Of0002(Previous):
    revision = "0002"

    async def claim(self, budget=10):
        return await self.ask(
            "claim",
            chunk_budget=budget,
            replica="previous",
            horizon=timedelta(seconds=HORIZON_SECONDS),
            app_horizon=timedelta(seconds=APP_HORIZON_SECONDS),
            step=timedelta(seconds=self._token_step),
            app_step=timedelta(seconds=self._app_step),
            lease=LEASE,
            rows_read=20_000,
            managed=True,
        )

    async def release(self, claim, *, failures=0, pause=0.0, park=None, retry=0.0, **more):
        """What it learned, or None where nothing was released."""
        state, reason = park or (None, None)
        released = await self.ask(
            "release",
            open_ids=[claim["open_id"]],
            lease_epochs=[claim["lease_epoch"]],
            generations=[claim["tokens_generation"]],
            failures=[failures],
            retry_seconds=[retry],
            pause_seconds=[pause],
            park_states=[state],
            park_reasons=[reason],
            answered=[not failures],
            refused=[False],
            token_retry_seconds=[0.0],
            requests=[1],
            managed=True,
            **more,
        )
        return released[0] if released else None

    def _written(self, ids, hours):
        return super()._written(ids, hours) | {"refusals": [None] * len(ids)}

    async def audit(self):
        return await self.ask("audit", longest_retry_seconds=300.0, walk_steps=360, managed=True)

    async def renew(self, claim):
        return await self.ask(
            "renew", open_ids=[claim["open_id"]], lease_epochs=[claim["lease_epoch"]], lease=LEASE
        )

    async def reserve(self, claim):
        ((slot,),) = await self.ask(
            "reserve",
            open_id=claim["open_id"],
            lease_epoch=claim["lease_epoch"],
            step=timedelta(seconds=self._token_step),
            app_step=timedelta(seconds=self._app_step),
        )
        return slot

    async def renew_token(self, claim, access_token, refresh_token):
        """As after an answer of TikTok: noted as begun, and the new pair stored."""
        begun = await self.ask("begin", **key_of(claim), unknown=timedelta(seconds=72))
        stored = await self.ask(
            "replace",
            open_id=claim["open_id"],
            access_token=access_token,
            access_token_lives_seconds=86_400.0,
            refresh_token=refresh_token,
            refresh_token_lives_seconds=None,
            scope=None,
            due_in_seconds=85_200.0,
            stored_access_token=claim["access_token"],
            stored_refresh_token=claim["refresh_token"],
        )
        return len(begun), len(stored)


class Of0004(Of0002):
    revision = "0004"

    async def claim(self, budget=10):
        return await self.ask(
            "claim",
            chunk_budget=budget,
            replica="previous",
            horizon=timedelta(seconds=HORIZON_SECONDS),
            app_horizon=timedelta(seconds=APP_HORIZON_SECONDS),
            step=timedelta(seconds=self._token_step),
            app_step=timedelta(seconds=self._app_step),
            lease=LEASE,
            rows_read=1_000,
            managed=True,
            accounts=budget,
        )

    async def write_back(self, claim, hours, statement="write_back"):
        url, expires_at = cover(hours)
        ids = claim["video_ids"] or []
        chunks = await self.ask(
            statement,
            open_ids=[claim["open_id"]],
            lease_epochs=[claim["lease_epoch"]],
            numbers=[1],
            video_ids=[" ".join(ids)],
            urls=[" ".join([url] * len(ids))],
            ctids=[claim["ctids"]],
            due_at=[expires_at - HOUR],
            cover_expires_at=[expires_at],
            misses=[0],
            missing=[False],
            gone=[False],
            refusals=[None],
            separator=" ",
        )
        return sum(chunk["videos"] for chunk in chunks)

    async def release(self, claim, **learned):
        return await super().release(
            claim,
            unfinished=[claim["unfinished"]],
            passed_over=[False],
            rows_read=1_000,
            sample_open_ids=[],
            sample_video_ids=[],
            sample_videos=[],
            **learned,
        )

    async def audit(self):
        return await self.ask(
            "audit", longest_retry_seconds=300.0, walk_steps=360, managed=True, videos_read=5_000
        )

    async def summary(self):
        return await self.ask("summary", videos_read=10_000, videos_sampled=1_000)


@pytest.fixture(params=[Of0001, Of0002, Of0004], ids=["0001", "0002", "0004"])
def previous(request):
    """Every earlier version in turn: replicas are made of it."""
    return request.param


def current(pool, *, per_token=600, per_app=0, managed=True):
    return Accounts(
        pool,
        replica="current",
        pace=Pace(per_token, per_app, lease_seconds=LEASE.total_seconds()),
        managed=managed,
    )


def key_of(claim):
    return {
        "open_id": claim["open_id"],
        "lease_epoch": claim["lease_epoch"],
        "generation": claim["tokens_generation"],
    }


def cover(hours):
    expires_at = NOW + hours * HOUR
    return f"https://example.com/c?x-expires={int(expires_at.timestamp())}", expires_at


async def write(pool, claim, hours):
    url, expires_at = cover(hours)
    ids = [video.video_id for video in claim.videos]
    write = Write(ids, expires_at - HOUR, expires_at, [url] * len(ids))
    (written,) = await write_back(
        pool, [ChunkWrite(claim.open_id, claim.lease_epoch, [write], claim.ctids)]
    )
    return written


def slots_of(claim):
    step = timedelta(seconds=claim.step_seconds)
    return [claim.first_slot + n * step for n in range(-(-len(claim.videos) // 20))]


async def store(pool, open_id, videos, token="act.x"):
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, access_token) VALUES ($1, $2)", open_id, token
    )
    await pool.execute(
        "INSERT INTO refresher.videos (open_id, video_id)"
        " SELECT $1, $1 || n FROM generate_series(1, $2::integer) AS n",
        open_id,
        videos,
    )


async def row(pool, open_id):
    return await pool.fetchrow(
        "SELECT *, now() AS now FROM refresher.accounts WHERE open_id = $1", open_id
    )


async def lease_ends(pool):
    await pool.execute("UPDATE refresher.accounts SET lease_expires_at = now(), wake_at = now()")


async def migrate_to(database, revision, monkeypatch):
    upgrade = command.upgrade
    with monkeypatch.context() as patched:
        patched.setattr(command, "upgrade", lambda config, _head: upgrade(config, revision))
        await migrate(database)


@pytest.fixture
async def old_pool(empty_database, previous, monkeypatch) -> AsyncIterator[Pool]:
    """A database of the previous version's revision."""
    await migrate_to(empty_database, previous.revision, monkeypatch)
    async with connected(empty_database, application_name="tests") as pool:
        yield pool


# --- By itself, on the schema of today ---


async def test_the_previous_version_works_on(pool, previous):
    """It claims, writes back and gives back; the account wakes for its earliest due video."""
    await store(pool, "ana", 3)
    replica = previous(pool)
    (claim,) = await replica.claim()
    assert sorted(claim["video_ids"]) == ["ana1", "ana2", "ana3"]
    assert await replica.write_back(claim, 5) == 3
    released = await replica.release(claim)
    account = await row(pool, "ana")
    assert not released["parked"]
    assert (account["videos"], account["valid"], account["lease_expires_at"]) == (3, 3, None)
    assert account["wake_at"] == account["earliest_due_at"] == NOW + 4 * HOUR


async def test_it_parks_until_the_token_is_replaced(pool, previous):
    """Its park holds for both, and new tokens end it, with a trigger it does not know."""
    await store(pool, "ana", 1)
    replica = previous(pool)
    (claim,) = await replica.claim()
    park = ("needs_reauthorization", "access_token_invalid")
    released = await replica.release(claim, failures=1, park=park)
    assert released["parked"]
    assert await current(pool).claim(10) == await replica.claim() == []
    await pool.execute("UPDATE refresher.accounts SET access_token = 'act.y'")
    (claim,) = await replica.claim()
    assert claim["access_token"] == "act.y"


async def test_its_summary_and_audit_see_what_the_new_ones_see(pool, previous):
    """The same counts, and a mistake is found by either."""
    await store(pool, "ana", 3)
    await store(pool, "ben", 2)
    replica = previous(pool)
    for claim in await replica.claim():
        if claim["open_id"] == "ana":
            await replica.write_back(claim, 5)
        await replica.release(claim)
    (line,) = await replica.summary()
    summary = await read_summary(pool)
    assert (summary.videos, summary.valid, summary.due) == (5, 3, 2)
    assert (line["videos"], line["valid"], line["due"]) == (5, 3, 2)
    await pool.execute("UPDATE refresher.accounts SET wake_at = 'infinity' WHERE open_id = 'ben'")
    (mended,) = await replica.audit()
    assert mended["open_id"] == "ben"
    assert await audit_step(pool, managed=True) == []
    await pool.execute("UPDATE refresher.audit SET audited_to = ''")
    assert await audit_step(pool, managed=True) == []


# --- Side by side ---


async def test_a_lease_of_either_is_respected_by_the_other(pool, previous):
    """Each takes an account, and neither finds the other's."""
    await store(pool, "ana", 1)
    (old,) = await previous(pool).claim()
    await store(pool, "ben", 1)
    (new,) = await current(pool).claim(10)
    assert (old["open_id"], new.open_id) == ("ana", "ben")
    assert await previous(pool).claim() == await current(pool).claim(10) == []
    assert {line["replica"] for line in await previous(pool).ask("replicas")} == {
        "previous",
        "current",
    }
    assert await previous(pool).write_back(old, 5) == await write(pool, new, 5) == 1
    (released,) = await current(pool).release([Release(new.open_id, new.lease_epoch)])
    assert released
    assert await previous(pool).release(old)
    assert await pool.fetchval("SELECT count(lease_owner) FROM refresher.accounts") == 0


async def test_an_old_lease_that_was_taken_over_is_over(pool, previous):
    """What the previous version brings late changes nothing of the new one's."""
    await store(pool, "ana", 1)
    (old,) = await previous(pool).claim()
    await lease_ends(pool)
    (new,) = await current(pool).claim(10)
    assert new.lease_epoch == old["lease_epoch"] + 1
    assert await previous(pool).write_back(old, 5) == 0
    assert await previous(pool).release(old) is None
    assert (await row(pool, "ana"))["lease_owner"] == "current"


async def test_a_new_lease_that_was_taken_over_is_over(pool, previous):
    """And the other way round: no write, no slot, no token request, no renewal, no release."""
    await store(pool, "ana", 1)
    (new,) = await current(pool).claim(10)
    await lease_ends(pool)
    (old,) = await previous(pool).claim()
    before = await row(pool, "ana")
    assert await write(pool, new, 5) == 0
    assert await current(pool).reserve(new) is None
    assert await current(pool).extend([new]) == [None]
    assert await TokenStore(pool, Sealer(())).begin(new) is None
    assert await current(pool).release([Release("ana", new.lease_epoch)]) == [None]
    assert dict(await row(pool, "ana")) | {"now": 0} == dict(before) | {"now": 0}
    assert await previous(pool).write_back(old, 5) == 1


@pytest.mark.parametrize("per_app", [0, 60], ids=["token", "app"])
async def test_slots_of_both_together_keep_the_limit(pool, previous, per_app):
    """In turns on one account, with slots reserved in between: none too close to the last one."""
    await store(pool, "ana", 400)
    limits = {"per_token": 60, "per_app": per_app}
    replica, new = previous(pool, **limits), current(pool, **limits)
    taken = []
    for turn in range(6):
        if turn % 2:
            (claim,) = await new.claim(3)
            taken += [*slots_of(claim), await new.reserve(claim)]
            assert claim.step_seconds >= step_seconds(60)
        else:
            (claim,) = await replica.claim(3)
            taken += replica.slots(claim)
        # The time until the next slot passes, for the rows as for what we know of them.
        passes = taken[-1] - (await row(pool, "ana"))["now"] + timedelta(seconds=1)
        for table in ("accounts", "app"):
            await pool.execute(
                f"UPDATE refresher.{table} SET next_slot_at = next_slot_at - $1::interval", passes
            )
        await lease_ends(pool)
        taken = [slot - passes for slot in taken]
    step = timedelta(seconds=step_seconds(60), microseconds=-50)
    assert len(taken) >= 9
    assert all(later - earlier >= step for earlier, later in pairwise(taken))


async def test_a_pause_of_either_holds_for_the_other(pool, previous):
    """After a 429, whoever met it, neither sends before the pause is over."""
    for first, open_id in enumerate(("ana", "ben")):
        await store(pool, open_id, 1)
        if first == 0:
            (old,) = await previous(pool).claim()
            await previous(pool).release(old, failures=1, pause=30.0)
        else:
            (new,) = await current(pool).claim(10)
            await current(pool).release([Release("ben", new.lease_epoch, pause_seconds=30.0)])
    await pool.execute("INSERT INTO refresher.videos VALUES ('ana', 'new'), ('ben', 'new')")
    assert await previous(pool).claim() == await current(pool).claim(10) == []


async def test_neither_parks_for_a_token_that_the_other_has_replaced(pool, previous):
    """The new version refreshes a token while the previous one asks with the old one."""
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, access_token, access_token_expires_at,"
        " refresh_token) VALUES ('ana', 'act.x', now(), 'rft.x')"
    )
    await pool.execute("INSERT INTO refresher.videos VALUES ('ana', '1')")
    (old,) = await previous(pool).claim()
    await pool.execute(
        "UPDATE refresher.accounts SET access_token = 'act.y',"
        " access_token_expires_at = now() + interval '1 day'"
    )
    park = ("needs_reauthorization", "access_token_invalid")
    released = await previous(pool).release(old, failures=1, park=park)
    assert not released["parked"]
    (new,) = await current(pool).claim(10)
    assert new.access_token == "act.y"
    error = AccessTokenRefused("access_token_invalid", status=401)
    await pool.execute("UPDATE refresher.accounts SET access_token = 'act.z'")
    parks = [Release("ana", new.lease_epoch, new.token.generation, park=Park(park[0], error.code))]
    (kept,) = await current(pool).release(parks)
    assert kept
    assert not kept.parked


@pytest.mark.parametrize("previous", [Of0001])
async def test_a_token_that_is_due_is_not_forgotten(pool, previous):
    """Revision 0001's wakes an account for its videos only: the audit sets it right."""
    await store(pool, "ana", 1)
    await pool.execute(
        "UPDATE refresher.accounts SET refresh_token = 'rft.x',"
        " access_token_expires_at = now() + interval '1 minute'"
    )
    (old,) = await previous(pool).claim()
    await previous(pool).write_back(old, 48)
    await previous(pool).release(old)
    assert await current(pool).claim(10) == []
    ((open_id, overslept),) = await audit_step(pool, managed=True)
    assert (open_id, overslept and overslept > 300) == ("ana", True)
    (new,) = await current(pool).claim(10)
    assert new.token.due


@pytest.mark.parametrize("previous", [Of0001])
async def test_a_video_asked_for_alone_stays_so(pool, previous):
    """Revision 0001's asks for it among others; what the new one knows of it is kept."""
    await store(pool, "ana", 3)
    await pool.execute(
        "UPDATE refresher.videos SET refusal = 'invalid_params', misses = 1 WHERE video_id = 'ana1'"
    )
    (old,) = await previous(pool).claim()
    assert len(old["video_ids"]) == 3
    await previous(pool).release(old)
    (new,) = await current(pool).claim(10)
    assert sorted(video.video_id for video in new.videos) == ["ana2", "ana3"]
    await write(pool, new, 5)
    await current(pool).release([Release("ana", new.lease_epoch)])
    (new,) = await current(pool).claim(10)
    assert [video.video_id for video in new.videos] == ["ana1"]


async def test_an_account_too_large_for_one_claim_is_gone_through_by_both(pool, previous):
    """The new version reads it part by part, the previous one all of it: in turns they ask for all."""
    await store(pool, "ana", 3000)
    replica, new = previous(pool), current(pool)
    for turn in range(6):
        if turn % 2:
            (old,) = await replica.claim(100)
            await replica.write_back(old, 5)
            await replica.release(old)
        else:
            (claim,) = await new.claim(100)
            await write(pool, claim, 5)
            release = Release("ana", claim.lease_epoch, unfinished=claim.unfinished)
            assert await new.release([release]) != [None]
        await pool.execute("UPDATE refresher.accounts SET next_slot_at = now(), wake_at = now()")
    assert await pool.fetchval("SELECT count(cover_image_url) FROM refresher.videos") == 3000


# --- What only those since revision 0002 do ---


@pytest.mark.parametrize("previous", [Of0002, Of0004])
async def test_it_renews_a_lease_and_reserves_a_slot(pool, previous):
    """Longer than before, and behind the slots of its claim; nothing of a lease that is over."""
    await store(pool, "ana", 1)
    replica = previous(pool)
    (claim,) = await replica.claim()
    await pool.execute("UPDATE refresher.accounts SET lease_expires_at = now() + interval '1 s'")
    ((open_id, left),) = await replica.renew(claim)
    assert (open_id, left) == ("ana", LEASE)
    assert await replica.reserve(claim) > claim["first_slot"]
    await lease_ends(pool)
    (new,) = await current(pool).claim(10)
    assert await replica.renew(claim) == []
    assert (await row(pool, "ana"))["lease_epoch"] == new.lease_epoch


@pytest.mark.parametrize("partitions", [0, 4])
@pytest.mark.parametrize("previous", [Of0004])
async def test_its_writes_beside_an_application_are_taken_for_its_own(
    pool, database, previous, partitions
):
    """Both statements, with a locked row and without: no video is doubted, no account is woken."""
    if partitions:
        await partition_videos(database, partitions)
    await store(pool, "ana", 3)
    replica = previous(pool)
    (claim,) = await replica.claim()
    before = await row(pool, "ana")
    async with pool.acquire() as application, application.transaction():
        await application.execute("SELECT FROM refresher.videos WHERE video_id = 'ana2' FOR UPDATE")
        assert await replica.write_back(claim, 5, "write_back_free_rows") == 2
    covers = "SELECT cover_expires_at, due_at FROM refresher.videos ORDER BY video_id"
    written = (cover(5)[1], cover(5)[1] - HOUR)
    first, second, third = map(tuple, await pool.fetch(covers))
    assert (first, third) == (written, written)
    assert second[0] is None
    assert await replica.write_back(claim, 6, "write_back_free_rows") == 3
    assert await replica.write_back(claim, 7) == 3
    assert await replica.write_back(claim, 6, "write_back_free_rows") == 0
    for found in await pool.fetch(covers):
        assert (found["cover_expires_at"], found["due_at"]) == (cover(7)[1], cover(7)[1] - HOUR)
    assert dict(await row(pool, "ana")) | {"now": 0} == dict(before) | {"now": 0}
    assert await replica.release(claim)
    assert (await row(pool, "ana"))["wake_at"] == NOW + 6 * HOUR


@pytest.mark.parametrize("previous", [Of0002, Of0004])
async def test_it_refreshes_a_token_for_both(pool, previous):
    """The pair it stores is what the new version asks with; while it may come, neither asks."""
    await store(pool, "ana", 1)
    await pool.execute(
        "UPDATE refresher.accounts SET refresh_token = 'rft.x',"
        " access_token_expires_at = now() + interval '1 minute'"
    )
    replica = previous(pool)
    (claim,) = await replica.claim()
    assert (claim["token_due"], claim["video_ids"]) == (True, None)
    assert await current(pool).claim(10) == []
    assert await replica.renew_token(claim, "act.y", "rft.y") == (1, 1)
    assert await replica.release(claim)
    (new,) = await current(pool).claim(10)
    assert (new.access_token, new.token.due, len(new.videos)) == ("act.y", False, 1)


@pytest.mark.parametrize("previous", [Of0002, Of0004])
async def test_a_request_for_a_token_that_it_gave_up_is_over_for_both(pool, previous):
    """Its outcome is not known: the new version goes on, and knows that there was one."""
    await store(pool, "ana", 1)
    await pool.execute(
        "UPDATE refresher.accounts SET refresh_token = 'rft.x',"
        " access_token_expires_at = now() + interval '1 minute'"
    )
    replica = previous(pool)
    (claim,) = await replica.claim()
    key = key_of(claim)
    assert len(await replica.ask("begin", **key, unknown=timedelta(seconds=72))) == 1
    await replica.ask("end", **key, unknown=True)
    assert await replica.release(claim, failures=1)
    (new,) = await current(pool).claim(10)
    begun = await TokenStore(pool, Sealer(())).begin(new)
    assert begun.interrupted


@pytest.mark.parametrize("previous", [Of0002, Of0004])
async def test_a_rate_of_the_app_that_either_lowers_holds_for_both(pool, previous):
    """Each finds the other's in the app's row; the new one corrects it by what was answered."""
    window, pause = timedelta(seconds=60), timedelta(seconds=10)
    lower = partial(previous(pool).ask, "lower_app_rate", rate=100, window=window, pause=pause)
    ((rate,),) = await lower()
    assert rate == pytest.approx(90)
    assert await current(pool).tell_answers([40, 60])
    limit = await current(pool).limit_app(0.0)
    assert limit.rate_per_minute == 100
    assert await lower() == []
    await pool.execute("UPDATE refresher.app SET rate_lowered_at = now() - interval '61 s'")
    ((rate,),) = await lower()
    assert rate == pytest.approx(70 * 1.1, rel=0.01)
    assert await current(pool).tell_answers([])


# --- While it migrates ---


async def test_a_migration_does_not_break_a_claim_under_way(old_pool, previous, empty_database):
    """Claimed before it, written and released after it, by the same old replica."""
    await store(old_pool, "ana", 3)
    replica = previous(old_pool)
    (claim,) = await replica.claim()
    await migrate(empty_database)
    await check_migrated(old_pool)
    assert await current(old_pool).claim(10) == []
    assert await replica.write_back(claim, 5) == 3
    assert await replica.release(claim)
    account = await row(old_pool, "ana")
    assert (account["valid"], account["wake_at"]) == (3, NOW + 4 * HOUR)


async def test_a_claim_under_way_can_be_taken_over_after_a_migration(
    old_pool, previous, empty_database
):
    """Its replica was stopped in between: the new version goes on when the lease has run out."""
    await store(old_pool, "ana", 3)
    (old,) = await previous(old_pool).claim()
    await migrate(empty_database)
    await lease_ends(old_pool)
    (new,) = await current(old_pool).claim(10)
    assert (new.lease_epoch, len(new.videos)) == (old["lease_epoch"] + 1, 3)
    assert await write(old_pool, new, 5) == 3


@pytest.mark.parametrize("previous", [Of0004])
async def test_a_migration_lets_an_application_finish(old_pool, empty_database, previous):
    """An insert under way needs the account's row, too: the migration waits, neither fails."""
    await store(old_pool, "ana", 1)
    async with old_pool.acquire() as application, application.transaction():
        await application.execute(
            "INSERT INTO refresher.videos (open_id, video_id) VALUES ('ana', '7')"
        )
        migrating = asyncio.create_task(migrate(empty_database))
        await eventually(lambda: waits_for_a_lock(old_pool), "a migration that waits for a lock")
        await application.execute(
            "UPDATE refresher.accounts SET scope = 'video.list' WHERE open_id = 'ana'"
        )
        await application.execute(
            "INSERT INTO refresher.videos (open_id, video_id) VALUES ('ana', '8')"
        )
    assert await migrating
    await check_migrated(old_pool)
    assert await old_pool.fetchval("SELECT count(*) FROM refresher.videos") == 3


SQL_FILL = """
INSERT INTO refresher.accounts (open_id, access_token, access_token_expires_at, refresh_token,
                                state, wake_at)
VALUES ('without', 'act.1', NULL, NULL, 'active', 'infinity'),
       ('lasting', 'act.2', now() + interval '1 day', 'rft.2', 'active', 'infinity'),
       ('ending', 'act.3', now() + interval '5 min', 'rft.3', 'active', 'infinity'),
       ('ended', 'act.4', now() - interval '5 min', 'rft.4', 'active', now() + interval '1 day'),
       ('unknown', 'act.5', NULL, 'rft.5', 'active', now() + interval '1 hour'),
       ('early', 'act.6', now() + interval '1 day', 'rft.6', 'active', now() - interval '1 hour'),
       ('paused', 'act.7', now() - interval '5 min', 'rft.7', 'paused', 'infinity'),
       ('parked', 'act.8', NULL, NULL, 'needs_scope', 'infinity');
INSERT INTO refresher.videos (open_id, video_id, cover_image_url, cover_expires_at, due_at, misses)
SELECT open_id, open_id || n, 'https://example.com/' || n, now() + interval '1 day',
       now() + interval '23 hours', n % 2
FROM refresher.accounts, generate_series(1, 3) AS n;
UPDATE refresher.accounts SET wake_at = 'infinity' WHERE open_id IN ('without', 'lasting', 'ending');
UPDATE refresher.app SET next_slot_at = '2026-01-01 12:00Z';
"""
SQL_KNOWN = """
SELECT open_id, access_token, access_token_expires_at, refresh_token, refresh_token_expires_at,
       scope, state, state_reason, state_since, lease_owner, lease_epoch, lease_expires_at,
       next_slot_at, failures, requests, videos
FROM refresher.accounts ORDER BY open_id
"""
SQL_KNOWN_VIDEOS = """
SELECT open_id, video_id, cover_image_url, cover_expires_at, refreshed_at, missing_since, gone_at,
       due_at, misses, reserve
FROM refresher.videos ORDER BY open_id, video_id
"""


async def test_a_migration_keeps_every_row(old_pool, previous, empty_database):
    """Accounts, videos, leases, slots: all as they were, whatever was added beside them."""
    await old_pool.execute(SQL_FILL)
    await previous(old_pool).claim()
    statements = SQL_KNOWN, SQL_KNOWN_VIDEOS, "SELECT next_slot_at FROM refresher.app"
    before = [[tuple(found) for found in await old_pool.fetch(each)] for each in statements]
    await migrate(empty_database)
    after = [[tuple(found) for found in await old_pool.fetch(each)] for each in statements]
    assert after == before
    assert (len(before[0]), len(before[1])) == (8, 24)


@pytest.mark.parametrize("previous", [Of0001])
async def test_a_migration_wakes_what_must_wake(old_pool, empty_database):
    """Accounts whose token is to be refreshed wake for it, and no other account is disturbed."""
    await old_pool.execute(SQL_FILL)
    woken_at = "SELECT open_id, extract(epoch FROM wake_at) FROM refresher.accounts"
    before = dict(await old_pool.fetch(woken_at))
    await migrate(empty_database)
    after = dict(await old_pool.fetch(woken_at))
    changed = {open_id for open_id, at in after.items() if at != before[open_id]}
    assert changed == {"lasting", "ending", "ended", "paused"}
    assert all(after[open_id] < before[open_id] for open_id in changed)
    claims = await current(old_pool).claim(10)
    due = {claim.open_id: claim.token.due for claim in claims}
    assert due == {"ending": True, "ended": True, "early": False}
