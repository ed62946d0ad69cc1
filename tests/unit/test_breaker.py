"""How many requests may be in flight."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from itertools import count, cycle
from math import ceil, inf, log2
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refresher.domain.breaker import (
    ACCOUNTS,
    FIRST_WINDOW,
    IDLE_SECONDS,
    LOST_TRIALS,
    RUN,
    TRIAL_SECONDS,
    Breaker,
)

HAIR = 1e-6
TIMEOUT_SECONDS = 10.0
chances = st.floats(min_value=0, max_value=1, exclude_max=True)
latencies = st.lists(st.floats(0, TIMEOUT_SECONDS), min_size=1, max_size=40)
mosts = st.integers(1, 300)


def breaker(most=100, chance=0.0):
    return Breaker(most, lambda: chance)


def opened(now=0.0, chance=0.0):
    """A breaker just opened by requests that failed at once."""
    opened = breaker(chance=chance)
    assert not any(opened.failed(f"account-{n}", now, now) for n in range(RUN))
    assert opened.is_open
    return opened


def lost(now=0.0):
    """One whose trials have failed until the API was taken to be away."""
    lost = opened(now)
    for number in range(LOST_TRIALS):
        now += lost.pause_left(now)
        lost.sent(now)
        assert (
            lost.failed(f"trial-{number}", now, now) == lost.is_lost == (number == LOST_TRIALS - 1)
        )
    return lost, now


def grown(most=100):
    """A breaker that was successful until its window was full, just now at 0."""
    grown = breaker(most)
    grown.sent(0.0)
    for _ in range(most):
        grown.succeeded(0.0)
    assert grown.window(0.0) == most
    return grown


@dataclass
class World:
    """An API and much work for it, under a virtual clock: whatever may be sent is sent at once.

    `meets` says what a request sent at a time meets: whether it fails, and after how long.
    """

    breaker: Breaker
    meets: Callable[[float], tuple[bool, float]]
    accounts: Iterator[int]
    now: float = 0.0
    sent: list[float] = field(default_factory=list)
    successes: int = 0
    openings: list[float] = field(default_factory=list)
    _in_flight: list[tuple[float, int, bool, str, float]] = field(default_factory=list)

    @property
    def due(self):
        """When what is in flight will be answered."""
        return [answer_at for answer_at, *_ in self._in_flight]

    def run(self, until=inf, done=lambda: False):
        while not done():
            while len(self._in_flight) < self.breaker.window(self.now):
                self._send()
            pause = self.breaker.pause_left(self.now) or inf
            answer_at = self._in_flight[0][0] if self._in_flight else inf
            if min(self.now + pause, answer_at) >= until:
                return
            self.now = min(self.now + pause, answer_at)
            if self.now == answer_at:
                self._answer()

    def _send(self):
        fails, latency = self.meets(self.now)
        account = f"account-{next(self.accounts)}"
        answer_at = self.now + latency
        heappush(self._in_flight, (answer_at, len(self.sent), fails, account, self.now))
        self.breaker.sent(self.now)
        self.sent.append(self.now)

    def _answer(self):
        _, _, failed, account, sent = heappop(self._in_flight)
        if failed:
            was_open = self.breaker.is_open
            self.breaker.failed(account, sent, self.now)
            self.openings += [self.now] if self.breaker.is_open and not was_open else []
            return
        self.breaker.succeeded(self.now)
        self.successes += 1


def world(most, meets, *, accounts=0, chances=(0.0,)):
    """`accounts` take turns; 0 is no end of them."""
    turns = cycle(range(accounts)) if accounts else count()
    return World(Breaker(most, partial(next, cycle(chances))), meets, turns)


@given(
    most=mosts,
    steps=st.lists(
        st.tuples(st.floats(0, 15), st.sampled_from(["sent", "succeeded", "a", "b", "c"]))
    ),
)
def test_the_window_stays_within_its_bounds(most, steps):
    """Whatever happens and whatever the order: never above the setting, 0 only while paused."""
    now, under_test = 0.0, breaker(most)
    for passed, event in steps:
        now += passed
        if event in "abc":
            under_test.failed(event, now, now)
        else:
            getattr(under_test, event)(now)
        window, pause = under_test.window(now), under_test.pause_left(now)
        assert 0 <= window <= (1 if under_test.is_open else most)
        assert (window == 0) == (pause > 0)
        assert pause <= TRIAL_SECONDS[-1]


def test_the_window_starts_small_and_grows_with_each_success():
    """One more for each answer, up to the setting."""
    under_test = breaker(FIRST_WINDOW + 2)
    windows = [under_test.window(0.0)]
    for _ in range(3):
        under_test.sent(0.0)
        under_test.succeeded(0.0)
        windows.append(under_test.window(0.0))
    assert windows == [FIRST_WINDOW, FIRST_WINDOW + 1, FIRST_WINDOW + 2, FIRST_WINDOW + 2]


def test_a_small_setting_is_never_exceeded():
    """The first window is no more than what is allowed in all."""
    assert breaker(3).window(0.0) == 3


def test_after_an_idle_time_the_window_is_small_again():
    """Who knows whether the API is still there; a little later than a moment ago it was."""
    under_test = grown()
    assert under_test.window(IDLE_SECONDS - HAIR) == 100
    assert under_test.window(IDLE_SECONDS) == FIRST_WINDOW
    under_test.sent(IDLE_SECONDS)
    assert under_test.window(IDLE_SECONDS) == FIRST_WINDOW


def test_an_idle_time_widens_no_window():
    """One that was just closed stays at its one request."""
    under_test, now = lost()
    under_test.succeeded(now)
    assert under_test.window(now + IDLE_SECONDS) == 1


@pytest.mark.parametrize(
    ("failing", "opens"),
    [
        pytest.param("abcde", True, id="five-accounts"),
        pytest.param("aaaab", True, id="two-accounts"),
        pytest.param("baaaa", True, id="the-other-one-first"),
        pytest.param("aaaaaaaaab", True, id="the-other-one-late"),
        pytest.param("abab", False, id="four-failures"),
        pytest.param("aaaaaaaaaa", False, id="one-account"),
        pytest.param("abab-abab", False, id="a-success-between"),
        pytest.param("abab-ababa", True, id="a-run-after-a-success"),
    ],
)
def test_a_run_of_failures_opens(failing, opens):
    """Five in a row, of two accounts or more; `-` is a success."""
    assert (RUN, ACCOUNTS) == (5, 2)
    assert FIRST_WINDOW - (RUN - 1) == 4, "places that failing accounts leave to the others"
    under_test = breaker()
    for account in failing:
        assert not under_test.is_open
        under_test.sent(0.0)
        if account == "-":
            under_test.succeeded(0.0)
        else:
            assert not under_test.failed(account, 0.0, 0.0), "that it is lost is not known yet"
    assert under_test.is_open == opens


@pytest.mark.parametrize(
    ("sent", "news", "opens"),
    [
        pytest.param(5.0, True, True, id="since-the-last-answer"),
        pytest.param(4.9, True, False, id="sent-before-others-were-answered"),
        pytest.param(5.0, False, False, id="accounts-that-fail-by-themselves"),
    ],
)
def test_what_says_nothing_of_the_api_does_not_open(sent, news, opens):
    """Twenty time-outs at once, of requests that others have overtaken, are those accounts' own."""
    under_test = breaker()
    under_test.succeeded(5.0)
    for number in range(20):
        under_test.failed(f"account-{number}", sent, 10.0, news=news)
    assert under_test.is_open == opens


@given(times=st.integers(0, 500), most=mosts)
def test_an_account_alone_never_opens_it(times, most):
    """Its failures take nothing from the others."""
    under_test = breaker(most)
    assert not any(under_test.failed("account", float(now), float(now)) for now in range(times))
    assert under_test.window(0.0) == min(most, FIRST_WINDOW)


@given(chance=chances, trials=st.integers(0, 8))
def test_the_pause_grows_with_each_failed_trial(chance, trials):
    """Half to all of a second at first, of eight at last."""
    assert TRIAL_SECONDS == (1.0, 1.5, 3.0, 6.0, 8.0)
    now, under_test = 0.0, opened(chance=chance)
    for _ in range(trials):
        now += under_test.pause_left(now)
        under_test.sent(now)
        under_test.failed("account", now, now)
    longest = TRIAL_SECONDS[min(trials, 4)]
    assert under_test.pause_left(now) == pytest.approx(longest * (1 + chance) / 2)


def test_one_trial_goes_when_the_pause_is_over():
    """None before, and while it is in flight no second one."""
    under_test = opened(chance=0.5)
    assert under_test.window(0.75 - HAIR) == 0
    assert under_test.window(0.75) == 1
    under_test.sent(0.75)
    assert (under_test.window(3.0), under_test.pause_left(3.0)) == (1, 0)


def test_a_trial_that_was_dropped_is_replaced():
    """A request whose end is never told blocks nothing."""
    under_test = opened()
    under_test.sent(1.0)
    assert under_test.window(2.0) == 1
    under_test.sent(2.0)
    under_test.failed("account", 2.0, 2.0)
    assert under_test.pause_left(2.0) == TRIAL_SECONDS[1] / 2


def test_late_failures_do_not_lengthen_the_pause():
    """They were sent before it opened: only a trial's failure is news."""
    under_test = opened()
    for late in range(200):
        assert not under_test.failed(f"account-{late}", 0.0, 0.3)
    assert under_test.pause_left(0.3) == pytest.approx(0.2)
    under_test.sent(0.5)
    under_test.failed("account", 0.5, 0.5)
    for late in range(200):
        assert not under_test.failed(f"account-{late}", 0.0, 0.6)
    assert under_test.pause_left(0.5) == TRIAL_SECONDS[1] / 2


def test_a_success_closes_it_with_a_window_of_one():
    """Said once, whoever brought it, a trial or a late one; then it grows again."""
    for is_trial in (True, False):
        under_test, now = lost()
        now += 8.0
        if is_trial:
            under_test.sent(now)
        assert under_test.succeeded(now)
        assert not under_test.is_open
        assert (under_test.window(now), under_test.pause_left(now)) == (1, 0)
        assert not under_test.succeeded(now)
        assert under_test.window(now) == 2


def test_an_api_that_was_there_after_all_is_used_as_at_first():
    """Nothing was said of it, and nothing is said as a trial is answered."""
    under_test = grown()
    for number in range(RUN):
        under_test.failed(f"account-{number}", 1.0, 1.0)
    under_test.sent(2.0)
    assert not under_test.succeeded(2.0)
    assert under_test.window(2.0) == FIRST_WINDOW


def test_trials_of_accounts_that_fail_by_themselves_say_nothing():
    """However many: they pause it, and the API is not lost by them."""
    under_test, now = opened(), 0.0
    for number in range(20):
        now += under_test.pause_left(now)
        under_test.sent(now)
        assert not under_test.failed(f"account-{number}", now, now, news=False)
        assert under_test.pause_left(now) > 0
    assert not under_test.is_lost


def test_a_new_opening_starts_with_a_short_pause():
    """What was before the recovery counts no more."""
    under_test = opened()
    for now in (1.0, 3.0, 7.0):
        under_test.sent(now)
        under_test.failed("account", now, now)
    under_test.succeeded(9.0)
    for account in "abcde":
        assert not under_test.failed(account, 10.0, 10.0)
    assert under_test.is_open
    assert under_test.pause_left(10.0) == TRIAL_SECONDS[0] / 2


def test_how_long_it_was_open():
    """From the failure that opened it to the success that closed it, for the one who asks then."""
    assert breaker().open_seconds(5.0) == 0
    under_test = opened(now=3.0)
    assert under_test.open_seconds(5.0) == 2
    under_test.succeeded(7.0)
    assert under_test.open_seconds(7.0) == under_test.open_seconds(99.0) == 4


@given(
    most=mosts,
    latencies=latencies,
    chances=st.lists(chances, min_size=1, max_size=10),
    accounts=st.just(0) | st.integers(2, 50),
)
def test_an_api_that_is_down_costs_few_requests(most, latencies, chances, accounts):
    """At most two first windows until it opens and seven trials: 23 requests in 20 s, from idle."""
    waits = cycle(latencies)
    down = world(most, lambda _: (True, next(waits)), accounts=accounts, chances=chances)
    down.run(until=20.0)
    assert len(down.sent) <= 23
    assert len(down.openings) <= 1
    if not accounts:
        assert len(down.sent) <= FIRST_WINDOW + RUN - 1 + 7


@given(
    most=mosts,
    latencies=latencies,
    chances=st.lists(chances, min_size=1, max_size=10),
    back_at=st.floats(0, 90),
    round_trip=st.floats(0.05, 2),
)
def test_an_api_that_is_back_is_soon_used_in_full(most, latencies, chances, back_at, round_trip):
    """A trial within the longest pause of the last failure, then twice as many each round trip."""
    waits = cycle(latencies)

    def meets(now):
        return (True, next(waits)) if now < back_at else (False, round_trip)

    api = world(most, meets, chances=chances)
    api.run(until=back_at)
    last_failure = max([back_at, *api.due])
    api.run(done=lambda: api.successes)
    first_success = api.now
    api.run(done=lambda: api.breaker.window(api.now) == most and api.now >= last_failure)
    assert first_success <= last_failure + TRIAL_SECONDS[-1] + round_trip + HAIR
    round_trips = 1 + ceil(log2(most))
    assert api.now <= last_failure + TRIAL_SECONDS[-1] + round_trips * round_trip + HAIR


@pytest.mark.parametrize("seed", range(5))
def test_one_failure_in_ten_does_little_harm(seed):
    """Five by chance in a row are rare, and then it is open for a second or so."""
    chance = Random(seed)

    def meets(_):
        return chance.random() < 0.1, chance.uniform(0.1, 0.5)

    flaky = world(50, meets, accounts=1000)
    flaky.run(done=lambda: len(flaky.sent) >= 20_000)
    assert len(flaky.openings) <= 2
    assert len(flaky.sent) / flaky.now > 0.9 * 50 / 0.3
    assert flaky.breaker.window(flaky.now) == 50


def test_a_full_window_that_dies_is_not_sent_again():
    """What is in flight is lost, and then a run of failures is all there is."""
    dies = world(200, lambda now: (now >= 5.0, 0.5))
    dies.run(until=5.0)
    before = len(dies.sent)
    dies.run(until=20.0)
    assert len(dies.openings) == 1
    assert len(dies.sent) - before <= 200 + RUN - 1 + 7
