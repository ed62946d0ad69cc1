"""docs/answers.md, row by row, against the code that reads the answers."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from refresher.domain.answers import MEANINGS, RENEW, Affects, Reaction, understood
from refresher.domain.due import DuePolicy
from refresher.domain.errors import (
    AccessTokenRefused,
    Throttled,
    TokenRequestFailed,
    UpstreamError,
    UpstreamFailed,
)
from refresher.domain.model import Claim, OpenId, TokenStanding, Video, VideoId
from refresher.domain.pacing import DatabaseTime
from refresher.domain.reconcile import put_aside, reconcile, refused_alone
from refresher.events import EVENTS
from refresher.flow.report import _telling_failure
from refresher.tiktok import client
from refresher.tiktok.query_answer import read_answer
from refresher.tiktok.token_answer import read_token_answer
from refresher.tiktok.wire import build_query
from tests.outcomes import conclude, conclude_token

PAGE = (Path(__file__).parents[2] / "docs" / "answers.md").read_text()
NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
POLICY = DuePolicy(lead=HOUR, spread=HOUR / 2, fallback_ttl=6 * HOUR, missing_limit=5)
ID = VideoId("7400000000000000001")
NO_TOKEN = TokenStanding(generation=1)
FRESH = TokenStanding(generation=1, renewable=True)
RENEWED = TokenStanding(generation=1, renewable=True, renewed=True)
STATUSES = (200, 400, 401, 403, 404, 429, 500, 502, 503, 504)
UNKNOWN = ("internal_error", "something_nobody_has_seen", "a_code_of_next_year")
NO_ERROR = (
    b"",
    b"<html>Bad Gateway</html>",
    b"{}",
    b"null",
    b'{"error":{}}',
    b'{"data":{"videos":',
)
NO_PAIR = (
    b"",
    b"<html>Bad Gateway</html>",
    b"{}",
    b'{"expires_in":86400}',
    b'{"access_token":"a b","expires_in":86400}',
)


def rows(title: str) -> list[list[str]]:
    """The cells of the table under a heading."""
    section = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def named(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def waits(cell: str) -> list[timedelta]:
    units = {"min": timedelta(minutes=1), "h": HOUR, "days": timedelta(days=1)}
    return [float(n) * units[unit] for n, unit in re.findall(r"([\d.]+) (min|h|days)", cell)]


def told(means, level=None):
    """A meaning as the page puts it."""
    event = EVENTS[means.event]
    return [
        means.affects,
        means.reaction,
        "yes" if means.counted else "no",
        f"`{event.name}`, {event.level}",
    ]


def failed(read, *arguments) -> UpstreamError:
    with pytest.raises(UpstreamError) as raised:
        read(*arguments)
    return raised.value


QUERY_ROWS = rows("The query")
TOKEN_ROWS = rows("The token endpoint")
VIDEO_ROWS = rows("Each video of a good answer")


def first_row(status, code, *, renewable):
    """The row that counts for an answer: "any other" is a code that no row above has named."""
    for row in QUERY_ROWS:
        other = "any other" in row[1] if code else "no error object" in row[1]
        if (
            row[0] in ("any", str(status))
            and (code in named(row[1]) or other)
            and (renewable or "refresh token" not in row[1])
        ):
            return row
    raise AssertionError(f"no row for {status} {code}")


KNOWN = sorted({code for row in QUERY_ROWS if row[0] != "none" for code in named(row[1])})


@pytest.mark.parametrize("token", [NO_TOKEN, FRESH, RENEWED], ids=["none", "fresh", "renewed"])
@pytest.mark.parametrize("status", STATUSES)
def test_the_query_by_status_and_code(status, token):
    """Each status with each code, known or not, and without one: the first row that fits."""
    codes = (*KNOWN, *UNKNOWN)
    answers = [(code, json.dumps({"error": {"code": code}}).encode()) for code in codes]
    for code, body in [*answers, *(("", body) for body in NO_ERROR)]:
        row = first_row(status, code, renewable=token is FRESH)
        error = failed(read_answer, status, {}, body, [ID], NOW.timestamp())
        assert told(understood(error, token).meaning) == row[2:], (status, body, row)


@pytest.mark.parametrize("row", QUERY_ROWS, ids=lambda row: f"{row[0]} {row[1]}")
def test_every_row_of_the_query_counts_for_some_answer(row):
    """None is hidden by another."""
    found = [
        first_row(status, code, renewable=renewable)
        for status in STATUSES
        for code in (*KNOWN, *UNKNOWN, "")
        for renewable in (True, False)
    ]
    assert row in found or row[0] == "none"


def test_no_answer_to_a_query():
    """What the client says where nothing came, and what is not sent at all."""
    failures, unsent = (row for row in QUERY_ROWS if row[0] == "none")
    source = Path(client.__file__).read_text()
    for code in named(failures[1]):
        assert f'"{code}"' in source
        assert told(understood(UpstreamFailed(code), FRESH).meaning) == failures[2:]
    error = failed(build_query, "a\nb", [ID])
    assert [error.code] == named(unsent[1])
    assert told(understood(error, NO_TOKEN).meaning) == unsent[2:]


def test_every_meaning_is_told():
    """Of the code, nothing is left out of the page: no meaning, nobody affected, no reaction."""
    cells = [row[2:] for row in QUERY_ROWS + TOKEN_ROWS]
    for means in (*MEANINGS.values(), RENEW):
        assert told(means) in cells
    assert {row[2] for row in QUERY_ROWS + TOKEN_ROWS} == set(Affects)
    assert {row[3] for row in QUERY_ROWS + TOKEN_ROWS} == set(Reaction)


#: What a release shows of each reaction. Here a new one is found to do something.
DOES = {
    Reaction.RETRY: lambda release: release.retry_seconds > 0,
    Reaction.BISECT: lambda release: (release.failures, release.retry_seconds) == (0, 0.0),
    Reaction.PAUSE: lambda release: release.pause_seconds > 0 and not release.quota_spent,
    Reaction.WAIT: lambda release: release.pause_seconds > 0 and release.quota_spent,
    Reaction.RENEW: lambda release: release.refused and release.park is None,
    Reaction.REAUTHORIZE: lambda release: release.park.state == "needs_reauthorization",
    Reaction.EXTEND_SCOPE: lambda release: release.park.state == "needs_scope",
}


@pytest.mark.parametrize("token", [NO_TOKEN, FRESH], ids=["none", "fresh"])
@pytest.mark.parametrize("error", MEANINGS, ids=lambda error: error.__name__)
def test_every_reaction_does_something(error, token):
    """It shows in the release of an account that was well; but only a counted one is a failure."""
    failed_once = error("code", status=500)
    means = understood(failed_once, token).meaning
    if means.affects is not Affects.APP:  # no query is answered so
        well = replace(claim(token), failures=0)
        release = conclude(well, [failed_once], 0.5)
        assert DOES[means.reaction](release)
        assert (release.failures > 0) == means.counted


def test_a_pause_is_told_with_the_code_of_its_429():
    """Not with that of a token that is renewed beside it: a 401 that parks nobody."""
    refused = understood(AccessTokenRefused("access_token_invalid", status=401), FRESH)
    throttled = understood(Throttled("rate_limit_exceeded", status=429), FRESH)
    work = SimpleNamespace(failures=[refused, throttled])
    assert _telling_failure(work) is throttled


# --- The token endpoint ---


def token_failures(row):
    """The errors that the answers of a row are read as."""
    codes = named(row[1])
    if row[0] == "none":
        return [UpstreamFailed(code) for code in codes]
    if row[1] == "no error, no pair":
        bodies = list(NO_PAIR)
    else:
        bodies = [json.dumps({"error": code}).encode() for code in codes or UNKNOWN]
    return [
        failed(read_token_answer, status, {}, body, NOW.timestamp())
        for status in STATUSES
        for body in bodies
    ]


def claim(token):
    time = DatabaseTime(NOW, 0.0)
    return Claim(OpenId("ana"), "act.x", 7, NOW, 3, [], NOW, 0.1, time, token)


@pytest.mark.parametrize("row", TOKEN_ROWS, ids=lambda row: row[1])
@pytest.mark.parametrize("token", [FRESH, RENEWED], ids=["fresh", "renewed"])
def test_the_token_endpoint(row, token):
    """Whatever the status; where the answer tells nothing, it is as for an error that may pass."""
    for error in token_failures(row):
        if row[1] == "no error, no pair" or row[0] == "none":
            passing = TokenRequestFailed("server_error")
            concluded = conclude_token(claim(token), error, 0.5, 30.0)
            expected = conclude_token(claim(token), passing, 0.5, 30.0)
            assert concluded == replace(expected, last_failure=concluded.last_failure)
            assert not isinstance(error, TokenRequestFailed), "it may have been used up"
            assert told(MEANINGS[TokenRequestFailed]) == row[2:]
        else:
            assert told(understood(error, token).meaning) == row[2:]
            assert not named(row[1]) or error.code in named(row[1])


def test_a_throttled_token_request_heeds_what_the_reply_wishes():
    """429 with Retry-After, as for a query."""
    error = failed(read_token_answer, 429, {"Retry-After": "100"}, b"", NOW.timestamp())
    assert conclude_token(claim(FRESH), error, 0.5, 30.0).token_retry_seconds >= 100


def test_an_error_in_the_querys_shape_parks_nobody():
    """The token endpoint does not speak so: it says nothing of the refresh token."""
    body = json.dumps({"error": {"code": "internal_error"}}).encode()
    error = failed(read_token_answer, 401, {}, body, NOW.timestamp())
    assert conclude_token(claim(RENEWED), error, 0.5, 30.0).park is None


# --- The videos of a good answer ---


def video(misses, *, missing=False):
    return Video(ID, True, (NOW + HOUR).timestamp(), misses, missing)


def url(life):
    return f"https://example.com/c?x-expires={int((NOW + life).timestamp())}"


def concluded(outcome, misses):
    """What becomes of a video, after so many answers in a row that were no better."""
    asked = video(misses, missing=outcome == "missing" and misses > 0)
    match outcome:
        case "refreshed":
            return reconcile(POLICY, OpenId("ana"), [asked], {ID: url(24 * HOUR)}, NOW)
        case "unchanged":
            return reconcile(POLICY, OpenId("ana"), [asked], {ID: url(HOUR)}, NOW)
        case "missing":
            return reconcile(POLICY, OpenId("ana"), [asked], {}, NOW)
        case "rejected":
            return reconcile(POLICY, OpenId("ana"), [asked], {ID: url(-HOUR)}, NOW)
        case "refused alone":
            return refused_alone([asked], "invalid_params", NOW)
        case "put aside":
            return put_aside(POLICY, [asked], "invalid_params", NOW)
    raise AssertionError(outcome)


@pytest.mark.parametrize("row", VIDEO_ROWS, ids=lambda row: row[2])
def test_the_videos_of_an_answer(row):
    """What it is counted as, what is written, how long it waits, and what is logged."""
    _, affects, outcome, wait_cell, failure, event = row
    assert (affects, failure) == ("video", "no")
    longest = waits(wait_cell)
    for misses, wait in enumerate([*longest, longest[-1]] if longest else [None]):
        result = concluded(outcome, misses)
        (write,) = result.writes
        counts = {
            "refreshed": result.refreshed,
            "unchanged": result.unchanged,
            "missing": result.missing,
        }
        assert sum(counts.values()) + len(result.rejections) == 1
        assert counts.get(outcome, len(result.rejections)) == 1
        assert write.video_ids == [ID]
        covered = outcome == "refreshed"
        assert write.cover_expires_at == (NOW + 24 * HOUR if covered else None)
        assert write.urls == ([url(24 * HOUR)] if covered else [])
        assert (write.refusal is not None) == (outcome == "refused alone")
        assert event == (
            "`video.rejected`, warning" if result.rejections else "`account.refreshed`, info"
        )
        if wait and wait_cell.startswith("half to all"):
            assert wait / 2 <= write.due_at - NOW <= wait
        elif wait:
            assert write.due_at - NOW == wait
    assert all(earlier < later for earlier, later in pairwise(longest))


def test_every_event_of_the_page_is_one_with_its_level():
    """In whatever table."""
    for row in (*QUERY_ROWS, *VIDEO_ROWS, *TOKEN_ROWS):
        (name,) = named(row[-1])
        assert row[-1] == f"`{name}`, {EVENTS[name].level}"
