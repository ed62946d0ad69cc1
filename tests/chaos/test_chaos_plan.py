"""The plan of a chaos run: a seed always gives the same plan, and it can be carried out."""

from itertools import combinations

import pytest

from tests.chaos.mischief import BREAKS
from tests.chaos.plan import KINDS, REPLICAS, make_plan

SEEDS = range(200)
RESOURCES = {kind.name: kind.resource for kind in KINDS}


def test_a_seed_makes_one_plan():
    """So a failed run can be repeated."""
    assert make_plan(7, 60) == make_plan(7, 60)
    assert make_plan(7, 60) != make_plan(8, 60)
    assert str(make_plan(7, 60)) == str(make_plan(7, 60))


def test_a_plan_stays_as_it_is():
    """The seed of a bug report gives the same plan later. Change it only with the kinds."""
    first = make_plan(1, 30).faults[0]
    assert (first.at, first.kind) == (4.34, "database.away_asking")


@pytest.mark.parametrize("seconds", [30, 60])
def test_the_last_part_is_quiet(seconds):
    """Each fault has ended by then."""
    for seed in SEEDS:
        plan = make_plan(seed, seconds)
        assert plan.faults
        assert all(fault.at + fault.lasts <= plan.faults_end + 0.01 for fault in plan.faults)


def test_faults_do_not_get_into_each_others_way():
    """Two faults of one resource never overlap on one target."""
    for seed in SEEDS:
        for first, second in combinations(make_plan(seed, 60).faults, 2):
            same = (RESOURCES[first.kind], first.target) == (RESOURCES[second.kind], second.target)
            assert not same or first.at + first.lasts <= second.at


def test_all_kinds_come_about():
    """A plan holds every kind of fault."""
    kinds = {fault.kind for seed in range(9) for fault in make_plan(seed, 60).faults}
    assert kinds == {kind.name for kind in KINDS}


def test_all_kinds_can_be_done():
    """Each kind of fault has its context manager."""
    assert BREAKS.keys() == {kind.name for kind in KINDS}


def test_targets_exist():
    """Each target is the number of a replica or of an account."""
    replicas = {kind.name for kind in KINDS if kind.target == "replica"}
    for fault in make_plan(1, 600).faults:
        assert fault.kind not in replicas or fault.target in range(REPLICAS)


def test_a_plan_can_be_read():
    """A failed run prints it."""
    lines = str(make_plan(3, 30)).splitlines()
    assert lines[0].startswith("seed 3, 30 s, ")
    assert lines[-1].split() == ["20.0", "s", "quiet"]
