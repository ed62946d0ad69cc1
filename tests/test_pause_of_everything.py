"""`pause --all` and `resume --all`: what the daemons, the log and the commands make of them."""

import json
import re

from refresher.domain.pacing import Pace
from refresher.postgres.accounts import Accounts
from refresher.postgres.claims import CLAIM
from refresher.postgres.status import pause_all, read_paused_since
from tests.conftest import eventually


async def paused_since(pool):
    return await pool.fetchval("SELECT paused_since FROM refresher.app")


async def test_a_daemon_rests_and_goes_on(refresher, start, serve, pool):
    """Videos that come meanwhile wait; after the pause the daemon asks for them by itself."""
    world = await serve()
    await world.add_account("ana", videos=5)
    daemon = await start(world)
    await world.until_valid(5)
    code, out, _ = await refresher("pause", "--all")
    assert (code, out) == (
        0,
        "paused: within one poll daemons begin nothing more; refresher resume --all goes on\n",
    )
    since = (await paused_since(pool)).isoformat()
    assert (await daemon.until_event("fleet.paused"))["since"] == since
    await world.add_videos("ana", 5)
    await world.add_account("ben", videos=5)
    code, _, err = await refresher("once", tiktok_base_url=world.base_url)
    assert (code, err.count("\n")) == (1, 1)
    assert "everything is paused since" in err
    assert "refresher resume --all" in err
    assert await world.valid() == 5
    assert await refresher("resume", "--all") == (
        0,
        f"resumed, paused since {since.replace('T', ' ')[:19]}+00:00\n",
        "",
    )
    assert (await daemon.until_event("fleet.resumed"))["since"] == since
    await world.until_valid(15)
    assert await daemon.stopped() == 0
    assert len(daemon.events("fleet.paused")) == len(daemon.events("fleet.resumed")) == 1


async def test_the_pause_is_said_wherever_an_operator_looks(refresher, pool):
    """In status, first of all, and where somebody resumes a single account."""
    await pool.execute("INSERT INTO refresher.accounts (open_id) VALUES ('ana')")
    assert json.loads((await refresher("status", "--json"))[1])["paused_since"] is None
    await refresher("pause", "--all")
    since = await paused_since(pool)
    _, out, _ = await refresher("status")
    paused = re.sub(r"\((now|\d+ s ago)\)", "(now)", out.splitlines()[0])
    assert paused.split(maxsplit=1) == [
        "paused",
        "everything, since "
        + since.isoformat(sep=" ", timespec="seconds")
        + " (now): resume --all goes on",
    ]
    told = json.loads((await refresher("status", "--json"))[1])
    assert told["paused_since"] == since.isoformat()
    _, out, _ = await refresher("accounts", "resume", "ana")
    assert "; but everything is paused since " in out


async def test_pausing_twice_keeps_the_beginning(refresher, pool):
    """And resuming twice says that there was nothing to do."""
    await refresher("pause", "--all")
    since = await paused_since(pool)
    _, out, _ = await refresher("pause", "--all")
    assert out.startswith(f"paused already, since {since.isoformat(sep=' ')[:19]}")
    assert await paused_since(pool) == since
    await refresher("resume", "--all")
    assert (await refresher("resume", "--all"))[1] == "nothing to resume: not paused\n"


async def test_one_account_is_paused_by_another_command(refresher, pool):
    """Without --all nothing happens: exit 2, with the command for one account."""
    for command in ("pause", "resume"):
        code, out, err = await refresher(command)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert f"expected --all; for one account: refresher accounts {command} OPEN_ID" in err
    assert await paused_since(pool) is None


async def test_a_pause_that_begins_during_once_ends_it(start, serve, pool):
    """It waits for nobody: what is in flight is stored, the rest is said, exit 1."""
    world = await serve(latency_seconds=0.5)
    await world.add_account("ana", videos=400)
    once = await start(world, "once", concurrency=1)

    async def some_are_valid():
        return await world.valid()

    await eventually(some_are_valid, "a cover")
    await pause_all(pool, paused=True)
    assert await once.ended() == 1
    assert "everything is paused since" in once.output.read_text()
    assert 0 < await world.valid() < 400


async def test_no_claim_of_any_kind_takes_an_account_during_a_pause(pool):
    """Claims, trials and the search for an account that stands in the way; by no look at accounts."""
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, access_token) VALUES ('ana', 'act.x')"
    )
    await pool.execute("INSERT INTO refresher.videos (open_id, video_id) VALUES ('ana', '1')")
    accounts = Accounts(pool, replica="a", pace=Pace(600, 0, lease_seconds=60), managed=True)
    await pause_all(pool, paused=True)
    assert await accounts.claim(10) == []
    assert accounts.paused_since == await read_paused_since(pool)
    assert await accounts.claim(10, tried=()) == []
    assert await accounts.claim(10, only=["ana"]) == []
    assert await accounts.claimable(10, ()) == []
    assert await accounts.claimable(10, (), ()) == []
    await pause_all(pool, paused=False)
    assert [claim.open_id for claim in await accounts.claim(10)] == ["ana"]
    assert accounts.paused_since is None


async def test_a_claim_during_a_pause_reads_no_account(pool):
    """However many are due by then, a poll costs the same."""
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, access_token)"
        " SELECT n::text, 'act.x' FROM generate_series(1, 1000) AS n"
    )
    await pause_all(pool, paused=True)
    accounts = Accounts(pool, replica="a", pace=Pace(600, 0, lease_seconds=60))
    values = {**accounts._values(100, 0.0), "skipped": [], "only": None}
    text, *arguments = CLAIM(**values)
    plan = await pool.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {text}", *arguments)
    scans = [node for node in nodes(json.loads(plan)[0]["Plan"]) if "accounts" in relation(node)]
    assert scans
    assert not [node for node in scans if node["Actual Loops"]]


def nodes(plan):
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def relation(node):
    return node.get("Relation Name", "") if "Scan" in node["Node Type"] else ""
