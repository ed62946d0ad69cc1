"""When a write of an application can fail after all because its table is attached: docs/attach.md."""

import asyncio

import asyncpg
import pytest

from refresher.postgres.attached import read_attachments
from tests.conftest import eventually, waits_for_a_lock
from tests.test_attach import APPLICATION, add_user, attach, settled, store_covers

ADD = "INSERT INTO clips (user_id, tiktok_id) VALUES (1, $1)"


@pytest.fixture
async def attached(pool, refresher):
    """Ann has clips 1 and 2; the table is attached."""
    await pool.execute(APPLICATION)
    await add_user(pool, "ann", ["1", "2"])
    assert (await refresher(*attach()))[0] == 0
    await pool.execute("DELETE FROM refresher.changed_rows")
    return pool


@pytest.fixture
async def application(database):
    """Connections of an application."""
    made = []

    async def connect():
        made.append(await asyncpg.connect(database))
        return made[-1]

    yield connect
    for connection in made:
        await connection.close()


@pytest.mark.parametrize("isolation", ["repeatable_read", "serializable"])
async def test_what_the_triggers_do_fails_no_transaction(
    attached, database, application, isolation
):
    """Writers tell side by side, while the daemon takes what was told, and all of them commit."""
    one, other = await application(), await application()
    transactions = [each.transaction(isolation=isolation) for each in (one, other)]
    for transaction in transactions:
        await transaction.start()
    await one.execute(ADD, "3")
    await other.execute(ADD, "4")
    await attached.execute(ADD, "5")
    assert (await settled(attached, database))[0].added == 1
    await other.execute(ADD, "6")
    await one.execute(ADD, "7")
    for transaction in transactions:
        await transaction.commit()
    done, _ = await settled(attached, database)
    assert (done.added, done.removed) == (4, 0)


@pytest.mark.parametrize("isolation", ["repeatable_read", "serializable"])
async def test_a_cover_is_a_write_that_a_stricter_transaction_notices(
    attached, database, application, isolation
):
    """It fails with 40001, as for every other writer of the row, and is run again."""
    await store_covers(attached)
    connection = await application()
    for succeeds in (False, True):
        transaction = connection.transaction(isolation=isolation)
        await transaction.start()
        await connection.fetch("SELECT * FROM clips")
        await settled(attached, database)
        if succeeds:
            await connection.execute("UPDATE clips SET title = 'x' WHERE tiktok_id = '1'")
            await transaction.commit()
        else:
            with pytest.raises(asyncpg.SerializationError):
                await connection.execute("UPDATE clips SET title = 'x' WHERE tiktok_id = '1'")
            await transaction.rollback()


async def test_a_write_waits_while_a_cover_is_written_into_its_row(attached, application):
    """For that moment: as long as the daemon's transaction."""
    await store_covers(attached)
    connection = await application()
    async with attached.acquire() as daemon:
        async with daemon.transaction():
            await daemon.execute("SELECT refresher.attached_clips_carry(ARRAY['ann'], ARRAY['1'])")
            await connection.execute("UPDATE clips SET title = 'x' WHERE tiktok_id = '2'")
            write = asyncio.create_task(
                connection.execute("UPDATE clips SET title = 'x' WHERE tiktok_id = '1'")
            )
            await eventually(lambda: waits_for_a_lock(attached), "the write waits")
        assert await write == "UPDATE 1"


async def test_a_time_out_that_ends_in_the_trigger_is_the_statements(attached, application):
    """What a trigger takes counts, and who cancels a statement cancels its trigger."""
    connection = await application()
    async with attached.acquire() as other, other.transaction():
        await other.execute("LOCK TABLE refresher.changed_rows IN ACCESS EXCLUSIVE MODE")
        await connection.execute("SET statement_timeout = '20ms'")
        with pytest.raises(asyncpg.QueryCanceledError):
            await connection.execute(ADD, "3")
        await connection.execute("SET statement_timeout = '30s'")
        await connection.execute(ADD, "3")


async def test_a_large_statement_keeps_its_rows_for_the_trigger(attached, application):
    """In memory, then in temporary files: so a limit of these can end it."""
    connection = await application()
    await connection.execute("SET work_mem = '64kB'; SET temp_file_limit = '1MB'")
    many = "INSERT INTO clips (user_id, tiktok_id) SELECT 1, 'b' || n FROM generate_series(1, {}) n"
    await connection.execute(many.format(1000))
    with pytest.raises(asyncpg.ConfigurationLimitExceededError, match="temp_file_limit"):
        await connection.execute(many.format(100_000).replace("'b'", "'c'"))
    await connection.execute("RESET temp_file_limit")
    await connection.execute(many.format(100_000).replace("'b'", "'c'"))


#: As docs/attach.md says it.
LEFT_OUT = "WHEN (current_setting('refresher.carrying', true) IS DISTINCT FROM 'on')"


@pytest.mark.parametrize("condition", ["", LEFT_OUT])
async def test_a_trigger_of_the_application_notices_a_cover_or_leaves_it_out(
    attached, database, condition
):
    """One that sets `updated_at`: of its own writes in any case."""
    await attached.execute(
        "ALTER TABLE clips ADD updated_at timestamptz;"
        "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN NEW.updated_at := now(); RETURN NEW; END $$;"
        f"CREATE TRIGGER touch BEFORE UPDATE ON clips FOR EACH ROW {condition}"
        " EXECUTE FUNCTION touch()"
    )
    await store_covers(attached)
    assert (await settled(attached, database))[0].carried == 2
    touched = "SELECT count(*) FROM clips WHERE updated_at IS NOT NULL"
    assert await attached.fetchval(touched) == (0 if condition else 2)
    await attached.execute("UPDATE clips SET title = 'x'")
    assert await attached.fetchval(touched) == 2
    assert len(await read_attachments(attached)) == 1
