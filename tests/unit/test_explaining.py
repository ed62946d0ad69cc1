"""The verdict, the gates and the command, of plain facts."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from refresher.cli.explain import unsigned
from refresher.cli.output import encodable, printable
from refresher.domain.claiming import Turn
from refresher.domain.due import DuePolicy
from refresher.domain.explain import READY, explain
from refresher.domain.facts import AccountFacts, AppFacts, Facts, VideoFacts
from refresher.domain.gates import Mark
from refresher.domain.model import OpenId
from refresher.domain.pacing import Pace
from refresher.domain.quota import limit_of_token, needed_by

NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)


def at(**delta):
    return NOW + timedelta(**delta)


WELL = AccountFacts(
    open_id=OpenId("ana"), state="active", state_reason=None, state_since=at(days=-9),
    refresh_token_expires_at=at(days=90), scope="user.info.basic,video.list",
    has_access_token=True, has_refresh_token=True, access_token_expires_at=at(hours=3),
    token_standing="trusted", token_failures=0, token_open_id=None, token_due_at=at(hours=2),
    token_request_until=None, lease_owner=None, lease_expires_at=None, failures=0,
    isolated_since=None, isolated_reason=None, next_slot_at=None, wake_at=at(minutes=-1),
    rate_lowered_at=None, requests_since=None, requests=0, videos=60, valid=59, expired=1,
    uncovered=0, missing=0, unreachable=0, earliest_due_at=at(minutes=-1), last_failure_at=None,
    last_failure_code=None, last_failure_http_status=None, last_failure_log_id=None, awake=True,
    free=True, slot_near=True, throttled=False, waits_for_token=False, token_dead=False,
    claimable=True, rate_share=1.0, step_seconds=0.1, accounts_ahead=0, requests_ahead=0,
)  # fmt: skip
POLICY = DuePolicy(timedelta(hours=1), timedelta(minutes=30), timedelta(hours=6), 5)
APP = AppFacts(
    None,
    0.0,
    found=False,
    rate_found=None,
    rate_lowered_at=None,
    next_slot_at=None,
    has_room=True,
    client_refused_at=None,
)
VIDEO = VideoFacts(
    id="77", cover_image_url="https://c", cover_expires_at=at(hours=5, minutes=12),
    refreshed_at=at(hours=-1), missing_since=None, gone_at=None, due_at=at(minutes=-1), misses=0,
    refusal=None, turn=Turn.DUE, ahead=0,
)  # fmt: skip
FAILED = {
    "failures": 2,
    "last_failure_at": at(minutes=-2),
    "last_failure_code": "internal_error",
    "last_failure_http_status": 500,
    "last_failure_log_id": "2026AB",
}
ASLEEP = {"awake": False, "claimable": False, "wake_at": at(minutes=3)}
FAR_SLOT = {"slot_near": False, "claimable": False, "next_slot_at": at(minutes=3)}
WAITS = {
    "waits_for_token": True, "token_dead": True, "claimable": False, "token_failures": 2,
    "token_due_at": at(minutes=3), "access_token_expires_at": at(hours=-1),
}  # fmt: skip


def told(video=VIDEO, app=APP, *, managed=True, limit=None, **account):
    facts = Facts(NOW, replace(WELL, **account), app, video, managed=managed, poll_seconds=5)
    facts = replace(facts, limit=limit)
    return explain(facts)


def gate(explanation, name):
    return next(gate for gate in explanation.gates if gate.name == name)


#: By the gate that is closed: the facts, the end of the verdict, what an operator can do, and when
#: it is asked for next.
CLOSED = {
    "state-paused": (
        {"state": "paused"},
        "its account is paused since 2026-08-23 12:00:00+00:00",
        "refresher accounts resume ana",
        None,
    ),
    "state-parked": (
        {"state": "needs_reauthorization", **FAILED},
        "its user must authorize again (internal_error, HTTP 500, log_id 2026AB)",
        (
            "let the user authorize again, then store the new tokens: refresher accounts import"
            " FILE.csv, or an UPDATE of refresher.accounts"
        ),
        None,
    ),
    "token": (
        WAITS,
        (
            "the access token has expired; its renewal was put off 2 times; asked for again at"
            " 2026-09-01 12:03:00+00:00 (in 3 min)"
        ),
        "refresher accounts resume ana",
        at(minutes=3),
    ),
    "token-under-way": (
        WAITS | {"token_failures": 0, "token_request_until": at(seconds=9)},
        (
            "the access token has expired; a token request is under way; asked for again at"
            " 2026-09-01 12:00:09+00:00 (in 9 s)"
        ),
        None,
        at(seconds=9),
    ),
    "lease": (
        {"free": False, "lease_owner": "host-1", "lease_expires_at": at(seconds=20)},
        "its account is being asked for now, by host-1",
        None,
        NOW,
    ),
    "back_off": (
        ASLEEP | FAILED,
        (
            "waits after 2 failures in a row (internal_error, HTTP 500, log_id 2026AB); asked for again at"
            " 2026-09-01 12:03:00+00:00 (in 3 min)"
        ),
        "refresher accounts resume ana",
        at(minutes=3),
    ),
    "back_off-isolated": (
        ASLEEP | FAR_SLOT | FAILED | {"isolated_since": at(hours=-1), "isolated_reason": "bad"},
        "asked for again at 2026-09-01 12:03:00+00:00 (in 3 min)",
        "refresher accounts resume ana",
        at(minutes=3),
    ),
    "pause-minute": (
        FAR_SLOT | FAILED | {"throttled": True, "rate_lowered_at": at(minutes=-2)},
        (
            "pauses for TikTok's rate limit (internal_error, HTTP 500, log_id 2026AB); asked for again at"
            " 2026-09-01 12:03:00+00:00 (in 3 min)"
        ),
        None,
        at(minutes=3),
    ),
    "pause-day": (
        FAR_SLOT | ASLEEP | FAILED | {"throttled": True, "rate_lowered_at": at(hours=-2)},
        (
            "pauses for TikTok's quota of the day (internal_error, HTTP 500, log_id 2026AB); asked for"
            " again at 2026-09-01 12:03:00+00:00 (in 3 min)"
        ),
        None,
        at(minutes=3),
    ),
    "slot": (
        FAR_SLOT | {"step_seconds": 61.2},
        (
            "waits for a slot of its account: one in 1 min 1 s, and the next ones are taken; asked for"
            " again at 2026-09-01 12:03:00+00:00 (in 3 min)"
        ),
        None,
        at(minutes=3),
    ),
    "wake_up": (
        ASLEEP | {"earliest_due_at": at(minutes=3)},
        "asked for again at 2026-09-01 12:03:00+00:00 (in 3 min)",
        None,
        at(minutes=3),
    ),
    "wake_up-never": (
        ASLEEP | {"wake_at": None, "earliest_due_at": None},
        "asked for again when it has a video to ask for",
        None,
        None,
    ),
}


@pytest.mark.parametrize("case", CLOSED)
def test_a_closed_gate_is_the_reason(case):
    """The verdict says it, with what can be done and when it is asked for next."""
    account, words, command, asked = CLOSED[case]
    explanation = told(**account)
    assert explanation.reason == case.partition("-")[0]
    assert explanation.verdict.startswith("Cover is valid for 5 h 12 min; ")
    assert explanation.verdict.endswith(words)
    assert (explanation.command, explanation.next_ask_at) == (command, asked)


@pytest.mark.parametrize(
    ("account", "app", "reason"),
    [
        ({"free": False, "lease_owner": "host-1", "lease_expires_at": at(seconds=20)}, {}, "video"),
        ({}, {"step_seconds": 2.0, "has_room": False, "next_slot_at": at(seconds=1)}, "video"),
        ({"state": "paused"}, {}, "state"),
        (WAITS, {}, "video"),
        (WAITS | {"token_due_at": at(hours=5)}, {}, "token"),
    ],
    ids=["lease", "app-rate", "paused", "token-first", "token-last"],
)
def test_what_opens_in_a_second_is_not_why_a_cover_waits(account, app, reason):
    """The reason is the closed gate that opens last, or never by itself."""
    video = replace(VIDEO, turn=Turn.TOP_UP, due_at=at(hours=4))
    explanation = told(video, replace(APP, **app), **account)
    assert explanation.reason == reason
    if reason == "video":
        assert explanation.next_ask_at == at(hours=4)
        assert "; asked for again at 2026-09-01 16:00:00+00:00 (in 4 h)" in explanation.verdict


def test_an_account_of_which_all_gates_are_open_waits_for_its_turn():
    """The next look of a daemon takes it."""
    explanation = told()
    assert explanation.reason == READY
    assert {each.mark for each in explanation.gates} == {Mark.OPEN}
    assert explanation.verdict == (
        "Cover is valid for 5 h 12 min; waiting: it is the next to be asked for; expected by"
        " 2026-09-01 12:00:05+00:00 (in 5 s)"
    )
    assert (explanation.expected_at, explanation.command) == (at(seconds=5), None)


def test_an_account_that_needs_more_than_its_limit_is_told_so():
    """Whatever its gates say: it is asked for, but too rarely."""
    needed = needed_by("its 4,000 videos need", 200, POLICY, 1.0, 900.0)
    explanation = told(limit=limit_of_token(Pace(10, 0, lease_seconds=60), needed))
    assert explanation.reason == READY
    assert gate(explanation, "slot").mark is Mark.TROUBLE
    assert ". Its 4,000 videos need 20.0 requests a minute as covers fall due, 204% of the 9.8" in (
        explanation.verdict
    )
    assert explanation.command.startswith("set REFRESHER_RATE_LIMIT_PER_TOKEN to 26 or more")


def test_a_renewal_that_was_put_off_is_told_before_the_token_dies():
    """With its remedy, and without an answer that has nothing to do with it."""
    refused = replace(APP, client_refused_at=at(minutes=-2))
    explanation = told(app=refused, token_failures=1, **ASLEEP)
    assert gate(explanation, "token").mark is Mark.TROUBLE
    assert explanation.verdict.endswith(
        ". Its access token ends at 2026-09-01 15:00:00+00:00 (in 3 h), and TikTok refuses the app"
        " credentials, so it is not renewed"
    )
    assert told(app=refused, **ASLEEP).verdict == explanation.verdict, "it was not tried so far"
    for which_no_credentials_help in (
        {"refresh_token_expires_at": at(hours=-1)}, {"has_refresh_token": False}
    ):  # fmt: skip
        assert "app credentials" not in told(app=refused, **which_no_credentials_help).verdict
    untried = {"token_dead": True, "access_token_expires_at": at(minutes=-1)}
    for state in ("active", "paused"):
        dead = told(app=refused, **untried, state=state)
        assert gate(dead, "token").mark is Mark.TROUBLE
        assert ("TikTok refuses the app credentials" in dead.verdict) == (state == "active")
    put_off = told(token_failures=1, access_token_expires_at=None, **ASLEEP)
    assert put_off.verdict.endswith(". Its renewal was put off 1 time")
    assert explanation.command.startswith("correct REFRESHER_TIKTOK_CLIENT_KEY")
    dead = told(app=refused, **WAITS | FAILED)
    assert "internal_error" not in dead.verdict
    assert gate(dead, "token").since == at(hours=-1)


def test_with_a_queue_and_no_limit_of_the_app_nobody_knows_how_long():
    """With a limit it is the app's next slot and those of all requests that are ahead."""
    queued = told(accounts_ahead=42)
    assert queued.expected_at is None
    assert "42 accounts are ahead" in queued.unknown
    app = replace(APP, step_seconds=1.0, next_slot_at=at(seconds=2))
    limited = told(app=app, accounts_ahead=42, requests_ahead=240)
    assert limited.expected_at == at(seconds=2 + 240 + 5)


def test_chunks_of_its_own_account_come_first():
    """One slot for every twenty videos that were due before."""
    video = replace(VIDEO, ahead=45)
    explanation = told(video, step_seconds=10.0)
    assert explanation.expected_at == at(seconds=2 * 10 + 5)
    assert "; waiting: 45 videos are ahead in its own account; expected by" in explanation.verdict
    both = told(video, accounts_ahead=1)
    assert (
        "; waiting: 1 account is ahead and 45 videos are ahead in its own account" in both.verdict
    )


def test_a_pause_of_everything_stops_an_account_that_is_well():
    """Only an operator ends it."""
    explanation = told(app=replace(APP, paused_since=at(hours=-1)))
    assert (explanation.reason, explanation.command) == ("pause_of_all", "refresher resume --all")
    assert explanation.next_ask_at is None
    assert "everything is paused since 2026-09-01 11:00:00+00:00" in explanation.verdict


def test_the_apps_rate_is_said_with_where_it_comes_from():
    """Set, or found by 429s."""
    full = replace(APP, step_seconds=2.0, has_room=False, next_slot_at=at(seconds=7))
    full = replace(full, found=True, rate_found=20.0)
    explanation = told(app=full)
    assert explanation.reason == "app_rate"
    assert gate(explanation, "app_rate").value == (
        "429s have shown 20 requests a minute; the pace grows from there"
    )
    assert explanation.next_ask_at == at(seconds=7)


@pytest.mark.parametrize(
    ("account", "name"),
    [
        ({"refresh_token_expires_at": at(hours=-1)}, "consent"),
        ({"scope": "user.info.basic"}, "scope"),
        ({"token_dead": True, "has_refresh_token": False}, "token"),
    ],
    ids=["consent", "scope", "token"],
)
def test_trouble_stops_nothing_but_says_what_to_do(account, name):
    """The claim takes the account all the same."""
    explanation = told(**account)
    assert explanation.reason == READY
    assert gate(explanation, name).mark is Mark.TROUBLE
    assert "let the user authorize again" in explanation.command


def test_a_dead_token_that_can_be_renewed_is_no_trouble():
    """It comes first; where another program renews, it is."""
    assert gate(told(token_dead=True), "token").mark is Mark.OPEN
    elsewhere = told(token_dead=True, managed=False)
    assert gate(elsewhere, "token").mark is Mark.TROUBLE
    assert elsewhere.command == "let the program that renews tokens store a new access token"


DEAD = {"token_dead": True, "access_token_expires_at": at(hours=-1)}


@pytest.mark.parametrize(
    ("account", "trouble"),
    [
        (
            DEAD | {"has_refresh_token": False},
            "the access token has expired; no refresh token is stored",
        ),
        (
            DEAD | {"refresh_token_expires_at": at(hours=-2)},
            "the access token has expired; the user's consent has ended",
        ),
        ({"scope": "user.info.basic"}, "video.list is not in 'user.info.basic'"),
    ],
    ids=["no refresh token", "consent", "scope"],
)
def test_a_request_that_is_bound_to_fail_is_said_in_the_verdict(account, trouble):
    """It is asked for all the same, now or when it wakes, but no new cover is promised."""
    awake = told(**account)
    assert awake.reason == READY
    assert awake.verdict.endswith(
        f"waiting: it is the next to be asked for; but the request will fail: {trouble}"
    )
    assert (awake.expected_at, awake.unknown) == (None, f"the request will fail: {trouble}")
    asleep = told(**account, **ASLEEP)
    assert f"(in 3 min); but the request will fail: {trouble}" in asleep.verdict
    assert "will fail" not in told(**account, state="paused").verdict


def test_an_ended_consent_alone_fails_no_request():
    """The access token lives on."""
    explanation = told(refresh_token_expires_at=at(hours=-1))
    assert "will fail" not in explanation.verdict
    assert explanation.expected_at == at(seconds=5)


@pytest.mark.parametrize(
    ("video", "words"),
    [
        ({"missing_since": at(hours=-1), "misses": 3}, "missing in the last 3 answers"),
        ({"gone_at": at(hours=-1), "misses": 1}, "gone, missing in the last answer"),
        ({"refusal": "invalid_params", "misses": 2}, "refused by TikTok (invalid_params)"),
        ({"misses": 1}, "no newer cover in the last answer"),
    ],
    ids=["missing", "gone", "refused", "unchanged"],
)
def test_a_video_that_waits_by_itself_says_what_its_answers_were(video, words):
    """And how to ask for it at once."""
    explanation = told(replace(VIDEO, turn=None, due_at=at(hours=4), **video))
    assert explanation.reason == "video"
    assert f"; {words}; asked for again at 2026-09-01 16:00:00+00:00 (in 4 h)" in (
        explanation.verdict
    )
    see = "see whether it is still at TikTok, and public; if so: " if "missing" in words else ""
    assert explanation.command == f"{see}refresher videos retry 77"
    late = ASLEEP | {"wake_at": at(hours=5)}
    asleep = told(replace(VIDEO, turn=None, due_at=at(hours=4), **video), **late)
    assert (asleep.reason, asleep.command) == ("wake_up", explanation.command)


@pytest.mark.parametrize(
    ("state", "mark", "words"),
    [
        ("needs_reauthorization", Mark.TROUBLE, "not renewed while the account is parked"),
        ("paused", Mark.OPEN, "renewed first"),
    ],
)
def test_a_dead_token_is_renewed_once_its_account_is_worked_again(state, mark, words):
    """That of a paused one; a parked one gets new tokens, or stays parked."""
    token = gate(told(state=state, token_dead=True, token_standing="refused"), "token")
    assert (token.mark, token.value) == (mark, f"the access token is refused; {words}")


def test_an_account_that_lost_videos_leads_to_their_names():
    """It says how many TikTok left out, and where they are listed; of a few, which users delete, not."""
    explanation = told(missing=25, **ASLEEP)
    for counts in ({"missing": 25}, {"unreachable": 25}, {"missing": 15, "unreachable": 10}):
        lost = told(None, **counts, **ASLEEP)
        assert (
            "59 of 60 covers were valid at its last release, and TikTok leaves out 25 videos; "
            in lost.verdict
        )
        assert lost.command == (
            "see which are no longer there, or not public: refresher videos list --account ana"
            " --state missing, and refresher videos list --account ana --state gone"
        )
    assert explanation.command is None, "it was asked about a video that is there"
    assert told(None, missing=6, **ASLEEP).command is None
    parked = told(None, unreachable=60, state="needs_scope")
    assert "leaves out" not in parked.verdict, "its dead covers are not gone"


def test_what_helps_most_comes_first():
    """A request that will fail helps no video; refused app credentials matter whatever comes last."""
    missed = replace(VIDEO, turn=None, due_at=at(hours=4), misses=3, missing_since=at(hours=-1))
    first, second = told(missed, scope="user.info.basic").commands
    assert first.startswith("let the user authorize again")
    assert second.endswith("refresher videos retry 77")
    refused = replace(APP, client_refused_at=at(minutes=-2))
    late = replace(VIDEO, turn=Turn.TOP_UP, due_at=at(hours=4))
    explanation = told(late, app=refused, **WAITS)
    assert explanation.reason == "video"
    assert explanation.command.startswith("correct REFRESHER_TIKTOK_CLIENT_KEY")
    lost = told(None, app=refused, missing=25, **ASLEEP)
    assert [command.split()[0] for command in lost.commands] == ["correct", "see"]
    parked = told(app=refused, state="needs_scope", scope="user.info.basic", token_dead=True)
    assert len(parked.commands) == 1, "the same advice is given once"


def test_a_rate_that_has_recovered_has_no_since():
    """There is nothing that began."""
    lowered_at = at(hours=-2)
    for share, since in ((0.5, lowered_at), (1.0, None)):
        pause = gate(told(rate_lowered_at=lowered_at, rate_share=share), "pause")
        assert (pause.mark, pause.since) == (Mark.OPEN, since)


@pytest.mark.parametrize(
    ("account", "app", "waits"),
    [
        (ASLEEP, {}, {"wake_up"}),
        (ASLEEP | {"wake_at": None, "earliest_due_at": None}, {}, {"wake_up"}),
        (FAR_SLOT, {}, {"slot"}),
        ({"free": False, "lease_owner": "a"}, {}, {"lease"}),
        ({}, {"step_seconds": 2.0, "has_room": False}, {"app_rate"}),
        (ASLEEP | FAILED | {"earliest_due_at": None}, {}, set()),
        ({"state": "paused"}, {}, set()),
        (WAITS, {}, set()),
    ],
    ids=["asleep", "nothing", "slot", "lease", "app", "back-off", "paused", "token"],
)
def test_nothing_is_to_be_done_about_a_wait(account, app, waits):
    """Somebody can open the other closed gates."""
    gates = told(app=replace(APP, **app), **account).gates
    assert {gate.name for gate in gates if gate.waits} == waits


@pytest.mark.parametrize(
    ("video", "words"),
    [
        ({"cover_image_url": None}, "No cover so far; "),
        ({"cover_expires_at": None}, "Its cover names no expiry; "),
        ({"cover_expires_at": at(hours=-3)}, "Cover died 3 h ago; "),
    ],
    ids=["none", "no-expiry", "dead"],
)
def test_the_cover_comes_first(video, words):
    """Whether it lives, and for how long."""
    assert told(replace(VIDEO, **video)).verdict.startswith(words)


def test_a_command_can_be_pasted():
    """Whatever an open_id is made of."""
    paused = told(open_id=OpenId("a b;c"), state="paused")
    assert paused.command == "refresher accounts resume 'a b;c'"


def test_foreign_text_on_a_terminal():
    """No control character, no half of a character pair, no signature."""
    assert printable("a\x1b[2Jé✓") == "a�[2Jé✓"
    assert [encodable(text) for text in ("é✓", "\udcff")] == [True, False]
    assert unsigned("https://user:word@host/p?x-signature=1#f") == "https://user:[redacted]@host/p"


def test_refused_app_credentials_are_named_with_their_remedy():
    """To try the account again would only repeat what is refused."""
    refused = replace(APP, client_refused_at=at(minutes=-2))
    explanation = told(app=refused, **WAITS)
    assert "TikTok refuses the app credentials" in explanation.verdict
    assert explanation.command.startswith("correct REFRESHER_TIKTOK_CLIENT_KEY")
    assert explanation.expected_at is None
    assert explanation.unknown == "TikTok refuses the app credentials"
