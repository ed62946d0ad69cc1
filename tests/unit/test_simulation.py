"""The simulation: its fleet, its virtual clock, and what it says."""

import re
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import inf

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from refresher.domain.claiming import chunks_of, most_chunks
from refresher.domain.cohorts import NO_COVER, Cohort, Fleet
from refresher.domain.due import DuePolicy, account_spread
from refresher.domain.model import CHUNK_SIZE, OpenId, Video, VideoId
from refresher.domain.pacing import Pace
from refresher.domain.reconcile import reconcile, refused_alone
from refresher.emulator.options import EmulatorOptions
from refresher.emulator.server import Emulator
from refresher.simulation import report
from refresher.simulation.demand import Requests
from refresher.simulation.engine import Engine, after_answer, fresh_cohort
from refresher.simulation.forecast import forecast
from refresher.simulation.plan import DAY_SECONDS, HOUR_SECONDS, START, Plan
from refresher.simulation.steady_fleet import LARGEST, sizes, steady_fleet

POLICY = DuePolicy(
    lead=timedelta(hours=1),
    spread=timedelta(minutes=30),
    fallback_ttl=timedelta(hours=6),
    missing_limit=5,
)
SHORT_POLICY = replace(POLICY, lead=timedelta(seconds=60), spread=timedelta(seconds=30))
ANA = OpenId("ana")
ttls = st.sampled_from(["hourly", 20, HOUR_SECONDS, 6 * HOUR_SECONDS, 15 * DAY_SECONDS])


def plan(**given_ones):
    limits = {"limit_per_token": 600, "limit_per_app": 0}
    limits |= {name: given_ones.pop(name) for name in limits if name in given_ones}
    usual = {"policy": POLICY, "ttl": "hourly", "seconds": DAY_SECONDS}
    return Plan(pace=Pace(**limits, lease_seconds=60), **(usual | given_ones))


def fleet(*accounts):
    return Fleet(START, {OpenId(f"account-{n}"): list(found) for n, found in enumerate(accounts)})


def new(videos):
    return [Cohort(START, NO_COVER, videos)]


def moment(unix_time):
    return datetime.fromtimestamp(unix_time, UTC)


# --- The fleet that is made up ---


@given(accounts=st.integers(1, 300), mean=st.floats(1, 2000))
def test_sizes_come_to_the_videos_asked_for(accounts, mean):
    """Each account has a video at least and no more than any known; the largest come first."""
    videos = int(accounts * mean)
    counts = sizes(videos, accounts)
    assert (len(counts), sum(counts)) == (accounts, videos)
    assert counts == sorted(counts, reverse=True)
    assert 1 <= counts[-1] <= counts[0] <= LARGEST


def test_sizes_are_very_unequal():
    """Of two million videos some four accounts have 50,000 each; half have about twenty or fewer."""
    counts = sizes(2_000_000, 20_000)
    assert 3 <= counts.count(LARGEST) <= 6
    assert counts[10_000] <= 22


@pytest.mark.parametrize("videos", [4, 5 * LARGEST + 1])
def test_impossible_sizes_are_refused(videos):
    """No account without a video, none larger than any known."""
    with pytest.raises(ValueError, match=r"expected 5 to 250,000 videos of 5 accounts, not"):
        sizes(videos, 5)


@pytest.mark.parametrize("ttl", ["hourly", 6 * HOUR_SECONDS])
def test_a_fleet_begins_alive_with_its_covers_due_evenly(ttl):
    """The steady state: obtained over the past lifetime, due over the next one."""
    steady = plan(ttl=ttl)
    made = steady_fleet(sizes(20_000, 100), steady, seed=1)
    assert made.videos == 20_000
    cohorts = [cohort for account in made.accounts.values() for cohort in account]
    assert all(START <= cohort.due_at < cohort.expires_at for cohort in cohorts)
    middle = START + steady.period_seconds(0.5) / 2
    soon = sum(cohort.count for cohort in cohorts if cohort.due_at < middle)
    assert 0.4 < soon / made.videos < 0.6


# --- The decisions are the daemon's ---


@given(
    ttl=ttls,
    sent_at=st.floats(START, START + 40 * DAY_SECONDS),
    due_in=st.floats(-DAY_SECONDS, DAY_SECONDS),
    expires_in=st.just(NO_COVER) | st.integers(-DAY_SECONDS, 16 * DAY_SECONDS),
    misses=st.integers(0, 12),
    fate=st.sampled_from(["answered", "missing", "refused"]),
    share=st.floats(0, 1, exclude_max=True),
)
def test_an_answer_means_what_is_written_for_it(
    ttl, sent_at, due_in, expires_in, misses, fate, share
):
    """Expiry, misses and `due_at` are those of the writes, and stay where nothing is written."""
    due_at = sent_at - abs(due_in) if fate == "refused" else sent_at + due_in
    old = Cohort(due_at, sent_at // 1 + expires_in, 3, misses, fate == "missing", fate == "refused")
    lived = plan(ttl=ttl)
    fresh = fresh_cohort(lived, account_spread(ANA), sent_at)
    after = after_answer(old, 2, fresh, sent_at + lived.request_seconds)
    write = written(lived, old, sent_at, fate)
    expected = replace(old, count=2)
    if write is not None:
        due_at = write.due_at.timestamp()
        expected = replace(expected, misses=write.misses, due_at=pytest.approx(due_at, abs=1e-4))
        if write.cover_expires_at:
            expected = replace(expected, expires_at=write.cover_expires_at.timestamp())
    assert after == expected


def written(lived, old, sent_at, fate):
    """What the daemon writes for one video of the cohort; None for nothing."""
    expires_at = None if old.expires_at == NO_COVER else old.expires_at
    now = moment(sent_at) + timedelta(seconds=lived.request_seconds)
    due = moment(old.due_at) <= now
    video = Video(VideoId("1"), due, expires_at, old.misses, old.missing)
    if fate == "refused":
        (write,) = refused_alone([video], "code", now).writes
        return write
    url = f"https://cover/?x-expires={int(lived.expires_at(sent_at))}"
    answer = {"1": url} if fate == "answered" else {}
    return next(iter(reconcile(lived.policy, ANA, [video], answer, now).writes), None)


@given(ttl=ttls, sent_at=st.floats(START, START + 40 * DAY_SECONDS))
def test_covers_live_as_the_emulators_do(ttl, sent_at):
    """One idea of `hourly` and of seconds."""
    emulator = Emulator(EmulatorOptions(cover_ttl=ttl))
    assert plan(ttl=ttl).expires_at(sent_at) == emulator.query_endpoint.cover_expiry(sent_at)


# --- The virtual clock ---


class Recorder:
    """When each account's requests were sent, and for how many videos."""

    def __init__(self, step_seconds):
        self._step_seconds = step_seconds
        self.sent = defaultdict(list)

    def asked(self, account, sent_at, chunks, videos):
        self.sent[account] += [sent_at + n * self._step_seconds for n in range(chunks)]
        assert CHUNK_SIZE * (chunks - 1) < videos <= CHUNK_SIZE * chunks

    def refreshed(self, *_):
        pass


def within(limit, times):
    ordered = sorted(times)
    return not limit or all(
        later - first > 60 for first, later in zip(ordered, ordered[limit:], strict=False)
    )


@settings(max_examples=50)
@given(
    counts=st.lists(st.integers(1, 700), min_size=1, max_size=8),
    limit_per_token=st.integers(1, 90),
    limit_per_app=st.just(0) | st.integers(1, 200),
    ttl=st.integers(200, 1500),
    obtained=st.booleans(),
)
def test_no_window_holds_more_than_the_limit(counts, limit_per_token, limit_per_app, ttl, obtained):
    """However much is due: in any 60 s at most the limit of a token, and of the app."""
    lived = plan(
        policy=SHORT_POLICY,
        ttl=ttl,
        seconds=1800,
        limit_per_token=limit_per_token,
        limit_per_app=limit_per_app,
    )
    expires_at = START + 90 if obtained else NO_COVER
    worked = fleet(*([Cohort(START + n % 7, expires_at, n)] for n in counts))
    recorder = Recorder(lived.pace.step_seconds)
    left = list(Engine(worked, lived, recorder).run())
    assert sum(cohort.count for cohort in left) == sum(counts)
    assert all(within(limit_per_token, times) for times in recorder.sent.values())
    assert within(limit_per_app, [at for times in recorder.sent.values() for at in times])


def test_an_account_settles_at_the_least_possible():
    """Of videos that came at different times: chunks become full by top-ups, and stay so."""
    cohorts = [Cohort(START + 600 * n, START + 600 * n + HOUR_SECONDS, 7) for n in range(40)]
    settled = plan(ttl=6 * HOUR_SECONDS, seconds=20 * DAY_SECONDS)
    told = forecast(fleet(cohorts), settled)
    lifetimes = settled.seconds / settled.period_seconds(account_spread(OpenId("account-0")))
    assert told.requests.sent == pytest.approx(lifetimes * chunks_of(280), rel=0.02)
    assert told.chunk_fill > 0.98
    assert told.lowest_valid_share == 1


def test_what_is_missing_is_asked_for_ever_more_rarely():
    """In a day at once, after 6 min, 36 min and 3.6 h; it is no cover that could be kept alive."""
    gone = Cohort(START, NO_COVER, 1, misses=1, missing=True)
    told = forecast(fleet([gone]), plan())
    assert (told.requests.sent, told.videos, told.unreachable) == (4, 0, 1)
    assert (told.lowest_valid_share, told.first_death_seconds) == (1, None)


def test_who_spoils_requests_is_asked_for_alone():
    """One ID a request, and the others' chunks stay full."""
    spoiler = Cohort(START, NO_COVER, 1, misses=1, alone=True)
    told = forecast(fleet([spoiler, *new(40)]), plan(seconds=HOUR_SECONDS))
    assert (told.requests.sent, told.unreachable) == (3, 1)
    assert told.chunk_fill == pytest.approx(41 / 60)


@settings(max_examples=60)
@given(
    limit_per_token=st.integers(1, 6000),
    limit_per_app=st.just(0) | st.integers(1, 6000),
    chunk_budget=st.sampled_from([2, 8, 128]),
    request_seconds=st.sampled_from([0.0, 0.2, 0.3, 0.7, 2.0]),
)
@example(limit_per_token=36, limit_per_app=0, chunk_budget=2, request_seconds=2.0)
def test_arithmetic_knows_what_an_account_is_asked_for(
    limit_per_token, limit_per_app, chunk_budget, request_seconds
):
    """With all of it due at all times: a chunk takes no less and no longer than the plan says.

    Where slots are further apart than polls, some are missed.
    """
    lived = plan(
        ttl=7200,
        seconds=600,
        limit_per_token=limit_per_token,
        limit_per_app=limit_per_app,
        chunk_budget=chunk_budget,
        request_seconds=request_seconds,
    )
    told = forecast(fleet(new(20_000_000)), lived)
    claim = min(most_chunks(lived.pace, chunk_budget), chunk_budget)
    assert told.requests.sent <= lived.seconds / lived.least_chunk_seconds + claim + 1
    if lived.pace.step_seconds < lived.poll_seconds:
        assert told.requests.sent >= 0.99 * lived.seconds / lived.chunk_seconds - claim - 1


@pytest.mark.parametrize(
    ("limit_per_app", "videos"),
    [
        pytest.param(0, 50_000, id="none"),
        pytest.param(600, 50_000, id="as-the-tokens"),
        pytest.param(6000, 45_000, id="to-spare"),
    ],
)
def test_what_is_kept_alive_is_no_more_than_the_most(limit_per_app, videos):
    """Of one account, with and without a limit for the app, for hours at its limit."""
    short = plan(
        policy=SHORT_POLICY, ttl=320, seconds=4 * HOUR_SECONDS, limit_per_app=limit_per_app
    )
    told = forecast(steady_fleet([videos], short, 0), short)
    assert (told.lowest_valid_share, told.first_death_seconds) == (1, None)
    assert told.token.at_most >= videos
    assert limit_per_app == 0 or told.token.at_most <= told.app.at_most


# --- What it says ---


def test_the_first_death_is_told_to_the_second():
    """Two chunks due at once, a slot a minute: the second comes after a minute and a bit."""
    cohort = Cohort(START, START + 60, 40)
    told = forecast(fleet([cohort]), plan(limit_per_token=1, seconds=240))
    assert told.first_death_seconds == 60
    assert told.valid_share_by_minute == [1, 0.5, 1, 1]
    assert told.requests_by_minute == [1, 1, 0, 0]
    assert (told.lowest_valid_share, told.last_valid_share) == (0.5, 1)
    assert told.closest_call_seconds == pytest.approx(59.8)
    assert told.all_valid_seconds == pytest.approx(62, abs=2)


def test_covers_that_never_were_do_not_die():
    """They are not valid until the first answer comes, and that is no death."""
    told = forecast(fleet(new(20)), plan(seconds=240))
    assert told.valid_share_by_minute == [0, 1, 1, 1]
    assert told.first_death_seconds is None
    assert told.all_valid_seconds == pytest.approx(0.2)


def test_a_cover_that_nobody_could_ask_for_is_dead_until_the_end():
    """The last minute counts it, too."""
    cohort = Cohort(START, START + 60, 40)
    told = forecast(fleet([cohort]), plan(limit_per_token=1, seconds=61))
    assert told.valid_share_by_minute == [1, 0.5]
    assert told.all_valid_seconds is None


@settings(max_examples=60)
@given(
    ttl=st.just("hourly") | st.integers(60, 600),
    counts=st.lists(st.integers(1, 3000), min_size=1, max_size=5),
    limit_per_token=st.integers(1, 120),
    lead=st.sampled_from([0, 5, 60, 3600]),
    begins=st.floats(0, 1, exclude_max=True),
)
def test_a_share_is_a_share(ttl, counts, limit_per_token, lead, begins):
    """However short covers live, and however late they are asked for."""
    lived = plan(
        policy=replace(POLICY, lead=timedelta(seconds=lead), spread=timedelta(seconds=lead / 4)),
        ttl=ttl,
        seconds=1800,
        limit_per_token=limit_per_token,
    )
    made = steady_fleet(counts, lived, 0)
    told = forecast(Fleet(START + 60 * begins, made.accounts), lived)
    assert all(0 <= share <= 1 for share in told.valid_share_by_minute)


@settings(max_examples=25)
@given(
    accounts=st.integers(1, 60),
    mean=st.floats(1, 100),
    ttl=st.sampled_from(["hourly", 6 * HOUR_SECONDS]),
    seed=st.integers(0, 99),
)
def test_requests_are_accounted_for(accounts, mean, ttl, seed):
    """Never fewer than keep all covers alive; least, lead, spread and rest make up what was sent.

    In each whole lifetime every account is asked for all its videos.
    """
    lived = plan(ttl=ttl, seconds=3 * DAY_SECONDS)
    made = steady_fleet(sizes(int(accounts * mean), accounts), lived, seed)
    chunks = sum(chunks_of(sum(c.count for c in found)) for found in made.accounts.values())
    told = forecast(made, lived)
    requests = told.requests
    assert told.lowest_valid_share == 1
    assert requests.sent >= lived.seconds // lived.longest_seconds * chunks
    parts = requests.least + requests.lead + requests.spread + requests.rest
    assert parts == pytest.approx(requests.sent)
    assert min(requests.least, requests.lead, requests.spread) >= 0
    assert requests.sent == sum(told.requests_by_minute)
    assert requests.sent == sum(hour.requests for hour in told.by_hour())


@pytest.mark.parametrize(
    ("lead", "spread", "expected"),
    [
        pytest.param(0, 0, 23, id="at-the-last-moment"),
        pytest.param(3600, 0, 23, id="within-the-same-hour"),
        pytest.param(3600, 1800, 22, id="an-hour-earlier"),
        pytest.param(1200, 1800, 23, id="together-less-than-an-hour"),
    ],
)
def test_hourly_covers_lose_whole_hours(lead, spread, expected):
    """Asked for before the full hour, they live from that hour: lead and spread cost by the hour."""
    policy = replace(POLICY, lead=timedelta(seconds=lead), spread=timedelta(seconds=spread))
    assert plan(policy=policy).period_seconds(0.5) == expected * HOUR_SECONDS


@pytest.mark.parametrize("ttl", ["hourly", 6 * HOUR_SECONDS])
@pytest.mark.parametrize(
    ("accounts", "limits"),
    [
        pytest.param(100, {"limit_per_app": 6}, id="app"),
        pytest.param(1, {"limit_per_token": 1}, id="token"),
    ],
)
def test_capacity_holds(ttl, accounts, limits):
    """A little less stays alive for days, a little more than the most does not."""

    def told(videos, seconds=3 * DAY_SECONDS):
        lived = plan(ttl=ttl, seconds=seconds, **limits)
        return forecast(steady_fleet([int(videos / accounts)] * accounts, lived, 0), lived)

    def capacity(found):
        return found.app or found.token

    known = capacity(told(2000 * accounts, seconds=60))
    below, above = told(0.93 * known.when_due), told(1.05 * known.at_most)
    assert (below.lowest_valid_share, below.first_death_seconds) == (1, None)
    assert above.first_death_seconds is not None
    assert capacity(below).load < 1 < capacity(above).load


def test_without_limits_there_is_no_capacity_to_name():
    """And none for an app without videos."""
    told = forecast(fleet(new(500)), plan(limit_per_token=0, seconds=600))
    assert (told.token, told.app) == (None, None)
    assert told.requests.sent == 25
    nobody = forecast(fleet(), plan(limit_per_app=5, seconds=600))
    assert (nobody.app, nobody.requests.sent, nobody.lowest_valid_share) == (None, 0, 1)


def test_the_same_seed_tells_the_same():
    """Another seed is another fleet of the same sizes."""
    lived = plan(limit_per_app=60)

    def told(seed):
        return forecast(steady_fleet(sizes(30_000, 200), lived, seed), lived)

    assert told(1) == told(1)
    assert told(1).requests_by_minute != told(2).requests_by_minute
    assert told(1).largest_account == told(2).largest_account


# --- In words ---


def test_operators_are_told_in_a_few_lines():
    """Name and text; what matters most comes last."""
    lived = plan(limit_per_app=100, seconds=DAY_SECONDS)
    lines = dict(report.lines(forecast(steady_fleet(sizes(5_000, 20), lived, 0), lived), lived))
    assert lines["fleet"] == "5,000 videos of 20 accounts, 1,392 in the largest"
    assert lines["covers live"] == "to the full hour and 24 h, asked for anew after 22 h"
    assert lines["valid covers"] == "100.000% at the worst, 100.000% after 1 d"
    assert lines["the app keeps alive"].endswith("in use, at this mix of accounts")
    assert list(lines)[-1] == "first death"
    assert lines["first death"] == "none within 1 d"


def test_operators_are_told_of_deaths_limits_and_the_unreachable():
    """The words for what is not as it should be."""
    gone = Cohort(START + 9, NO_COVER, 3, misses=5, missing=True)
    worked = fleet([Cohort(START, START + 3661, 4000), gone])
    lived = plan(ttl=7200, limit_per_token=1, seconds=7200)
    lines = dict(report.lines(forecast(worked, lived), lived))
    assert lines["fleet"].endswith(", 3 unreachable")
    assert lines["first death"] == "after 1 h 1 min"
    assert not lines["valid covers"].startswith("100")
    assert "closest call" not in lines
    assert "all valid" not in lines
    free = plan(limit_per_token=0, seconds=60)
    lines = dict(report.lines(forecast(fleet(), free), free))
    assert lines["a token keeps alive"] == "any number: there is no limit"


def test_a_fleet_just_imported_is_told_when_all_were_valid():
    """The first covers come in turn; nothing died."""
    lived = plan(limit_per_token=60, seconds=HOUR_SECONDS)
    lines = dict(report.lines(forecast(fleet(new(1000)), lived), lived))
    assert lines["all valid"] == "after 50 s"
    assert lines["first death"] == "none within 1 h"


def test_one_is_not_many_and_nothing_has_no_sign():
    """A single video; no shares of so few requests."""
    lived = plan(seconds=HOUR_SECONDS)
    lines = dict(report.lines(forecast(fleet(new(1)), lived), lived))
    assert lines["fleet"] == "1 video of 1 account, 1 in the largest"
    assert lines["busiest minute"] == "1 request, 1 with one token"
    assert [lines[f"+ {name}"] for name in ("lead", "spread", "rest")] == ["0", "0", "1"]


@given(
    sent=st.integers(0, 10**6),
    least=st.floats(0, 10**6),
    lead=st.floats(-1e6, 1e6),
    rest=st.floats(-2, 2),
)
def test_no_figure_is_minus_zero(sent, least, lead, rest):
    """Neither in requests nor in percent, which too few requests do not get."""
    texts = [text for _, text in report._request_lines(Requests(sent, least, lead, 0.0, rest))]
    assert not any(re.search(r"-0(\.0)?(?![\d.])", text) for text in texts)
    assert (least >= 100) == ("%" in "".join(texts))


def test_a_share_is_not_rounded_up_to_all():
    """One dead cover of ten million is said."""
    assert report.percent(1 - 1e-7) == "99.999%"
    assert report.percent(1.0) == "100.000%"


def test_inf_is_no_time():
    """A fleet without any cohort wakes never."""
    assert list(Engine(fleet([]), plan(), Recorder(inf)).run()) == []
