"""`videos retry`: an operator wants videos to be asked for again."""

import pytest

from refresher.domain.pacing import Pace
from refresher.domain.retried import Retried
from refresher.postgres import listing, retries
from refresher.postgres.accounts import Accounts
from tests.test_lists import VIDEOS

LATER = """
UPDATE refresher.accounts SET wake_at = now() + interval '1 day'
"""


CREDENTIALS = {"tiktok_client_key": "key", "tiktok_client_secret": "secret"}
RENEWED_FIRST = ["6 of them only when the dead access token of their account is renewed"]
ELSEWHERE = [
    "6 of them only when another program stores a new access token: this one renews none, as it is set"
]
LOST = ["6 of them only when their user authorizes again: the dead access token is not renewed"]


async def again(pool):
    """The videos that are due now and not gone."""
    rows = await pool.fetch(
        "SELECT open_id, video_id FROM refresher.videos"
        " WHERE due_at <= now() AND gone_at IS NULL AND misses = 0 ORDER BY 1, 2"
    )
    return [" ".join(row) for row in rows]


@pytest.mark.parametrize(
    ("command", "retried", "said"),
    [
        ("--state gone", ["ana 4", "ben 4"], "2 videos to be asked for now\n1 of them only"),
        ("--state missing --account ana", ["ana 3"], "1 video to be asked for now\n"),
        ("3 6 --account ana", ["ana 3", "ana 6"], "2 videos to be asked for now\n"),
        (
            "6",
            ["ana 6", "ben 6"],
            "2 videos to be asked for now\n1 of them only when their account",
        ),
        ("--account ben", [f"ben {n}" for n in range(1, 7)], "6 videos to be asked for now\n6 of"),
    ],
)
async def test_videos_are_asked_for_again(refresher, pool, command, retried, said):
    """Only those that were named; what has to wait for its account is said."""
    await pool.execute(VIDEOS)
    await pool.execute(LATER)
    code, out, _ = await refresher("videos", "retry", *command.split())
    assert code == 0
    assert out.startswith(said)
    assert await again(pool) == retried


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("", "expected VIDEO_ID, --account or --state"),
        ("4 --state gone", "IDs go without --state"),
        ("4 9 --account ana", "VIDEO_ID: expected a stored video of account 'ana', not '9'; add"),
        ("4 8 9", "VIDEO_ID: expected stored videos, not '8', '9'; add it with"),
        ("--account eve", "open_id: expected a known account, not 'eve'; add it with refresher"),
        ("4 --account eve", "open_id: expected a known account, not 'eve'; add it with refresher"),
        ("--state valid", "--state: expected missing, gone, rejected or expired, not 'valid'"),
    ],
)
async def test_what_cannot_be_retried_is_said(refresher, pool, command, complaint):
    """Exit 2, one line that names it, and nothing is changed."""
    await pool.execute(VIDEOS)
    code, out, err = await refresher("videos", "retry", *command.split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert complaint in err
    assert await again(pool) == []


async def test_only_the_accounts_that_have_a_video_are_read(pool, monkeypatch):
    """However many others there are."""
    listed = []

    def list_videos(pool, account=None):
        listed.append(account)
        return listing.list_videos(pool, account=account)

    monkeypatch.setattr(retries, "list_videos", list_videos)
    await pool.execute(VIDEOS)
    await pool.execute("INSERT INTO refresher.accounts (open_id) VALUES ('cleo')")
    await pool.execute("INSERT INTO refresher.videos (open_id, video_id) VALUES ('cleo', '7')")
    found = await retries.find_videos(pool, {"7"}, None)
    assert [(row["open_id"], row["video_id"]) for row in found] == [("cleo", "7")]
    assert listed == ["cleo"]
    assert len(await retries.find_videos(pool, {"3", "6", "7"}, None)) == 5


async def test_a_retried_video_wakes_its_account(pool, monkeypatch):
    """A gone one is due at once; its account, asleep till tomorrow, is claimed with it alone due."""
    monkeypatch.setattr(listing, "VIDEOS_AT_ONCE", 4)
    monkeypatch.setattr(retries, "RETRIED_AT_ONCE", 1)
    await pool.execute(VIDEOS)
    await pool.execute(LATER)
    accounts = Accounts(pool, replica="a", pace=Pace(600, 0, lease_seconds=60))
    assert await accounts.claim(10) == []
    retried = await retries.retry_all(pool, listing.list_videos(pool, "gone"), managed=True)
    assert retried == Retried(videos=2, inactive=1)
    (claim,) = await accounts.claim(10)
    assert [video.video_id for video in claim.videos if video.due] == ["4"]


DEAD = "access_token_expires_at = now() - interval '1 hour'"


@pytest.mark.parametrize(
    ("tokens", "settings", "said"),
    [
        (f"{DEAD}, refresh_token = 'rft.x'", CREDENTIALS, RENEWED_FIRST),
        (DEAD, CREDENTIALS, LOST),
        (f"{DEAD}, refresh_token = 'rft.x'", {}, ELSEWHERE),
        (DEAD, CREDENTIALS | {"token_management": "external"}, ELSEWHERE),
        (
            f"{DEAD}, refresh_token = 'rft.x', refresh_token_expires_at = now()",
            CREDENTIALS,
            LOST,
        ),
        ("refresh_token = NULL", CREDENTIALS, []),
    ],
    ids=[
        "renewed first",
        "no refresh token",
        "no credentials",
        "external",
        "consent ended",
        "alive",
    ],
)
async def test_a_dead_token_is_told(refresher, pool, tokens, settings, said):
    """The videos are due, but nothing is asked with such a token."""
    await pool.execute(VIDEOS)
    await pool.execute(f"UPDATE refresher.accounts SET {tokens} WHERE open_id = 'ana'")
    _, out, _ = await refresher("videos", "retry", "--account", "ana", **settings)
    assert out.splitlines() == ["6 videos to be asked for now", *said]
