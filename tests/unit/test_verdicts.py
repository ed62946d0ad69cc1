"""What the status page says of a fleet: what is well, what to look at, what is bad."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from refresher.domain.due import DuePolicy
from refresher.domain.missing import Missing
from refresher.domain.pacing import Pace
from refresher.domain.quota import CROWDED, Demand, enough, limits_for
from refresher.operations.checks import Extra, Known
from refresher.operations.verdicts import headline, judge
from refresher.postgres.details import Aged, Details
from refresher.postgres.outbox import Outbox
from refresher.postgres.probes import DayOfProbes
from refresher.postgres.replicas import Replica
from refresher.postgres.snapshot import AppState, Consents, Kind, Snapshot
from refresher.postgres.status import Quota, Summary
from refresher.postgres.told import Waiting

NOW = datetime(2026, 1, 2, 3, 40, tzinfo=UTC)
HOUR = NOW.replace(minute=0)
STATES = {"active": 10, "paused": 0, "needs_reauthorization": 0, "needs_scope": 0}
RUNS = Replica("a", "1", HOUR, NOW, NOW - timedelta(seconds=5), 1)
WELL = Snapshot(
    taken_at=NOW,
    summary=Summary(1000, 990, 0, 10, 0, 0, 5, 3.0, STATES),
    quota=Quota(HOUR, 400, 60),
    kinds=[Kind("active", None, 10, None)],
    consents=Consents(0, 0, 0, 0, None),
    app=AppState(None, None, None, None, None),
    replicas=[RUNS],
    outbox=Outbox(0, 0.0),
    probes=DayOfProbes(140, 2, 1),
    attached=[Waiting("clips", 3.0)],
)
KNOWN = Known("a", 3600.0, 600, 0, lacks_credentials=False, fingerprint="f")


def ago(**span):
    return NOW - timedelta(**span)


def but(part, **changes):
    """The fleet that is well, with other values in one part of it."""
    return replace(WELL, **{part: replace(getattr(WELL, part), **changes)})


def verdict(name, snapshot, *, age_seconds=0.0, known=KNOWN):
    (check,) = [check for check in judge(snapshot, age_seconds, known) if check.name == name]
    return check


def test_all_is_well():
    """Every check says ok, and none tells you to do anything."""
    checks = judge(WELL, 1.0, KNOWN)
    assert {(check.level, check.act) for check in checks} == {("ok", "")}
    assert headline(checks) == "All is well"


@pytest.mark.parametrize(
    ("name", "snapshot", "level", "says"),
    [
        ("Freshness", but("summary", expired=1), "bad", "98.9 % of 1,001 covers are valid; 1 have"),
        ("Freshness", but("summary", valid=9990, expired=3, uncovered=0), "warn", "99.96 % of"),
        ("Freshness", but("summary", valid=57, expired=43, uncovered=0), "bad", "57 % of 100"),
        (
            "Freshness",
            but("summary", valid=10**9 - 1, expired=1, uncovered=0),
            "warn",
            "99.99 % of",
        ),
        ("Freshness", but("summary", valid=500, uncovered=500), "warn", "500 have none yet"),
        ("Webhooks", but("outbox", waiting=1, oldest_seconds=3599.0), "ok", "1 webhook not"),
        ("Webhooks", but("outbox", waiting=2, oldest_seconds=3600.0), "warn", "oldest for 1 h"),
        ("Probes", but("probes", refused=15), "ok", "15 of 155 covers fetched within a day were"),
        ("Probes", but("probes", refused=16), "warn", "16 of 156 covers"),
        ("Probes", but("probes", served=2), "ok", "2 of 4 covers"),
        (
            "Attached tables",
            replace(WELL, attached=[Waiting("clips", 61.0), Waiting("more", 0.0)]),
            "warn",
            "What attachment clips tells has waited for 1 min",
        ),
        ("Missing videos", but("summary", missing=10), "ok", "leaves out 10 of 1,000 videos"),
        ("Missing videos", but("summary", missing=11), "warn", "leaves out 11 of 1,000 videos"),
        (
            "TikTok",
            replace(
                but("app", refused_client="f", client_refused_at=ago(minutes=3)),
                # The next heartbeat took the refusal for the answer that it is.
                replicas=[replace(RUNS, progress_at=ago(minutes=3) + timedelta(seconds=5))],
            ),
            "warn",
            "It answered last 2 min 55 s ago. It refuses the app credentials",
        ),
        (
            "TikTok",
            but("app", refused_client="f", client_refused_at=ago(minutes=3)),
            "warn",
            "It answered last 5 s ago. It refuses the app credentials",
        ),
        ("Freshness", but("summary", valid=0, uncovered=0), "ok", "No video of an active account"),
        ("Backlog", but("summary", due=0, oldest_overdue_seconds=0.0), "ok", "Nothing is due."),
        ("Backlog", but("summary", oldest_overdue_seconds=100.0), "warn", "for 1 min 40 s"),
        ("Backlog", but("summary", oldest_overdue_seconds=900.0), "bad", "for 15 min"),
        (
            "Quota",
            but("app", learned_per_minute=90.4, throttled_at=ago(minutes=2)),
            "warn",
            "about 90 requests a minute, learned from 429s, the last 2 min ago",
        ),
        ("Everything is paused", but("app", paused_since=ago(hours=2)), "bad", "for 2 h"),
        (
            "App credentials",
            but("app", refused_client="f", client_refused_at=ago(minutes=3)),
            "bad",
            "TikTok refused them 3 min ago",
        ),
        ("App credentials", but("app", refused_client="g", client_refused_at=NOW), "ok", "not"),
        (
            "App credentials",
            but("app", refused_client="f", client_refused_at=ago(hours=3)),
            "ok",
            "not refused them lately",
        ),
        (
            "Accounts",
            but("summary", accounts={**STATES, "needs_scope": 1, "paused": 2}),
            "warn",
            "10 active, 1 waiting for their users, 2 paused.",
        ),
        ("Accounts", but("summary", accounts={**STATES, "needs_scope": 9}), "bad", "9 waiting"),
        (
            "Accounts",
            replace(WELL, kinds=[Kind("isolated", "internal_error", 3, HOUR)]),
            "warn",
            "7 active, 3 isolated.",
        ),
        ("Consents", but("consents", within_3_days=1, within_14_days=4), "warn", "4 end within 14"),
        ("Consents", but("consents", ended=2), "bad", "2 have ended"),
        ("Replicas", replace(WELL, replicas=[]), "bad", "0 running"),
        (
            "Replicas",
            replace(WELL, replicas=[RUNS, Replica("b", "1", HOUR, HOUR, None, 0)]),
            "warn",
            "1 running, 1 silent, b, for 40 min.",
        ),
        (
            "Replicas",
            replace(WELL, replicas=[Replica(n, "1", HOUR, HOUR, None, 0) for n in ("a", "b")]),
            "bad",
            "0 running, 2 silent, the first, a, for 40 min.",
        ),
        ("Replicas", replace(WELL, replicas=None), "warn", "Not known"),
        ("TikTok", replace(WELL, replicas=None), "ok", "not known"),
        (
            "TikTok",
            replace(
                but("summary", oldest_overdue_seconds=300.0),
                replicas=[replace(RUNS, progress_at=ago(minutes=20))],
            ),
            "bad",
            "It answered last 20 min ago. Covers have been due for 5 min.",
        ),
        (
            "TikTok",
            replace(
                but("summary", oldest_overdue_seconds=300.0),
                replicas=[replace(RUNS, progress_at=None)],
            ),
            "bad",
            "It has answered no replica yet. Covers have been due for 5 min.",
        ),
        (
            "TikTok",
            replace(
                but("summary", oldest_overdue_seconds=300.0),
                replicas=[Replica("a", "1", ago(minutes=1), NOW, None, 1)],
            ),
            "ok",
            "It has answered no replica yet.",
        ),
        (
            "TikTok",
            replace(WELL, replicas=[replace(RUNS, progress_at=HOUR)]),
            "ok",
            "It answered last 40 min ago.",
        ),
    ],
)
def test_a_verdict(name, snapshot, level, says):
    """Its level and its sentence; who is not well is told what to do."""
    check = verdict(name, snapshot)
    assert check.level == level
    assert says in check.says
    assert bool(check.act) == (level != "ok")


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("Webhooks", {"outbox": Outbox(0, 0.0)}),
        ("Webhooks", {"outbox": None}),
        ("Probes", {"probes": DayOfProbes(0, 0, 9)}),
        ("Attached tables", {"attached": []}),
        ("Attached tables", {"attached": None}),
    ],
)
def test_what_nobody_uses_gets_no_verdict(name, part):
    """Nor what the role may not read."""
    assert name not in [check.name for check in judge(replace(WELL, **part), 0.0, KNOWN)]


def test_what_this_replica_knows_counts():
    """Limits and credentials come from its settings."""
    limited = replace(KNOWN, limit_per_app=10, lacks_credentials=True)
    assert (
        "100 % of what REFRESHER_RATE_LIMIT_PER_APP allows so far"
        in verdict("Quota", WELL, known=limited).says
    )
    assert verdict("App credentials", WELL, known=limited).level == "warn"


@pytest.mark.parametrize(
    ("minute", "requests", "level"), [(20, 190, "warn"), (20, 170, "ok"), (14, 140, "ok")]
)
def test_the_share_of_the_limit_is_that_of_the_hour_so_far(minute, requests, level):
    """Not of the whole hour; in its first quarter nothing is said."""
    fleet = replace(
        WELL,
        taken_at=HOUR + timedelta(minutes=minute),
        quota=replace(WELL.quota, requests=requests),
    )
    limited = replace(KNOWN, limit_per_app=10)
    assert verdict("Quota", fleet, known=limited).level == level


@pytest.mark.parametrize(("dead", "level"), [(0, "ok"), (1, "warn"), (2, "warn"), (3, "bad")])
def test_access_tokens_that_stay_dead(dead, level):
    """They are told with where they are listed; a fifth of all accounts is bad."""
    aged = [Aged("dead_token", "no_refresh_token", dead, 1, NOW, 1, 0, 0)] if dead else []
    aged.append(Aged("paused", None, 9, 1, NOW, 1, 0, 0))
    details = Details([], [], [], [], 0, aged, [], 0)
    (check,) = [
        check for check in judge(WELL, 0.0, KNOWN, Extra(details)) if check.name == "Access tokens"
    ]
    assert (check.level, bool(check.act)) == (level, bool(dead))
    accounts = "1 active account with" if dead == 1 else f"{dead} active accounts with"
    assert check.says.startswith(accounts if dead else "None")
    assert ("listed as dead_token" in check.says) == bool(dead)


def demand(chunks, *, per_token=600, per_app=0, found=None):
    """Of covers that live a day, all in one account."""
    return Demand(
        chunks=chunks,
        most_videos=20 * chunks,
        largest="ana",
        life_seconds=86_400,
        policy=DuePolicy(timedelta(hours=1), timedelta(0), timedelta(hours=6), 5),
        pace=Pace(per_token, per_app, lease_seconds=60),
        found_per_minute=found,
    )


@pytest.mark.parametrize(
    ("needs", "level", "says", "act"),
    [
        (demand(1380), "ok", "400 requests this hour.", ""),
        (
            demand(1380 * 30, per_app=10),
            "bad",
            "need 30.0 requests a minute as covers fall due, 316% of the 9.5 that REFRESHER_RATE",
            "Set REFRESHER_RATE_LIMIT_PER_APP to 40 or more, if TikTok allows as much; else keep fewer",
        ),
        (
            demand(1380 * 30, per_token=20, per_app=40),
            "bad",
            "153% of the 19.6 that REFRESHER_RATE_LIMIT_PER_TOKEN allows. Covers will die: they",
            "Set REFRESHER_RATE_LIMIT_PER_TOKEN to 39 or more, if",
        ),
        (
            demand(1380 * 30, per_token=30),
            "warn",
            "102% of the 29.4 that REFRESHER_RATE_LIMIT_PER_TOKEN allows. Covers are asked for late",
            "Set REFRESHER_RATE_LIMIT_PER_TOKEN to 39 or more, if",
        ),
        (
            demand(1380 * 30, found=20.0),
            "bad",
            "150% of the 20.0 that TikTok allows.",
            "Ask TikTok for 40 requests a minute; else keep fewer covers.",
        ),
    ],
    ids=["enough", "app", "token", "late", "found"],
)
def test_the_setting_that_binds_first_is_named(needs, level, says, act):
    """With the value that it would need."""
    checks = judge(WELL, 0.0, KNOWN, Extra(demand=needs))
    (check,) = [check for check in checks if check.name == "Quota"]
    assert check.level == level
    assert says in check.says
    assert check.act.startswith(act)
    limit = limits_for(needs)[0]
    if level != "ok" and not limit.found:
        which = "per_app" if limit.setting.endswith("APP") else "per_token"
        wanted = enough(limit.setting, limit.needed.when_due)
        raised = replace(needs, pace=replace(needs.pace, **{f"limit_{which}": wanted}))
        lower = replace(needs, pace=replace(needs.pace, **{f"limit_{which}": wanted - 1}))
        shares = [{one.setting: one.share for one in limits_for(it)} for it in (raised, lower)]
        assert [each[limit.setting] <= CROWDED for each in shares] == [True, False]


def test_old_readings_are_bad():
    """Whatever they say: the database does not answer."""
    check = verdict("Database", WELL, age_seconds=95.0)
    assert (check.level, "1 min 35 s old" in check.says) == ("bad", True)


def test_the_worst_comes_first():
    """And the headline counts."""
    checks = judge(but("summary", expired=500, oldest_overdue_seconds=100.0), 0.0, KNOWN)
    assert [check.level for check in checks[:3]] == ["bad", "warn", "ok"]
    assert headline(checks) == "1 problem, 1 warning"


def test_covers_that_live_short_are_due_for_less_long():
    """The lead that counts is the real one, a part of the last third of their lives."""
    late = but("summary", oldest_overdue_seconds=100.0)
    needs = replace(demand(20), life_seconds=900.0)
    (check,) = [
        each for each in judge(late, 0.0, KNOWN, Extra(demand=needs)) if each.name == "Backlog"
    ]
    assert check.level == "bad"
    assert "A cover is asked for 5 min before it expires." in check.says


def test_an_account_that_has_lost_much_is_named():
    """However few that is of all videos."""
    snapshot = but("summary", missing=10)
    accounts = [Missing("ana", 11, 1000), Missing("ben", 11, 12)]
    details = Details([], [], [], [], 0, [], accounts, 2)
    (check,) = [
        each
        for each in judge(snapshot, 0.0, KNOWN, Extra(details))
        if each.name == "Missing videos"
    ]
    assert check.level == "warn"
    assert check.says.endswith("11 of 12 are of account ben.")
