"""Which covers are fetched, and what the answers say about their host."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refresher.domain.due import DuePolicy, seconds_ahead
from refresher.domain.probing import Cover, Probe, choose, judge, refuses_all, to_confirm

LIFE, HOUR = 86_400.0, 3600.0
POLICY = DuePolicy(timedelta(hours=1), timedelta(minutes=30), timedelta(hours=6), 5)


def probes(*lefts, early=0.0, accounts=100):
    """Probes, the latest first, of a host that kills covers so early."""
    return [
        Probe(f"account-{n % accounts}", f"video-{n}", left, LIFE, served=left > early)
        for n, left in enumerate(lefts)
    ]


def refused(*lefts, **options):
    return probes(*lefts, early=LIFE, **options)


def served(*lefts):
    return [
        probe._replace(open_id=f"of-{probe.video_id}", video_id=f"s-{probe.video_id}")
        for probe in probes(*lefts)
    ]


def cover(number, left, open_id=None):
    return Cover(open_id or f"account-{number}", f"video-{number}", "https://c", left, LIFE)


def test_covers_that_die_early_are_found():
    """The lead grows by a quarter more than what was seen, but not to where covers are served."""
    verdict = judge([*refused(6000, 5000, 4000), *served(70_000)], 0.0)
    assert (verdict.early_seconds, verdict.refused, verdict.served) == (6000, 3, 0)
    assert verdict.grown_seconds == 7500
    verdict = judge([*refused(6000, 5000, 4000), *served(6600)], 0.0)
    assert verdict.grown_seconds == 6600


@pytest.mark.parametrize(
    "seen",
    [
        [],
        served(4000, 5000, 6000, 80_000),
        [*refused(6000), *served(80_000)],
        [*refused(6000, 5000), *served(80_000)],
        [*refused(6000)[:1] * 5, *served(80_000)],
        [*refused(6000, 5000, 4000, accounts=1), *served(80_000)],
        refused(6000, 5000, 4000),
        [*refused(80_000), *refused(6000, 5000, 4000), *served(70_000)][:4],
        [*refused(80_000, 6000, 4000), *served(70_000, 5000, 3000, 2000)],
        refused(80_000, 60_000, 40_000, 20_000, 5000, 4000),
    ],
    ids=[
        "nothing",
        "all served",
        "one refusal",
        "two refusals",
        "one cover again and again",
        "one account among several",
        "none with more left",
        "the youngest refused too",
        "refused here and there",
        "all refused",
    ],
)
def test_other_reasons_do_not_move_a_lead(seen):
    """A deleted video, a banned user, a daemon whose address is blocked, a bad day."""
    assert judge(seen, 0.0) is None


def test_a_fleet_of_one_account_can_tell_too():
    """There is nobody else to compare it with."""
    seen = [*refused(6000, 5000, 4000, accounts=1), *probes(0, 80_000, accounts=1)[1:]]
    assert judge(seen, 0.0) is not None


def test_what_is_known_already_is_no_news():
    """Covers with less left than the lead has grown are expected to be dead."""
    seen = [*refused(6000, 5000, 4000), *served(70_000)]
    assert judge(seen, 5500.0) is None
    assert judge(seen, 3000.0) is not None


def test_a_host_that_changed_its_mind_is_believed():
    """What was served in the morning with as little left does not speak for the evening."""
    seen = [*refused(*range(4000, 4800, 100)), *served(*range(3000, 4800, 100), 70_000)]
    assert judge(seen, 0.0).early_seconds == 4700


def test_the_lead_never_grows_beyond_the_last_third():
    """Where covers die in the middle of their life no lead keeps them alive."""
    verdict = judge([*refused(40_000, 35_000, 30_000), *served(80_000)], 0.0)
    assert verdict.grown_seconds == LIFE / 3
    assert seconds_ahead(POLICY, 0.0, LIFE, verdict.grown_seconds) < verdict.early_seconds


@given(
    early=st.floats(600, 5 * HOUR),
    lefts=st.lists(st.floats(60, LIFE), min_size=60, max_size=100),
)
def test_the_lead_grows_until_it_is_enough(early, lefts):
    """However probes fall: no step is too large, and in the end next to nothing refused is news."""
    grown = 0.0
    seen = probes(LIFE, *lefts, early=early)
    while verdict := judge(seen, grown):
        assert grown < verdict.grown_seconds <= 1.25 * early
        assert verdict.early_seconds <= early
        grown = verdict.grown_seconds
    left = {probe.video_id for probe in seen if not probe.served and probe.left_seconds > grown}
    assert len(left) < 3


def test_a_host_that_refuses_covers_of_any_age_is_told_apart():
    """Old covers alone may be dead; one served cover is enough to say no."""
    assert refuses_all(refused(80_000, 5000, 4000, 3000))
    assert not refuses_all(refused(6000, 5000, 4000, 3000))
    assert not refuses_all(refused(80_000, 5000, 4000))
    assert not refuses_all([*served(70_000), *refused(80_000, 5000, 4000, 3000)])


def test_half_of_the_choices_are_old_covers():
    """Chance decides which; nothing is chosen that may die on the way."""
    covers = [cover(n, 100.0 * n) for n in range(100)]
    assert choose(covers, iter([0.4, 0.0]).__next__).left_seconds == 100
    assert choose(covers, iter([0.4, 0.99]).__next__).left_seconds == 1000
    assert choose(covers, iter([0.5, 0.99]).__next__).left_seconds == 9900
    assert choose([cover(1, 14.0)], iter([0.4, 0.0]).__next__) is None
    assert choose([], iter([]).__next__) is None


def test_a_refusal_is_compared_with_its_like_and_with_a_young_cover():
    """Of other accounts first; never with itself."""
    chosen = cover(1, 5000.0)
    same = [cover(n, 5000.0 + n, "account-1") for n in (2, 3, 4)]
    others = [cover(5, 4000.0), cover(6, 9000.0), cover(7, 80_000.0), cover(8, 70_000.0)]
    confirming = to_confirm([chosen, *same, *others], chosen)
    assert confirming == [others[0], others[1], others[3], others[2]]
    assert to_confirm([chosen, *same], chosen) == same
    assert to_confirm([chosen], chosen) == []
