"""A row that somebody holds locked, behind an application's trigger: its account waits alone."""

from contextlib import asynccontextmanager
from time import monotonic

import asyncpg

from tests.conftest import eventually, until

CARRIED = """
CREATE TABLE public.posts (video_id text PRIMARY KEY, cover text);
CREATE FUNCTION public.carry() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE public.posts SET cover = NEW.cover_image_url WHERE video_id = NEW.video_id;
    RETURN NULL;
END
$$;
CREATE TRIGGER carry AFTER UPDATE ON refresher.videos
FOR EACH ROW EXECUTE FUNCTION public.carry();
"""


async def carry_covers(world):
    """An application carries every cover into a table of its own, by a trigger."""
    await world.pool.execute(CARRIED)
    await world.pool.execute("INSERT INTO public.posts SELECT video_id FROM refresher.videos")


@asynccontextmanager
async def held(database, video_id):
    """A long transaction of the application, in the middle of which a row is locked."""
    application = await asyncpg.connect(
        database, server_settings={"application_name": "nightly report"}
    )
    try:
        async with application.transaction():
            await application.execute(
                "SELECT FROM public.posts WHERE video_id = $1 FOR UPDATE", video_id
            )
            yield application
    finally:
        await application.close()


async def valid_of_others(world, open_id):
    return await world.pool.fetchval(
        "SELECT count(*) FROM refresher.videos"
        " WHERE open_id <> $1 AND cover_expires_at > now() AND cover_image_url <> ''",
        open_id,
    )


async def valid_of(world, open_id):
    return await world.pool.fetchval(
        "SELECT count(*) FROM refresher.videos"
        " WHERE open_id = $1 AND cover_expires_at > now() AND cover_image_url <> ''",
        open_id,
    )


async def test_a_row_that_a_trigger_waits_for_holds_up_its_account_alone(serve, start, database):
    """Sixty accounts: the other 59 are written at once, who holds the lock is said, and the one
    is written when it is let go."""
    world = await serve()
    ids = {}
    for number in range(60):
        ids[number] = await world.add_account(f"account-{number}", videos=20)
    await carry_covers(world)
    async with held(database, ids[30][0]) as application:
        pid = application.get_server_pid()
        daemon = await start(world)
        await world.until_valid(59 * 20)
        blocked = await daemon.until_event("chunk.blocked")
        assert blocked["open_id"] == "account-30"
        assert (blocked["holder_pid"], blocked["holder_application"]) == (pid, "nightly report")
        assert blocked["holder_since"]
        assert blocked["videos"] == 20
        assert await valid_of(world, "account-30") == 0
        await until(monotonic() + 2)
        sent = len(world.emulator.record)
    await world.until_valid(60 * 20, seconds=15)
    freed = await daemon.until_event("chunk.freed")
    assert freed["open_id"] == "account-30"
    assert len(world.emulator.record) == sent == 60
    assert len(daemon.events("chunk.blocked")) == 1
    assert daemon.events("database.lost") == []
    assert await daemon.stopped() == 0


async def test_many_rows_that_are_held_hold_up_their_accounts_alone(serve, start, database):
    """Ten of forty accounts wait behind one transaction: the others go on, all are done after."""
    world = await serve()
    ids = [await world.add_account(f"account-{number}", videos=20) for number in range(40)]
    await carry_covers(world)
    async with held(database, ids[0][0]) as application:
        await application.execute(
            "SELECT FROM public.posts WHERE video_id = ANY ($1) FOR UPDATE",
            [own[5] for own in ids[::4]],
        )
        daemon = await start(world, concurrency=4)
        await world.until_valid(30 * 20)
        await daemon.until_event("chunk.blocked", count=10)
        assert await world.valid() == 30 * 20
    await world.until_valid(40 * 20)
    await daemon.until_event("chunk.freed", count=10)
    assert len(world.emulator.record) == 40
    assert daemon.events("database.lost") == []
    assert await daemon.stopped() == 0


async def test_chunks_that_come_while_the_first_waits_are_stored(serve, start, database):
    """An account of ten chunks, and a lock that is soon let go: nothing is asked for twice."""
    world = await serve(latency_seconds=0.05)
    ids = await world.add_account("ana", videos=200)
    await world.add_account("ben", videos=20)
    await carry_covers(world)
    async with held(database, ids[0]):
        daemon = await start(world)
        await world.until_valid(20)

        async def waits():
            return await world.pool.fetchval(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name LIKE 'refresher waits%'"
            )

        await eventually(waits, "somebody to wait")
        await until(monotonic() + 0.4)
    await world.until_valid(220)
    await world.until_no_leases()
    assert await daemon.stopped() == 0
    assert len(world.emulator.record) == 11
    assert [log["refreshed"] for log in daemon.events("account.refreshed")] == [20, 200]
    assert daemon.events("library.failed") == daemon.events("chunk.unsaved") == []


async def test_a_stop_leaves_a_result_that_waits_to_others(serve, start, database):
    """In the grace time, and with its lease given back: another replica asks again."""
    world = await serve()
    (video_id,) = await world.add_account("ana", videos=1)
    await carry_covers(world)
    async with held(database, video_id):
        daemon = await start(world, shutdown_grace_seconds=4)
        await daemon.until_event("chunk.blocked")
        assert await daemon.stopped() == 0
        assert daemon.events("daemon.stopped")[0]["abandoned_accounts"] == 0
        await world.until_no_leases()
    await start(world)
    await world.until_valid(1)
