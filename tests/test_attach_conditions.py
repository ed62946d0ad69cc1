"""`attach --where`: a condition is tried as the triggers will run it; what could fail there is refused."""

import pytest

from tests.test_attach import APPLICATION, add_user, attach, settled, stored, unnoted

OWN = """
CREATE FUNCTION is_live(timestamptz) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT $1 IS NULL';
CREATE FUNCTION is_shown(timestamptz) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT is_live($1)';
CREATE FUNCTION alike(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 = $2';
CREATE OPERATOR === (FUNCTION = alike, LEFTARG = text, RIGHTARG = text);
ALTER TABLE clips ADD found boolean, ADD added boolean, ADD this boolean;
"""

NO_SUCH = "(name columns without a table, and what is not in pg_catalog with its schema)"
WRONG = {
    "clips.deleted_at IS NULL": f'missing FROM-clause entry for table "clips" {NO_SUCH}',
    "clips IS NOT NULL": 'column "clips" does not exist',
    "new_rows.deleted_at IS NULL": f'missing FROM-clause entry for table "new_rows" {NO_SUCH}',
    "ctid IS NOT NULL": 'column "ctid" does not exist',
    "is_live(deleted_at)": (f"function is_live(timestamp with time zone) does not exist {NO_SUCH}"),
    "public.is_shown(deleted_at)": (
        f"function is_live(timestamp with time zone) does not exist {NO_SUCH}"
    ),
    "title === 'x'": f"operator does not exist: text === unknown {NO_SUCH}",
    "true) OR (true": 'syntax error at or near ")"',
    "true] || ARRAY[true": 'syntax error at or near "]"',
    "true; DROP TABLE clips": 'syntax error at or near ";"',
    "true); DROP TABLE clips; SELECT (true": 'syntax error at or near ")"',
    "true]; DROP TABLE clips; SELECT ARRAY[true": (
        "cannot insert multiple commands into a prepared statement"
    ),
    "true --": "syntax error at end of input",
    "true /*": 'unterminated /* comment at or near "/*] FROM',
    "title = '": "unterminated quoted string at or near \"'] FROM",
    "title": "argument of WHERE must be type boolean, not type text",
    "true, true": "argument of WHERE must be type boolean, not type record",
    "count(*) > 0": "aggregate functions are not allowed in WHERE",
    "title = $1": "there is no value for a parameter",
    "user_id IN (SELECT id FROM public.users)": (
        "a subquery reads other rows, whose changes nothing tells of"
    ),
    "random() < 0.5": "random() is volatile: it may change by itself",
    "deleted_at IS NULL OR\ntrue": "expected one line without $refresher$",
    "title <> '$refresher$'": "expected one line without $refresher$",
}


@pytest.fixture
async def application(pool):
    await pool.execute(APPLICATION + OWN)
    await add_user(pool, "ann", ["1"])
    return pool


@pytest.mark.parametrize("condition", WRONG)
async def test_a_condition_that_a_trigger_could_not_run_is_refused(
    application, refresher, condition
):
    """One line, and nothing of it was run."""
    code, out, err = await refresher(*attach(where=condition))
    assert (code, out) == (2, "")
    expected = f"--where: expected a condition over the columns of public.clips, not {condition!r}"
    assert err.startswith(f"refresher: {expected}: {WRONG[condition]}")
    assert err.count("\n") == 1
    assert await application.fetchval("SELECT count(*) FROM clips") == 1


RIGHT = (
    "public.is_live(deleted_at)",
    "coalesce(title, '') OPERATOR(public.===) ''",
    "(title <> 'a; b) -- c') IS NOT FALSE /* WHERE */",
    "deleted_at IS NULL OR deleted_at > now()",
    "found IS NULL AND added IS NULL AND this IS NULL",
)


@pytest.mark.parametrize("condition", RIGHT)
async def test_a_condition_that_is_accepted_works_in_the_triggers(
    application, database, refresher, condition
):
    """Whatever its columns are called. The walk, the news and the covers all go by it."""
    code, _, err = await refresher(*attach(where=condition))
    assert (code, unnoted(err)) == (0, "")
    await application.execute("INSERT INTO clips (user_id, tiktok_id) VALUES (1, '2')")
    await application.execute("UPDATE clips SET tiktok_id = '3' WHERE tiktok_id = '1'")
    done, _ = await settled(application, database)
    assert (done.added, done.removed) == (2, 1)
    assert await stored(application) == {("ann", "2"), ("ann", "3")}


async def test_a_condition_that_no_longer_fits_is_said_by_the_check(application, refresher):
    """A function that it calls is gone."""
    assert (await refresher(*attach(where="public.is_live(deleted_at)")))[0] == 0
    await application.execute("DROP FUNCTION is_live")
    code, out, _ = await refresher("attach", "--check", "--table", "public.clips")
    assert code == 1
    assert out.startswith(
        "✗ --where: expected a condition over the columns of public.clips, not"
        " 'public.is_live(deleted_at)': function public.is_live(timestamp with time zone) does not"
    )
