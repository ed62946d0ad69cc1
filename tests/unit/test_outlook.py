"""What a forecast says besides the simulation: quota needed, remedies, leads."""

import re
from dataclasses import replace
from datetime import timedelta

import pytest

from refresher.domain.checkup import freshness
from refresher.domain.checkup.findings import Outcome
from refresher.domain.claiming import chunks_of
from refresher.domain.cohorts import Cohort, Fleet
from refresher.domain.due import DuePolicy
from refresher.domain.model import OpenId
from refresher.domain.pacing import Pace
from refresher.domain.quota import Demand, advice, limits_for
from refresher.domain.stored import Consents, Life, Stored, Tokens
from refresher.simulation import outlook_report as report
from refresher.simulation.need import need_of
from refresher.simulation.outlook import look_ahead
from refresher.simulation.plan import DAY_SECONDS, HOUR_SECONDS, START, Plan
from refresher.simulation.remedy import remedy

POLICY = DuePolicy(timedelta(hours=1), timedelta(minutes=30), timedelta(hours=6), missing_limit=5)


def plan(per_token=600, per_app=0, ttl=6 * HOUR_SECONDS):
    pace = Pace(per_token, per_app, lease_seconds=60)
    return Plan(policy=POLICY, ttl=ttl, seconds=DAY_SECONDS, pace=pace)


def stored(accounts, videos, ttl=6 * HOUR_SECONDS, **given):
    """Equal accounts, whose covers end one after the other all over a life."""
    cohorts = {
        OpenId(f"account-{n}"): [
            Cohort(ends - 3600, ends, min(20, videos - first))
            for first in range(0, videos, 20)
            for ends in [START + 3600 + ((n + first / videos) * ttl / accounts) // 1]
        ]
        for n in range(accounts)
    }
    usual = {
        "fleet": Fleet(START, cohorts),
        "accounts": accounts,
        "videos": accounts * videos,
        "sampled": None,
        "lives": [Life(START + 1, ttl, 1)],
        "app_rate": None,
        "paused_since": None,
        "unasked": {},
        "consents": Consents(0, None, 0),
        "tokens": Tokens(None, 0, 0),
    }
    return Stored(**(usual | given))


@pytest.mark.parametrize(
    ("fleet", "poor", "setting"),
    [
        ((20, 600), {"per_app": 1}, "REFRESHER_RATE_LIMIT_PER_APP"),
        ((200, 45), {"per_app": 2, "per_token": 10}, "REFRESHER_RATE_LIMIT_PER_APP"),
        ((3, 9000), {"per_token": 1}, "REFRESHER_RATE_LIMIT_PER_TOKEN"),
        ((3, 9000), {"per_token": 1, "per_app": 600}, "REFRESHER_RATE_LIMIT_PER_TOKEN"),
    ],
)
def test_the_remedy_is_the_limit_in_force_with_a_value_that_is_enough(fleet, poor, setting):
    """Its setting comes first; under the value named no cover dies any more."""
    told = look_ahead(stored(*fleet), plan(**poor))
    assert told.today.deaths > 0
    advice = dict(report.facts(told))["to do"]
    named, value = re.match(r"set (\w+) to (\d+) or more, ", advice).groups()
    assert (named, report.plain(told)["remedy"]) == (setting, advice)
    limit = "per_app" if setting.endswith("APP") else "per_token"
    better = look_ahead(stored(*fleet), plan(**(poor | {limit: int(value)})))
    assert better.today.deaths == 0
    assert "to do" not in dict(report.facts(better))


def test_no_setting_raises_a_limit_that_429s_have_shown():
    """There is no setting to name, but a value."""
    told = look_ahead(stored(20, 600, app_rate=1.0), plan())
    assert dict(report.facts(told))["to do"].startswith("ask TikTok for 3 requests a minute; else")


def test_no_quota_is_named_where_it_is_not_why_covers_die():
    """While everything is paused, or an account rests for longer than its covers live."""
    paused = look_ahead(stored(2, 20, paused_since=START), plan(per_app=1))
    rests = stored(2, 20)
    fleet = replace(rests.fleet, free_at={OpenId("account-0"): START + 7 * HOUR_SECONDS})
    resting = look_ahead(replace(rests, fleet=fleet), plan())
    for told in (paused, resting):
        assert told.today.deaths > 0
        assert "to do" not in dict(report.facts(told))


def test_covers_that_are_dead_already_are_told_first():
    """They do not die once more, so the first death is another's."""
    fleet = stored(20, 600)
    for cohort in fleet.fleet.accounts[OpenId("account-1")]:
        cohort.expires_at = START - 60
    told = look_ahead(fleet, plan())
    assert told.dead_now == 600
    assert report.verdict(told) == "Dead now: 600 covers. No other cover will die within 1 d."
    dying = look_ahead(fleet, plan(per_app=1))
    assert report.verdict(dying).startswith("Dead now: 600 covers. More covers die from")


def test_the_quota_needed_is_named_as_due_and_at_the_least():
    """A life of six hours, of which lead and half of the spread take 75 minutes."""
    told = look_ahead(stored(20, 600), plan())
    assert told.need.on_average == pytest.approx(600 / 360)
    assert told.need.when_due == pytest.approx(600 / 285)
    facts = dict(report.facts(told))
    assert facts["quota needed"].startswith("2.1 requests a minute as covers fall due")
    assert facts["at the least"].startswith("1.7 on average, ")


@pytest.mark.parametrize(
    ("ttl", "text"),
    [
        (6 * HOUR_SECONDS, "1 h to 1 h 30 min before they die"),
        (2 * HOUR_SECONDS, "26 min 40 s to 40 min before they die"),
    ],
)
def test_the_lead_is_told_as_it_is(ttl, text):
    """Cut to a third of the life of covers that live short."""
    assert dict(report.facts(look_ahead(stored(2, 20, ttl), plan(ttl=ttl))))["asked for"] == text


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (Tokens(None, 0, 0), ""),
        (
            Tokens(None, 1, 20),
            "It assumes that the token renewal of 1 account with 20 covers, which fails now, ",
        ),
        (
            Tokens(START, 1, 20),
            "It assumes that the app credentials, which TikTok refused at 2026-01-01 00:00:00+00:00",
        ),
    ],
)
def test_what_is_assumed_of_tokens_is_told(tokens, text):
    """A verdict that counts on a renewal which fails now says so."""
    told = report.assumed(look_ahead(stored(2, 20, tokens=tokens), plan()))
    assert (told or "").startswith(text)
    assert (told is None) == (text == "")


def demand(accounts, videos, plan):
    """The same fleet as doctor reads it."""
    return Demand(
        chunks=accounts * chunks_of(videos),
        most_videos=videos,
        largest="account-0",
        life_seconds=plan.ttl,
        policy=POLICY,
        pace=plan.pace,
        found_per_minute=None,
    )


@pytest.mark.parametrize(
    ("limit", "outcome", "text"),
    [
        ({"per_token": 3, "per_app": 7}, Outcome.WARNING, "128% of the 2.9"),
        ({"per_token": 2, "per_app": 7}, Outcome.PROBLEM, "191% of the 2.0"),
    ],
    ids=["late", "deadly"],
)
def test_doctor_says_that_covers_will_die_where_some_do(limit, outcome, text):
    """Not where a limit only leaves too little in reserve."""
    fleet, given = (2, 6000), replace(plan(ttl=2 * HOUR_SECONDS, **limit), seconds=7 * DAY_SECONDS)
    (finding,) = freshness.token_quota(demand(*fleet, given))
    assert (finding.outcome, text in finding.text) == (outcome, True)
    dies = look_ahead(stored(*fleet, ttl=given.ttl), given).today.deaths > 0
    assert dies == ("Covers will die" in finding.text) == (outcome is Outcome.PROBLEM)


def steady(accounts, videos, ttl):
    """Equal accounts without peaks: the covers of each end one after the other all over a life."""
    step = ttl * 20 / videos
    return Fleet(
        START,
        {
            OpenId(f"account-{n}"): [
                Cohort(ends - 3600, ends, 20)
                for chunk in range(videos // 20)
                for ends in [START + 3600 + (step * (chunk + n / accounts)) // 1]
            ]
            for n in range(accounts)
        },
    )


@pytest.mark.parametrize(
    ("fleet", "hours", "limits"),
    [
        ((1, 6000), 2, {"per_token": 3, "per_app": 3}),
        ((2, 6000), 2, {"per_token": 3, "per_app": 3}),
        ((2, 6000), 2, {"per_token": 2, "per_app": 2}),
        ((2, 6000), 2, {"per_token": 3, "per_app": 7}),
        ((2, 6000), 6, {"per_token": 1}),
        ((3, 9000), 2, {"per_token": 5, "per_app": 12}),
        ((3, 9000), 6, {"per_token": 1}),
        ((3, 9000), 6, {"per_token": 2, "per_app": 5}),
        ((20, 600), 6, {"per_app": 1}),
    ],
)
def test_forecast_and_doctor_give_the_same_advice(fleet, hours, limits):
    """It is enough: with those values doctor sees no cover die, and the forecast has no death."""
    poor = plan(ttl=hours * HOUR_SECONDS, **limits)
    covers = steady(*fleet, poor.ttl)
    text = advice(limits_for(demand(*fleet, poor)))
    assert remedy(need_of(covers, poor), poor.pace, None) == f"{text}; else keep fewer covers"
    values = {
        "per_app" if name.endswith("APP") else "per_token": int(value)
        for name, value in re.findall(r"set (\w+) to (\d+) or more", text)
    }
    better = plan(ttl=poor.ttl, **(limits | values))
    assert not any(limit.share > 1 for limit in limits_for(demand(*fleet, better)))
    assert look_ahead(stored(*fleet, poor.ttl, fleet=covers), better).today.deaths == 0


def test_a_peak_raises_what_the_forecast_advises():
    """Accounts whose covers all end within two hours need more of a token than doctor counts."""
    clumped = plan(per_token=1)
    told = look_ahead(stored(3, 9000), clumped)
    assert told.remedy.startswith("set REFRESHER_RATE_LIMIT_PER_TOKEN to 4 or more")
    text = advice(limits_for(demand(3, 9000, clumped)))
    assert text.startswith("set REFRESHER_RATE_LIMIT_PER_TOKEN to 3 or more")


@pytest.mark.parametrize(
    ("limits", "paused_since", "plans"),
    [({}, None, 2), ({"per_token": 0}, None, 1), ({}, START, 2)],
    ids=["two quotas", "no limit to halve", "paused"],
)
def test_progress_counts_the_minutes_of_all_quotas(limits, paused_since, plans):
    """It never goes back, knows at once how many there are, and ends with all of them."""
    heard = []
    fleet = stored(20, 60, paused_since=paused_since)
    look_ahead(fleet, plan(**limits), on_progress=lambda *minutes: heard.append(minutes))
    minutes = plans * 24 * 60
    assert heard == sorted(heard)
    assert {of_all for _, of_all in heard} == {minutes}
    assert heard[-1] == (minutes, minutes)
