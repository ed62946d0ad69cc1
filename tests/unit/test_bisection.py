"""Which videos of a chunk spoil it."""

from collections import Counter
from math import ceil, log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refresher.domain.bisection import Bisection

CHUNK = 20
chunks = st.integers(1, CHUNK).map(range)
spoilt = chunks.flatmap(
    lambda chunk: st.tuples(st.just(chunk), st.sets(st.sampled_from(chunk), min_size=1))
)


def told(bisection, refuses):
    """Asks until all is known; the parts in their order, each with whether it was refused."""
    asked = []
    while (part := bisection.next_part()) is not None:
        asked.append((list(part), refuses(part)))
        bisection.tell(refused=asked[-1][1])
    return asked


def bisected(chunk, bad):
    bisection = Bisection(chunk)
    return bisection, told(bisection, lambda part: not bad.isdisjoint(part))


def most_requests(size, bad):
    depth = ceil(log2(size))
    return min(depth + 2 + (bad - 1) * 2 * depth, 2 * size + depth)


@given(spoilt)
def test_the_bad_ones_are_found_and_no_other(spoilt):
    """Whichever are bad, exactly they are named, each once."""
    chunk, bad = spoilt
    bisection, _ = bisected(chunk, bad)
    assert sorted(bisection.bad) == sorted(bad)


@given(spoilt)
def test_every_good_one_is_answered_once(spoilt):
    """No answer is missing and no quota is spent twice."""
    chunk, bad = spoilt
    _, asked = bisected(chunk, bad)
    answered = Counter(suspect for part, refused in asked if not refused for suspect in part)
    assert answered == Counter(set(chunk) - bad)


@given(spoilt)
def test_a_bad_one_was_refused_alone(spoilt):
    """Nobody is accused by inference, and nobody asked again once accused."""
    chunk, bad = spoilt
    _, asked = bisected(chunk, bad)
    alone = [part[0] for part, refused in asked if refused and len(part) == 1]
    assert sorted(alone) == (sorted(bad) if len(chunk) > 1 else [])


@given(spoilt)
def test_the_requests_are_bounded(spoilt):
    """A few for the first bad one, at most twice the depth for each other, never many in all."""
    chunk, bad = spoilt
    _, asked = bisected(chunk, bad)
    assert len(asked) <= most_requests(len(chunk), len(bad))


def test_one_bad_among_twenty_takes_seven_requests_at_most():
    """Five halvings, a confirmation, and one request for all the others; six on average."""
    requests = [len(bisected(range(CHUNK), {bad})[1]) for bad in range(CHUNK)]
    assert max(requests) == 7
    assert sum(requests) / CHUNK < 6


@pytest.mark.parametrize(
    ("bad", "parts"),
    [
        pytest.param("a", ["ab", "a", "cdb"], id="the-others-at-once"),
        pytest.param("d", ["ab", "c", "d"], id="not-asked-what-is-known"),
        pytest.param("b", ["ab", "a", "b", "cd"], id="a-single-one-is-confirmed"),
        pytest.param("bd", ["ab", "a", "b", "cd", "c", "d"], id="two"),
    ],
)
def test_what_is_asked(bad, parts):
    """The parts of a refused chunk of four."""
    _, asked = bisected("abcd", set(bad))
    assert ["".join(part) for part, _ in asked] == parts


def test_a_suspect_all_by_itself_is_bad():
    """Its chunk was refused alone already."""
    bisection = Bisection(["a"])
    assert bisection.next_part() is None
    assert bisection.bad == ["a"]


@given(chunk=chunks, answers=st.lists(st.booleans(), min_size=3 * CHUNK, max_size=3 * CHUNK))
def test_it_ends_whatever_is_told(chunk, answers):
    """An API that changes its mind costs a bounded number of requests and accuses nobody twice."""
    bisection, answer = Bisection(chunk), iter(answers)
    asked = told(bisection, lambda _: next(answer))
    assert len(asked) <= 2 * len(chunk) + ceil(log2(len(chunk)))
    assert len(set(bisection.bad)) == len(bisection.bad)
    assert set(bisection.bad) <= set(chunk)


@given(chunk=chunks, answers=st.lists(st.booleans(), min_size=3 * CHUNK, max_size=3 * CHUNK))
def test_hopeless_is_two_refused_alone_and_nothing_answered(chunk, answers):
    """The first answer ends the suspicion that all is refused, for good."""
    bisection, given_answers = Bisection(chunk), iter(answers)
    answered = False
    while bisection.next_part() is not None:
        refused = next(given_answers)
        bisection.tell(refused=refused)
        answered |= not refused
        assert bisection.hopeless == (len(bisection.bad) >= 2 and not answered)


def test_an_api_that_refuses_everything_is_soon_hopeless():
    """Of twenty that are all refused, nine requests are enough to stop."""
    bisection = Bisection(range(CHUNK))
    requests = 0
    while not bisection.hopeless:
        assert bisection.next_part()
        bisection.tell(refused=True)
        requests += 1
    assert requests == 9


def test_neighbours_are_not_hopeless():
    """Two bad ones side by side, as inserted together, leave an answer in between."""
    for first in range(CHUNK - 1):
        bisection, _ = bisected(range(CHUNK), {first, first + 1})
        assert not bisection.hopeless
