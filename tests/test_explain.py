"""`explain` and `accounts show`: what they say is what the claim does."""

import json
import random
import re
from dataclasses import dataclass

import pytest

from refresher.domain.claiming import Turn
from refresher.domain.explain import READY, explain
from refresher.domain.gates import Mark
from refresher.domain.pacing import Pace
from refresher.postgres.accounts import Accounts
from refresher.postgres.explain import (
    ACCOUNTS_OF_VIDEO,
    EXPLAIN,
    accounts_of_video,
    parameters,
    read_facts,
)
from tests.conftest import check_output, environment, partition_videos

PACE = Pace(600, 0, lease_seconds=60)
VIDEOS = ("v1", "v2", "v3", "v4")
URL = "https://p16.example/obj/cover?x-expires=1&x-signature=abc%3D"


async def explained(pool, *open_ids, video_id=None, **other):
    given = {"pace": PACE, "managed": False, "poll_seconds": 5, **other}
    facts = await read_facts(pool, open_ids, video_id, **given)
    return {each.account.open_id: explain(each) for each in facts}


async def store(pool, open_id, videos=1):
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, access_token) VALUES ($1, 'act.x')", open_id
    )
    await pool.execute(
        "INSERT INTO refresher.videos (open_id, video_id)"
        " SELECT $1, 'v' || n FROM generate_series(1, $2::integer) AS n",
        open_id,
        videos,
    )


# --- Against the claim ---


#: Far from the moment at which a decision turns, however slow the machine.
SOON, LONG_AGO, LATER = "-1 minute", "-2 hours", "1 hour"
TIMES = (SOON, SOON, SOON, LATER)
SET_ACCOUNT = """
UPDATE refresher.accounts
SET state = $2, wake_at = now() + $3::text::interval,
    lease_owner = 'other', lease_expires_at = now() + $4::text::interval,
    next_slot_at = coalesce(now() + $5::text::interval, '-infinity'),
    access_token_expires_at = now() + $6::text::interval, token_standing = $7,
    token_failures = $8, token_due_at = coalesce(now() + $9::text::interval, 'infinity'),
    token_request_until = now() + $10::text::interval,
    failures = $11, isolated_since = now() + $12::text::interval, isolated_reason = 'x',
    earliest_due_at = now() + $13::text::interval, videos = 4
WHERE open_id = $1
"""


@dataclass
class Chance:
    """Rows by chance, mostly of accounts that are well."""

    draw: random.Random

    def account(self):
        pick = self.draw.choice
        return (
            pick(("active",) * 6 + ("paused", "needs_scope")),
            pick(TIMES),
            pick((None, None, SOON, LATER)),
            pick((None, SOON, "2 seconds", LATER)),
            pick((None, None, SOON, LATER)),
            pick(("trusted", "trusted", "renewed", "refused")),
            pick((0, 0, 2)),
            pick((None, SOON, LATER)),
            pick((None, None, SOON, LATER)),
            pick((0, 0, 3)),
            pick((None, None, SOON)),
            pick(TIMES),
        )

    def video(self):
        pick = self.draw.choice
        return pick((LONG_AGO, SOON, LATER)), pick((0, 0, 2)), pick((None, None, "invalid_params"))


async def populate(pool, accounts, seed):
    chance = Chance(random.Random(seed))
    names = [f"account-{number:03}" for number in range(accounts)]
    for name in names:
        await store(pool, name, chance.draw.randint(1, len(VIDEOS)))
    tokens = [(name, chance.draw.choice(("rft.x", None))) for name in names]
    await pool.executemany(
        "UPDATE refresher.accounts SET refresh_token = $2 WHERE open_id = $1", tokens
    )
    await pool.executemany(
        "UPDATE refresher.videos SET due_at = now() + $3::text::interval, misses = $4, refusal = $5"
        " WHERE open_id = $1 AND video_id = $2",
        [(name, video_id, *chance.video()) for name in names for video_id in VIDEOS],
    )
    await pool.executemany(SET_ACCOUNT, [(name, *chance.account()) for name in names])
    return names


async def claimed(pool, pace=PACE, *, managed):
    replica = Accounts(pool, replica="a", pace=pace, managed=managed)
    found = {}
    while claims := await replica.claim(1000):
        found |= {claim.open_id: claim for claim in claims}
    return found


@pytest.mark.parametrize("managed", [True, False], ids=["managed", "external"])
@pytest.mark.parametrize("seed", range(2))
async def test_an_account_without_a_closed_gate_is_claimed_and_no_other(pool, managed, seed):
    """For accounts in any state; of each claim the videos are those whose turn it is."""
    names = await populate(pool, 150, seed)
    told = await explained(pool, *names, managed=managed)
    turns = {
        video_id: await explained(pool, *names, video_id=video_id, managed=managed)
        for video_id in VIDEOS
    }
    claims = await claimed(pool, managed=managed)
    assert 10 < len(claims) < 140
    assert {name for name in names if told[name].facts.account.claimable} == claims.keys()
    assert {name for name in names if told[name].reason == READY} == claims.keys()
    for name, claim in claims.items():
        videos = [turns[video_id][name].facts.video for video_id in VIDEOS]
        expected = [] if claim.token.due else wanted([video for video in videos if video])
        assert {video.video_id for video in claim.videos} in expected or [set()], name


def wanted(videos):
    """The sets of videos that a claim may take of an account of one chunk."""
    by_turn = {turn: [video for video in videos if video.turn == turn] for turn in Turn}
    if alone := by_turn[Turn.STARVED]:
        first = min(video.due_at for video in alone)
        return [{video.id} for video in alone if video.due_at == first]
    if due := by_turn[Turn.DUE]:
        return [{video.id for video in due + by_turn[Turn.TOP_UP]}]
    return [{video.id} for video in by_turn[Turn.ALONE]] or [set()]


async def test_the_apps_next_slot_is_a_gate_for_all(pool):
    """A claim finds no slot of the app, and the explanation says so."""
    pace = Pace(600, 60, lease_seconds=60)
    await store(pool, "ana")
    await pool.execute("UPDATE refresher.app SET next_slot_at = now() + interval '1 minute'")
    told = (await explained(pool, "ana", video_id="v1", pace=pace))["ana"]
    assert (told.reason, told.facts.account.claimable) == ("app_rate", True)
    assert await claimed(pool, pace, managed=False) == {}
    assert told.next_ask_at == told.facts.app.next_slot_at
    await pool.execute("UPDATE refresher.app SET next_slot_at = '-infinity'")
    assert (await explained(pool, "ana", pace=pace))["ana"].reason == READY
    assert list(await claimed(pool, pace, managed=False)) == ["ana"]


async def test_the_queue_counts_whom_a_claim_takes_first(pool):
    """Accounts that wait longer and could be claimed; with an app's limit it gives a time.

    A large account needs a request for each twenty of its videos.
    """
    for name, minutes in (("ana", 1), ("ben", 3), ("cleo", 2), ("paused", 9)):
        await store(pool, name)
        await pool.execute(
            "UPDATE refresher.accounts SET wake_at = now() - $2::integer * interval '1 minute'"
            " WHERE open_id = $1",
            name,
            minutes,
        )
    await pool.execute("UPDATE refresher.accounts SET state = 'paused' WHERE open_id = 'paused'")
    await pool.execute("UPDATE refresher.accounts SET videos = 3990 WHERE open_id = 'ben'")
    told = await explained(pool, "ana", "ben")
    assert [told[name].facts.account.accounts_ahead for name in ("ana", "ben")] == [2, 0]
    assert [told[name].facts.account.requests_ahead for name in ("ana", "ben")] == [201, 0]
    assert told["ana"].expected_at is None
    assert "2 accounts are ahead" in told["ana"].unknown
    assert told["ben"].expected_at
    limited = (await explained(pool, "ana", pace=Pace(600, 60, lease_seconds=60)))["ana"]
    waits = (limited.expected_at - limited.next_ask_at).total_seconds()
    assert waits == pytest.approx(5 + 201 * limited.facts.app.step_seconds)


async def test_a_video_stands_behind_its_accounts_earlier_ones(pool):
    """By due time, as the claim takes them."""
    await store(pool, "ana", 3)
    await pool.execute(
        "UPDATE refresher.videos SET due_at = now() - right(video_id, 1)::integer"
        " * interval '1 minute'"
    )
    ahead = [
        (await explained(pool, "ana", video_id=video_id))["ana"].facts.video.ahead
        for video_id in ("v1", "v2", "v3")
    ]
    assert ahead == [2, 1, 0]


async def test_nothing_is_locked_and_nothing_changes(pool):
    """It waits for no lock on the rows, and no row is written."""
    await store(pool, "ana")
    before = await pool.fetch("SELECT xmin, * FROM refresher.accounts")
    async with pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM refresher.accounts FOR UPDATE")
        await other.execute("SELECT FROM refresher.videos FOR UPDATE")
        assert (await explained(pool, "ana", video_id="v1"))["ana"].reason == READY
    assert await pool.fetch("SELECT xmin, * FROM refresher.accounts") == before


@pytest.mark.parametrize(
    ("credentials", "minutes", "managed", "said"),
    [
        ("old", 9, True, "TikTok refuses the app credentials"),
        ("new", 9, True, "put off 1 time"),
        ("old", 11, True, "put off 1 time"),
        ("old", 9, False, "not renewed by this program as set"),
    ],
    ids=["in use", "replaced", "long ago", "external"],
)
async def test_only_the_app_credentials_in_use_are_called_refused(
    pool, credentials, minutes, managed, said
):
    """For as long as status, doctor and page say so. When its account is claimed is not changed."""
    await store(pool, "ana")
    await pool.execute(
        "UPDATE refresher.accounts SET access_token_expires_at = now() - interval '1 hour',"
        " refresh_token = 'rft.x';"  # new tokens end a wait
        "UPDATE refresher.accounts SET token_failures = 1,"
        " token_due_at = now() + interval '4 minutes'"
    )
    await pool.execute(
        "UPDATE refresher.app SET refused_client = 'old',"
        " client_refused_at = now() - $1::integer * interval '1 minute'",
        minutes,
    )
    told = (await explained(pool, "ana", managed=managed, credentials=credentials))["ana"]
    (value,) = [gate.value for gate in told.gates if gate.name == "token"]
    assert said in value
    assert told.facts.account.claimable is not managed


# --- A video ID alone ---


async def test_a_video_is_found_under_every_account(pool):
    """Its key is both; unknown ones are found nowhere."""
    await store(pool, "ben")
    await store(pool, "ana")
    assert await accounts_of_video(pool, "v1") == ["ana", "ben"]
    assert await accounts_of_video(pool, "v9") == []


@pytest.mark.parametrize("partitions", [None, 4], ids=["plain", "partitioned"])
async def test_videos_are_only_looked_up_by_their_key(database, pool, partitions):
    """A table of any size is never read as a whole."""
    if partitions:
        await partition_videos(database, partitions)
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id) SELECT 'ana' || n FROM generate_series(1, 500) n"
    )
    await pool.execute(
        "INSERT INTO refresher.videos (open_id, video_id)"
        " SELECT 'ana' || n, 'v' || m FROM generate_series(1, 500) n, generate_series(1, 20) m"
    )
    await pool.execute("ANALYZE refresher.accounts, refresher.videos")
    for statement, values in (
        (ACCOUNTS_OF_VIDEO, {"video_id": "v7", "part": 0}),
        (EXPLAIN, {**parameters(["ana7"], "v7", pace=PACE, managed=True), "credentials": None}),
    ):
        text, *given = statement(**values)
        async with pool.acquire() as connection:
            (plan,) = json.loads(await connection.fetchval(f"EXPLAIN (FORMAT JSON) {text}", *given))
        scans = [node for node in nodes(plan["Plan"]) if "videos" in node.get("Relation Name", "")]
        assert scans
        assert "Seq Scan" not in {node["Node Type"] for node in scans}


def nodes(plan):
    yield plan
    for part in plan.get("Plans", []):
        yield from nodes(part)


# --- As an operator types it ---


@pytest.fixture
def refresher(database, tmp_path, launcher):
    """Run a command to its end; (exit code, stdout, stderr)."""

    async def run(*command, url=database, **settings):
        code, out, err = await launcher.run(
            *command, environment=environment(url, **settings), folder=tmp_path
        )
        check_output(out + err)
        return code, out, err

    return run


async def test_the_verdict_comes_first_and_every_gate_has_its_line(refresher, pool):
    """No line holds a token or a URL's signature."""
    await store(pool, "ana")
    await pool.execute(
        "UPDATE refresher.videos SET cover_image_url = $1, refreshed_at = now(),"
        " cover_expires_at = now() + interval '5 hours 12 minutes 30 seconds',"
        " due_at = now() + interval '4 hours'",
        URL,
    )
    await pool.execute("UPDATE refresher.accounts SET wake_at = now() + interval '4 hours'")
    code, out, err = await refresher("explain", "v1")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0].startswith("video v1 of account ana: Cover is valid for 5 h 12 min; asked for")
    assert [line.split()[1] for line in lines[2:6]] == ["state", "consent", "scope", "token"]
    marked = {line[2:10].strip(): line[0] for line in lines[2:14]}
    assert (marked["state"], marked["wake up"], marked["video"]) == ("✓", "…", "…")
    assert "https://p16.example/obj/cover" in out
    assert "x-expires" not in out


async def test_the_same_for_programs(refresher, pool):
    """Stable names; all accounts of a video, or the one that is named."""
    for name in ("ana", "ben"):
        await store(pool, name)
    await pool.execute("UPDATE refresher.videos SET cover_image_url = $1", URL)
    code, out, _ = await refresher("explain", "v1", "--json")
    told = json.loads(out)["explained"]
    assert (code, [each["open_id"] for each in told]) == (0, ["ana", "ben"])
    assert told[0].keys() == {
        "open_id", "video_id", "at", "verdict", "reason", "gates", "cover", "last_failure",
        "next_ask_at", "expected_at", "unknown", "accounts_ahead", "command", "commands",
    }  # fmt: skip
    assert {gate["state"] for gate in told[0]["gates"]} <= {mark.value for mark in Mark}
    assert told[0]["cover"]["url_without_query"] == "https://p16.example/obj/cover"
    code, out, _ = await refresher("explain", "v1", "--account", "ben", "--json")
    assert [each["open_id"] for each in json.loads(out)["explained"]] == ["ben"]
    code, out, _ = await refresher("explain", "--account", "ben", "--json")
    (told,) = json.loads(out)["explained"]
    assert (told["video_id"], told["cover"]) == (None, None)


async def test_a_dead_account_names_what_killed_it_and_what_to_do(refresher, pool):
    """Since when, TikTok's code and log_id, and that its user must authorize again."""
    await store(pool, "-ana")
    await pool.execute(
        "UPDATE refresher.accounts SET state = 'needs_reauthorization', state_since = now(),"
        " state_reason = 'invalid_grant', last_failure_at = now(), last_failure_code ="
        " 'invalid_grant', last_failure_http_status = 400, last_failure_log_id = '2026AB'"
    )
    code, out, _ = await refresher("explain", "--account", "-ana")
    assert code == 0
    first = out.splitlines()[0]
    assert "its user must authorize again (invalid_grant, HTTP 400, log_id 2026AB)" in first
    assert "to change it    let the user authorize again" in out
    await pool.execute("UPDATE refresher.accounts SET state = 'paused'")
    code, out, _ = await refresher("explain", "--account", "-ana")
    assert "refresher accounts resume -ana" in out
    assert "\n✗ state " in out


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (("explain",), "VIDEO_ID, --account: expected one of them, or both"),
        (("explain", "v9"), "VIDEO_ID: expected a stored video, not 'v9'; add it with refresher"),
        (("explain", "--account", "eve"), "open_id: expected a known account, not 'eve'; add it"),
        (("explain", "v1", "--account", "ben"), "not 'v1'; it is stored under 'ana'"),
        (("explain", "v9", "--account", "ben"), "not 'v9'; add it with refresher videos import"),
        (("accounts", "show", "eve"), "open_id: expected a known account, not 'eve'; add it with"),
    ],
    ids=["nothing", "video", "account", "elsewhere", "nowhere", "show"],
)
async def test_what_is_unknown_is_said_in_one_line(refresher, pool, command, complaint):
    """It names the value and what to do; exit code 2."""
    await store(pool, "ana")
    await pool.execute("INSERT INTO refresher.accounts (open_id) VALUES ('ben')")
    code, out, err = await refresher(*command)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert complaint in err


async def test_a_database_that_is_away_is_said(refresher):
    """In one line, at once."""
    code, out, err = await refresher("explain", "v1", url="postgresql://127.0.0.1:9/none")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("refresher: database: ")


async def test_foreign_text_cannot_move_the_cursor(refresher, pool):
    """What TikTok called an error is printed without control characters."""
    await store(pool, "ana")
    await pool.execute("UPDATE refresher.accounts SET last_failure_code = E'\\x1b[2Jbad'")
    _, out, _ = await refresher("explain", "--account", "ana")
    assert "\x1b" not in out
    assert "[2Jbad" in out


async def test_an_account_that_was_passed_over_is_awake(refresher, pool):
    """Since when is not known: no time is made up, for people and for programs."""
    await store(pool, "ana")
    await pool.execute("UPDATE refresher.accounts SET wake_at = '-infinity'")
    for command in ("explain --account ana", "accounts show ana"):
        _, out, _ = await refresher(*command.split())
        assert re.search(r"wakes? .*awake$", out, re.MULTILINE)
        assert "0001-01-01" not in out
    (told,) = json.loads((await refresher("explain", "v1", "--json"))[1])["explained"]
    (gate,) = [gate for gate in told["gates"] if gate["name"] == "wake_up"]
    assert (gate["state"], gate["value"], gate["since"]) == ("open", "awake", None)
    assert (told["reason"], told["next_ask_at"]) == (READY, told["at"])
    shown = json.loads((await refresher("accounts", "show", "ana", "--json"))[1])
    assert (shown["awake"], shown["wake_at"]) == (True, None)
    await pool.execute("UPDATE refresher.accounts SET wake_at = 'infinity'")
    shown = json.loads((await refresher("accounts", "show", "ana", "--json"))[1])
    assert (shown["awake"], shown["wake_at"]) == (False, None)


async def test_an_account_is_shown_without_its_tokens(refresher, pool):
    """All facts for people, and the same for programs."""
    await store(pool, "ana", 3)
    await pool.execute("UPDATE refresher.accounts SET refresh_token = 'rft.secret'")
    code, out, _ = await refresher("accounts", "show", "ana")
    assert code == 0
    assert "state                  active, since " in out
    assert "there is a refresh token" in out
    code, out, _ = await refresher("accounts", "show", "ana", "--json")
    told = json.loads(out)
    assert (code, told["open_id"], told["state"]) == (0, "ana", "active")
    assert told["tokens"]["has_refresh_token"]
    assert "secret" not in out
