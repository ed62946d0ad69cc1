"""`attach` of a table of tokens: each authorization is taken once, and no consent is lost."""

import asyncio
import secrets
from dataclasses import replace

import asyncpg
import pytest

from refresher.postgres.attached import apply_told, read_attachments, walk_step
from tests.conftest import eventually, waits_for_a_lock
from tests.test_attach import unnoted
from tests.test_tokens import SETTINGS, in_seconds, is_live, row_of, standing

#: As Auth.js has it: of several providers, times in seconds since 1970.
APPLICATION = """
CREATE TABLE "Account" (
    id text PRIMARY KEY DEFAULT gen_random_uuid(),
    "userId" text NOT NULL,
    provider text NOT NULL,
    "providerAccountId" text NOT NULL,
    access_token text,
    expires_at integer,
    refresh_token text,
    refresh_expires_at timestamp(3),
    scope text,
    seen integer DEFAULT 0,
    UNIQUE (provider, "providerAccountId")
)
"""
ATTACH = (
    *("attach", "--table", "public.Account", "--open-id", "providerAccountId"),
    *("--access-token", "access_token", "--access-token-expires", "expires_at"),
    *("--refresh-token", "refresh_token", "--refresh-token-expires", "refresh_expires_at"),
    *("--scope", "scope", "--where", "provider = 'tiktok'"),
)
HOUR = 3600


def pair(name):
    return tuple(f"{kind}.{name}-{secrets.token_hex(8)}" for kind in ("act", "rft"))


async def sign_in(pool, name, access, refresh, *, lives=HOUR, consent=86_400 * 100):
    """As a sign-in library stores it: a new row, or the tokens of the old one."""
    await pool.execute(
        'INSERT INTO "Account" ("userId", provider, "providerAccountId", access_token, expires_at,'
        " refresh_token, refresh_expires_at, scope)"
        " VALUES ($1, 'tiktok', $1, $2, extract(epoch FROM $3::timestamptz)::int, $4,"
        " $5::timestamptz AT TIME ZONE 'UTC', 'video.list')"
        ' ON CONFLICT (provider, "providerAccountId") DO UPDATE SET access_token = $2,'
        " expires_at = EXCLUDED.expires_at, refresh_token = $4,"
        " refresh_expires_at = EXCLUDED.refresh_expires_at",
        name,
        access,
        in_seconds(lives),
        refresh,
        in_seconds(consent),
    )


async def applied(pool):
    """As a daemon does."""
    total = 0
    for attachment in await read_attachments(pool):
        done, _ = await apply_told(pool, attachment, lambda *said: pytest.fail(str(said)))
        total += done.added
    return total


@pytest.fixture
async def application(pool):
    await pool.execute(APPLICATION)
    await pool.execute(
        'INSERT INTO "Account" ("userId", provider, "providerAccountId", access_token)'
        " VALUES ('ann', 'google', 'ann-at-google', 'ya29.x')"
    )
    return pool


async def test_a_pair_is_taken_and_renewed_and_never_brought_back(
    application, serve, start, refresher
):
    """The daemon renews it; the application saves its old row again; the living pair stays."""
    world = await serve(cover_ttl=7200)
    access, refresh = pair("ann")
    world.emulator.add_account("ann", access, refresh_token=refresh)
    await sign_in(application, "ann", access, refresh, lives=30)
    code, out, err = await refresher(*ATTACH)
    assert (code, unnoted(err)) == (0, "")
    assert out == (
        "attached public.Account: 1 account added or re-authorized; the daemon renews them from now on: your"
        " application must not; it gets a living access token from refresher.access_token(open_id)\n"
    )
    daemon = await start(world, **SETTINGS)
    await daemon.until_event("token.refreshed")
    await application.execute('UPDATE "Account" SET seen = seen + 1, access_token = access_token')
    for text in (refresh + "-other", refresh):
        await application.execute(
            "UPDATE \"Account\" SET refresh_token = $1 WHERE provider = 'tiktok'", text
        )
    await eventually(lambda: no_news(application), "what was told is applied")
    row = await row_of(application, "ann")
    assert row["refresh_token"] != refresh
    assert row["access_token_expires_at"] > in_seconds(60)
    assert await daemon.stopped() == 0


async def no_news(pool):
    return not await pool.fetchval("SELECT count(*) FROM refresher.changed_rows")


async def test_a_new_authorization_revives_a_parked_account(application, refresher):
    """It is another pair: taken at once. The one before is never taken again."""
    first, second = pair("ann"), pair("ann")
    await sign_in(application, "ann", *first)
    assert (await refresher(*ATTACH))[0] == 0
    await application.execute(
        "UPDATE refresher.accounts SET state = 'needs_reauthorization', state_since = now()"
    )
    await sign_in(application, "ann", *first)
    assert await applied(application) == 0
    assert (await standing(application, "ann"))[0] == "needs_reauthorization"
    await sign_in(application, "ann", *second, lives=2 * HOUR)
    assert await applied(application) == 1
    row = await row_of(application, "ann")
    assert (row["state"], row["access_token"], row["refresh_token"]) == ("active", *second)
    assert row["scope"] == "video.list"
    assert abs((row["access_token_expires_at"] - in_seconds(2 * HOUR)).total_seconds()) < 60
    assert abs((row["refresh_token_expires_at"] - in_seconds(86_400 * 100)).total_seconds()) < 60
    await sign_in(application, "ann", *first)
    assert await applied(application) == 0
    assert (await row_of(application, "ann"))["refresh_token"] == second[1]


async def test_a_deleted_row_pauses_its_account_and_keeps_the_pair(application, refresher):
    """The pair may be the only living one. The row comes back: the account goes on with it."""
    tokens = pair("ann")
    await sign_in(application, "ann", *tokens)
    assert (await refresher(*ATTACH))[0] == 0
    for gone in (
        "DELETE FROM \"Account\" WHERE provider = 'tiktok'",
        "UPDATE \"Account\" SET access_token = NULL WHERE provider = 'tiktok'",
        "UPDATE \"Account\" SET provider = 'none' WHERE provider = 'tiktok'",
    ):
        await application.execute(gone)
        await applied(application)
        assert await standing(application, "ann") == ("paused", "deleted_by_application")
        assert (await row_of(application, "ann"))["refresh_token"] == tokens[1]
        await sign_in(application, "ann", *tokens)
        await applied(application)
        assert await standing(application, "ann") == ("active", None)


async def test_an_account_that_was_deleted_here_is_not_added_again(application, refresher):
    """Not from the application's old row; from a new authorization it is."""
    await sign_in(application, "ann", *pair("ann"))
    assert (await refresher(*ATTACH))[0] == 0
    await application.execute("DELETE FROM refresher.accounts")
    await application.execute('UPDATE "Account" SET scope = NULL')
    (attachment,) = await read_attachments(application)
    await walk_step(application, attachment, lambda *said: pytest.fail(str(said)))
    assert await applied(application) == 0
    assert await row_of(application, "ann") is None
    await sign_in(application, "ann", *pair("ann"))
    assert await applied(application) == 1


async def test_the_walk_finds_what_no_trigger_has_told(application, refresher):
    """New rows and deleted ones."""
    await sign_in(application, "ann", *pair("ann"))
    await sign_in(application, "bob", *pair("bob"))
    assert (await refresher(*ATTACH))[0] == 0
    await application.execute('ALTER TABLE "Account" DISABLE TRIGGER USER')
    await application.execute('DELETE FROM "Account" WHERE "userId" = \'bob\'')
    await sign_in(application, "cem", *pair("cem"))
    (attachment,) = await read_attachments(application)
    done, more = await walk_step(application, attachment, lambda *said: pytest.fail(str(said)))
    assert (done.added, done.removed, more) == (1, 1, False)  # the next step comes later
    assert await standing(application, "bob") == ("paused", "deleted_by_application")
    assert await standing(application, "cem") == ("active", None)


async def test_open_ids_in_another_order_than_the_databases_are_all_walked_over(
    application, refresher
):
    """Small letters before capitals, say: the walk goes on from where it was in one order only."""
    try:
        await application.execute(
            'ALTER TABLE "Account" ALTER "providerAccountId" TYPE text COLLATE "en-x-icu"'
        )
    except asyncpg.PostgresError:
        pytest.skip("this server has one order only")
    for name in "aAbBcCdDeEfFgGhHiIjJkKlLmM":
        await sign_in(application, f"-{name}", *pair(name))
    assert (await refresher(*ATTACH))[0] == 0
    assert await application.fetchval("SELECT count(*) FROM refresher.accounts") == 26


async def test_with_external_tokens_the_daemon_gets_each_access_token(application, refresher):
    """And no refresh token: so nothing of it can be used up."""
    first, second = pair("ann"), pair("ann")
    await sign_in(application, "ann", *first)
    code, out, err = await refresher(*ATTACH, token_management="external")
    assert (code, unnoted(err)) == (0, "")
    assert out == (
        "attached public.Account: 1 account added or re-authorized; your application renews them, as"
        " REFRESHER_TOKEN_MANAGEMENT is external\n"
    )
    for access, refresh in (first, second):
        await sign_in(application, "ann", access, refresh)
        await applied(application)
        row = await row_of(application, "ann")
        assert (row["access_token"], row["refresh_token"]) == (access, None)


async def test_an_application_gets_a_living_access_token(application, refresher):
    """None where it has died or was refused; nobody may call the function without a grant."""
    access, refresh = pair("ann")
    await sign_in(application, "ann", access, refresh)
    assert (await refresher(*ATTACH))[0] == 0
    query = "SELECT access_token FROM refresher.access_token('ann')"
    assert await application.fetchval(query) == access
    for change, lives in (
        ("access_token_expires_at = now() + interval '20 seconds'", False),
        ("access_token_expires_at = NULL", True),
        ("token_standing = 'refused'", False),
        ("token_standing = 'trusted'", True),
        ("state = 'needs_reauthorization'", False),
    ):
        await application.execute(f"UPDATE refresher.accounts SET {change}")
        assert await application.fetchval(query) == (access if lives else None)
    granted = await application.fetchval(
        "SELECT has_function_privilege('pg_monitor', 'refresher.access_token(text)', 'EXECUTE')"
    )
    assert granted is False


async def test_of_two_rows_of_an_account_the_new_tokens_are_taken(application, refresher):
    """Once the index is another: an empty row, or an old one, stands in nobody's way."""
    assert (await refresher(*ATTACH))[0] == 0
    await application.execute(
        'ALTER TABLE "Account" DROP CONSTRAINT "Account_provider_providerAccountId_key";'
        'CREATE UNIQUE INDEX ON "Account" (provider, "providerAccountId", "userId")'
    )
    first = pair("ann")
    add = (
        'INSERT INTO "Account" ("userId", provider, "providerAccountId", access_token,'
        " refresh_token) VALUES ($1, 'tiktok', 'ann', $2, $3)"
    )
    await application.execute(add, "empty", None, None)
    await application.execute(add, "first", *first)
    await applied(application)
    assert (await row_of(application, "ann"))["refresh_token"] == first[1]
    for user in ("another", "zoe"):
        new = pair("ann")
        await application.execute(add, user, *new)
        await applied(application)
        assert (await row_of(application, "ann"))["refresh_token"] == new[1]


TOKEN_COLUMNS = {
    "no refresh token": (
        ("--open-id", "providerAccountId", "--access-token", "access_token"),
        "--refresh-token: expected a column: the daemon renews the tokens with it",
    ),
    "a wrong type": (
        ("--open-id", "providerAccountId", "--access-token", "seen", "--refresh-token", "scope"),
        "--access-token: expected a type of text, varchar, bpchar, not public.Account.seen: integer",
    ),
    "no open_id": (
        ("--access-token", "access_token"),
        "expected --open-id and --access-token; refresher attach --help says what they are",
    ),
    "not unique": (
        ("--open-id", "userId", "--access-token", "access_token", "--refresh-token", "scope"),
        (
            'public.Account: expected a unique index over "userId", not none: CREATE UNIQUE INDEX'
            ' CONCURRENTLY ON public."Account" ("userId")'
        ),
    ),
}


@pytest.mark.parametrize("case", TOKEN_COLUMNS)
async def test_a_mapping_of_tokens_that_does_not_fit_is_refused(application, refresher, case):
    """One line, exit 2."""
    options, line = TOKEN_COLUMNS[case]
    assert await refresher("attach", "--table", "Account", *options) == (
        2,
        "",
        f"refresher: {line}\n",
    )


async def test_tokens_of_a_user_without_an_open_id_are_named(application, refresher):
    """Nothing is attached."""
    await application.execute('ALTER TABLE "Account" ALTER "providerAccountId" DROP NOT NULL')
    await sign_in(application, "ann", *pair("ann"))
    await application.execute('UPDATE "Account" SET "providerAccountId" = NULL')
    assert await refresher(*ATTACH) == (
        2,
        "",
        (
            "refresher: public.Account: expected an open_id for each account, but 1 have none;"
            " --skip-without-open-id leaves them alone until they get one\n"
        ),
    )


async def test_tokens_that_do_not_look_like_tokens_are_said(application, refresher):
    """What an application encrypts cannot be used."""
    await sign_in(application, "ann", "c2VhbGVk", "c2VhbGVkIHRvbw")
    code, out, _ = await refresher(*ATTACH)
    assert code == 0
    assert (
        "; 1 have access tokens that do not begin with act.: what your application encrypts cannot"
        " be used, for example 'ann';"
    ) in out


async def test_a_renewed_pair_is_that_of_the_emulator(application, serve, start, refresher):
    """Attached while the daemon runs: its log says so, and the pair lives."""
    world = await serve(cover_ttl=7200)
    daemon = await start(world, **SETTINGS)
    access, refresh = pair("ann")
    world.emulator.add_account("ann", access, refresh_token=refresh)
    await sign_in(application, "ann", access, refresh, lives=30)
    assert (await refresher(*ATTACH))[0] == 0
    await daemon.until_event("token.refreshed")

    async def lives():
        return await is_live(world, "ann")

    await eventually(lives, "a living pair")
    assert await daemon.stopped() == 0


# --- Two tables with tokens of one account ---

SECOND = """
CREATE TABLE brands (uid text UNIQUE, act text, rft text, expires timestamptz, title text)
"""
OF_BRANDS = (
    *("attach", "--table", "public.brands", "--open-id", "uid", "--access-token", "act"),
    *("--refresh-token", "rft"),
)


async def store_brand(pool, name, access, refresh):
    await pool.execute(
        "INSERT INTO brands (uid, act, rft) VALUES ($1, $2, $3)"
        " ON CONFLICT (uid) DO UPDATE SET act = $2, rft = $3",
        name,
        access,
        refresh,
    )


async def walked(pool):
    """As a daemon does within an hour."""
    for attached in await read_attachments(pool):
        attachment = replace(attached, walked_at=None)  # so that no step is left to later
        more = True
        while more:
            _, more = await walk_step(pool, attachment, lambda *said: pytest.fail(str(said)))


@pytest.fixture
async def two(application, refresher):
    """Ann has the same pair in both tables, and both are attached."""
    tokens = pair("ann")
    await application.execute(SECOND)
    await sign_in(application, "ann", *tokens)
    await store_brand(application, "ann", *tokens)
    assert (await refresher(*ATTACH))[0] == 0
    assert (await refresher(*OF_BRANDS))[0] == 0
    return application


async def test_the_newest_authorization_of_two_tables_wins_and_each_is_taken_once(two):
    """However often either table is looked at, and however many come after an old one."""
    assert await applied(two) == 0
    for _ in range(3):
        newest = pair("ann")
        await store_brand(two, "ann", *newest)
        assert await applied(two) == 1
        await walked(two)
        assert (await row_of(two, "ann"))["refresh_token"] == newest[1]
    newest = pair("ann")
    await sign_in(two, "ann", *newest)
    assert await applied(two) == 1
    for _ in range(40):  # more than are remembered of an account
        newest = pair("ann")
        await store_brand(two, "ann", *newest)
        assert await applied(two) == 1
        await walked(two)
    await two.execute('UPDATE "Account" SET refresh_token = refresh_token, scope = NULL')
    await applied(two)
    assert (await row_of(two, "ann"))["refresh_token"] == newest[1]


async def test_an_account_is_paused_when_no_table_has_it_any_more(two):
    """And neither table then changes what the other one has said."""
    newest = pair("ann")
    await store_brand(two, "ann", *newest)
    await applied(two)
    await two.execute("DELETE FROM brands")
    for _ in range(2):
        await applied(two)
        await walked(two)
        assert await standing(two, "ann") == ("active", None)
    assert (await row_of(two, "ann"))["refresh_token"] == newest[1]
    await two.execute('DELETE FROM "Account"')
    await applied(two)
    assert await standing(two, "ann") == ("paused", "deleted_by_application")
    await walked(two)
    assert await standing(two, "ann") == ("paused", "deleted_by_application")
    await store_brand(two, "ann", *newest)
    await applied(two)
    await walked(two)
    assert await standing(two, "ann") == ("active", None)


async def test_accounts_of_a_detached_table_are_those_of_the_other(two, refresher):
    """What is deleted there pauses the account, as before the detach."""
    assert (await refresher("detach", "--table", "public.Account"))[0] == 0
    await walked(two)
    await two.execute("DELETE FROM brands")
    await applied(two)
    assert await standing(two, "ann") == ("paused", "deleted_by_application")


async def test_two_tables_that_bring_one_pair_at_once_bring_it_once(two):
    """The second waits for the first, and then finds that it was taken."""
    newest = pair("ann")
    await store_brand(two, "ann", *newest)
    await sign_in(two, "ann", *newest)
    look = "SELECT added FROM refresher.attached_{}_look_at(ARRAY['ann'])"
    names = [each.name for each in await read_attachments(two)]
    async with two.acquire() as one, two.acquire() as other:
        async with one.transaction():
            assert await one.fetchval(look.format(names[0])) == 1
            second = asyncio.create_task(other.fetchval(look.format(names[1])))
            await eventually(lambda: waits_for_a_lock(two), "the second waits")
        assert await second == 0
    assert (await row_of(two, "ann"))["refresh_token"] == newest[1]


async def test_a_table_with_other_tokens_of_an_account_is_refused(application, refresher):
    """Which of the two are newer, nobody can say."""
    await application.execute(SECOND)
    await sign_in(application, "ann", *pair("ann"))
    await store_brand(application, "ann", *pair("ann"))
    await store_brand(application, "bob", *pair("bob"))
    assert (await refresher(*ATTACH))[0] == 0
    assert await refresher(*OF_BRANDS) == (
        2,
        "",
        (
            "refresher: public.brands: expected accounts of which no attached table has tokens, but of"
            " 1 one has others, for example 'ann': which are newer, nobody can say; leave them out"
            " with --where, or detach the other table\n"
        ),
    )
    assert (await refresher(*OF_BRANDS, "--where", "uid <> 'ann'"))[0] == 0
