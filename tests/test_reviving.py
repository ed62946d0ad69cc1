"""The ways in which an account becomes active again, and what they have in common."""

import pytest

from refresher.csv_files.rows import AccountRow
from refresher.domain.model import TokenPair
from refresher.domain.pacing import Pace
from refresher.postgres.accounts import Accounts
from refresher.postgres.imports import import_accounts
from refresher.postgres.sealing import Sealer
from refresher.postgres.status import set_state
from refresher.postgres.tokens import TokenStore

STATES = {"needs_reauthorization", "needs_scope", "paused"}
SEALER = Sealer(())


async def begin_renewal(pool):
    """A token request under way for a new account, as what stores its pair."""
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, access_token, access_token_expires_at,"
        " refresh_token) VALUES ('ana', 'act.old', now() - interval '1 s', 'rft.old')"
    )
    accounts = Accounts(
        pool,
        replica="a",
        pace=Pace(0, 0, lease_seconds=60),
        managed=True,
    )
    (claim,) = await accounts.claim(10)
    store = TokenStore(pool, SEALER)
    used = await store.begin(claim)
    pair = TokenPair("act.new", 7200.0, "rft.new", 86_400.0, "video.list")
    return lambda: store.replace(claim, used, pair, 3600.0)


async def an_application(pool, _):
    await pool.execute("UPDATE refresher.accounts SET access_token = 'act.new'")


async def an_import(pool, _):
    row = AccountRow(1, "ana", "act.new", None, "rft.new", None, None)
    await import_accounts(pool, [row], SEALER)


async def a_renewed_pair(_, replace):
    assert await replace()


async def an_operator(pool, _):
    await set_state(pool, "ana", "active", None)


@pytest.mark.parametrize("state", sorted(STATES))
@pytest.mark.parametrize(
    ("way", "ends"),
    [
        (an_application, STATES - {"paused"}),
        (an_import, STATES - {"paused"}),
        (a_renewed_pair, {"needs_reauthorization"}),
        (an_operator, STATES),
    ],
)
async def test_whatever_revives_an_account_leaves_it_alike(pool, way, ends, state):
    """Active without a reason, since now, and awake; a state that it does not end stays as it is."""
    replace = await begin_renewal(pool)
    await pool.execute(
        "UPDATE refresher.accounts"
        " SET state = $1, state_reason = 'x', state_since = now() - interval '1 hour',"
        " lease_owner = NULL, lease_expires_at = NULL, wake_at = 'infinity'",
        state,
    )
    await way(pool, replace)
    row = await pool.fetchrow(
        "SELECT state, state_reason, state_since > now() - interval '1 minute' AS since_now,"
        " wake_at <= now() AS awake FROM refresher.accounts"
    )
    if state in ends:
        assert tuple(row) == ("active", None, True, True)
    else:
        assert tuple(row)[:3] == (state, "x", False)
