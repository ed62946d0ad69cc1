"""Claims that one account's trigger, constraint or lock does not stop."""

from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from structlog.testing import capture_logs

from refresher.domain.errors import DatabaseBusy, DatabaseUnavailable, StatementFailed, is_away
from refresher.domain.parts import PARTS
from refresher.flow import claiming
from refresher.flow.claiming import SEARCH_SECONDS, Claiming


@dataclass
class Claimed:
    open_id: str
    chunks: int = 1


@dataclass
class Accounts:
    """Accounts by name, some of which make the database raise; remembers what it was asked."""

    due: list[str]
    bad: dict[str, Exception] = field(default_factory=dict)
    at_all: Exception | None = None
    asked: list[object] = field(default_factory=list)
    skipped_locked: bool = False
    paused_since: None = None
    unleased: tuple[str, ...] = ()

    async def claim(self, budget, *, skipped=(), only=None, tried=None):  # noqa: ARG002
        self.asked.append(only)
        if self.at_all:
            raise self.at_all
        picked = [name for name in self.due if name not in skipped]
        picked = [name for name in picked if only is None or name in only][:budget]
        for name in picked:
            if name in self.bad:
                raise self.bad[name]
        self.due = [name for name in self.due if name not in picked]
        return [Claimed(name) for name in picked]

    async def claimable(self, budget, skipped, tried=None):  # noqa: ARG002
        return [name for name in self.due if name not in skipped][:budget]


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def names(claims):
    return sorted(claim.open_id for claim in claims)


def fleet(number):
    return [f"{n:02}" for n in range(number)]


def careful(accounts, clock):
    return Claiming(accounts, chance=lambda: 1 - 2**-53, clock=clock)


async def all_of(careful_, budget):
    """Claim after claim, until there is none."""
    claims = []
    while some := await careful_.claim(budget):
        claims += some
    return claims


async def test_a_good_claim_is_one_statement(clock):
    """Nothing is searched where nothing fails."""
    accounts = Accounts(fleet(30))
    assert names(await careful(accounts, clock).claim(20)) == fleet(20)
    assert accounts.asked == [None]


@pytest.mark.parametrize(
    "error",
    [ValueError("no\nDETAIL: row"), StatementFailed("no"), DatabaseBusy("lock")],
    ids=repr,
)
async def test_who_spoils_a_claim_is_found_in_few_statements(clock, error):
    """One of 64: the other 63 are claimed, it is said once, and then it is left out."""
    accounts = Accounts(fleet(64), {"13": error})
    careful_ = careful(accounts, clock)
    with capture_logs() as logs:
        claims = await all_of(careful_, 64)
        accounts.due += ["later"]
        claims += await all_of(careful_, 64)
    assert names(claims) == [*(name for name in fleet(64) if name != "13"), "later"]
    assert len(accounts.asked) == 2 + 2 * PARTS + 3
    assert [(log["event"], log["open_id"], log["at"]) for log in logs] == [
        ("account.refused", "13", "claim")
    ]
    assert logs[0]["reason"] == str(error).splitlines()[0]


async def test_it_is_tried_again_by_itself_ever_more_rarely(clock):
    """While it spoils nobody's claim; and when it is well it is one of all again."""
    accounts = Accounts(["bad"], {"bad": ValueError("no")})
    careful_ = careful(accounts, clock)
    await careful_.claim(8)
    tried = []
    for _ in range(1000):
        clock.now += 1
        accounts.asked.clear()
        await careful_.claim(8)
        if ["bad"] in accounts.asked:
            tried.append(clock.now - 100)
    waits = [later - first for first, later in pairwise(tried)]
    assert waits[:4] == [2, 4, 8, 16]
    assert max(waits) <= 300
    accounts.bad = {}
    clock.now += 300
    assert names(await careful_.claim(8)) == ["bad"]
    careful_.released("bad")
    accounts.due = ["bad"]
    accounts.asked.clear()
    assert names(await careful_.claim(8)) == ["bad"]
    assert accounts.asked == [None]


async def test_a_lock_may_be_let_go_any_moment(clock):
    """Who waits for one is tried again every few seconds at least."""
    accounts = Accounts(["bad"], {"bad": DatabaseBusy("lock")})
    careful_ = careful(accounts, clock)
    await careful_.claim(8)
    clock.now += 1000
    for _ in range(10):
        accounts.asked.clear()
        await careful_.claim(8)
        clock.now += claiming.LONGEST_LOCK_WAIT_SECONDS
        assert ["bad"] in accounts.asked


@pytest.mark.parametrize(
    "error", [ValueError("a rule"), StatementFailed("a rule"), DatabaseBusy("lock")], ids=repr
)
async def test_what_spoils_any_claim_is_no_account_s_matter(clock, error):
    """A locked table, a trigger for each statement: the database is away, nobody is left alone."""
    accounts = Accounts(fleet(9), at_all=error)
    careful_ = careful(accounts, clock)
    with capture_logs() as logs, pytest.raises(DatabaseUnavailable, match=str(error)) as raised:
        await careful_.claim(8)
    assert is_away(raised.value) or raised.value is error
    assert logs == []
    accounts.at_all = None
    assert names(await careful_.claim(9)) == fleet(9)


@pytest.mark.parametrize("statement", range(24))
async def test_what_was_leased_is_kept_when_the_database_goes_away(clock, statement):
    """At whatever statement, in the middle of a search or while those left alone are tried."""
    bad = {"03": DatabaseBusy("lock"), "09": ValueError("no")}
    accounts = Accounts(fleet(16), bad)
    careful_, claim, leased, away = careful(accounts, clock), accounts.claim, [], []

    async def going(*arguments, **options):
        if len(accounts.asked) == statement:
            accounts.asked.append("away")
            away.append(statement)
            raise DatabaseUnavailable("gone")
        leased.extend(names(claims := await claim(*arguments, **options)))
        return claims

    accounts.claim = going
    returned = []
    for _ in range(40):
        with suppress(DatabaseUnavailable):
            returned += names(await careful_.claim(16))
        if len(accounts.asked) > 12:
            bad.clear()
        clock.now += 1
    assert away
    assert sorted(returned) == sorted(leased) == fleet(16)


@pytest.mark.parametrize("tried", [None, ()], ids=["all", "trial"])
async def test_what_is_leased_waits_for_no_lock(clock, tried):
    """However many others wait for one: it is handed over at the instant, and soon."""
    bad = {name: DatabaseBusy("lock") for name in fleet(20)}
    accounts = Accounts(fleet(20), bad)
    careful_, claim, leased_at = careful(accounts, clock), accounts.claim, []

    async def slow(*arguments, **options):
        try:
            claims = await claim(*arguments, **options)
        except DatabaseBusy:
            clock.now += 0.2
            raise
        leased_at.extend([clock.now] * len(claims))
        return claims

    accounts.claim = slow
    for _ in range(20):
        await careful_.claim(64)
    for number in range(60):
        begun = clock.now = clock.now + 0.5
        accounts.due.append(f"good {number}")
        leased_at.clear()
        assert names(await careful_.claim(64, tried)) == [f"good {number}"]
        assert leased_at == [clock.now]
        assert clock.now - begun <= 0.2 + 1e-6
    clock.now += claiming.LONGEST_LOCK_WAIT_SECONDS
    bad.clear()
    assert names(await all_of(careful_, 64)) == fleet(20)


async def test_those_left_alone_have_their_turns_while_others_are_due(clock):
    """Each within a few seconds after its wait, the one that waited longest first."""
    accounts = Accounts(fleet(20), {name: DatabaseBusy("lock") for name in fleet(20)})
    careful_ = careful(accounts, clock)
    for _ in range(20):
        await careful_.claim(64)
    clock.now += claiming.LONGEST_LOCK_WAIT_SECONDS
    accounts.asked.clear()
    more = 0
    for number in range(20):
        accounts.due.append(f"good {number}")
        await careful_.claim(64)
        more += careful_.more
    assert {only[0] for only in accounts.asked if only} == set(fleet(20))
    assert more == 19


async def test_an_account_whose_release_is_refused_is_told_of_once(clock):
    """Its claim works each time; it is claimed ever more rarely, not while its lease lasts, and
    is as the others when it was given back."""
    accounts = Accounts(["ana"])
    careful_ = careful(accounts, clock)
    assert names(await careful_.claim(8)) == ["ana"]
    told, claimed_at = [careful_.skip("ana", ValueError("no"), "release", 60)], []
    with capture_logs() as logs:
        for second in range(2000):
            clock.now += 1
            if claimed_at and second < claimed_at[-1] + 60:  # under lease
                assert await careful_.claim(8) == []
                continue
            accounts.due = ["ana"]
            if await careful_.claim(8):
                claimed_at.append(second)
                told.append(careful_.skip("ana", ValueError("no"), "release", 60))
                careful_.ended("ana")
    assert (told[0], any(told[1:]), logs) == (True, False, [])
    waits = [later - first for first, later in pairwise(claimed_at)]
    assert min(waits) >= 60
    assert claiming.LONGEST_WAIT_SECONDS in waits
    clock.now += 1000
    accounts.due = ["ana"]
    assert names(await careful_.claim(8)) == ["ana"]
    careful_.released("ana")
    assert careful_.skip("ana", ValueError("again"), "release")


async def test_an_account_that_ended_without_a_word_is_tried_again(clock):
    """Its lease was lost: it is left alone no longer than any."""
    accounts = Accounts(["bad"], {"bad": ValueError("no")})
    careful_ = careful(accounts, clock)
    await careful_.claim(8)
    accounts.bad = {}
    clock.now += 1
    assert names(await careful_.claim(8)) == ["bad"]
    accounts.due = ["bad"]
    clock.now += 1000
    assert await careful_.claim(8) == []
    careful_.ended("bad")
    clock.now += 1
    assert names(await careful_.claim(8)) == ["bad"]


async def test_a_search_takes_no_longer_than_it_may(clock, monkeypatch):
    """It goes on with the next claim, and in the end all is known."""
    bad = {name: DatabaseBusy("lock") for name in fleet(40)}
    accounts = Accounts([*fleet(40), "good"], bad)
    careful_ = careful(accounts, clock)
    claim = accounts.claim

    async def slow(*arguments, **options):
        try:
            return await claim(*arguments, **options)
        except DatabaseBusy:
            clock.now += 0.2
            raise

    accounts.claim = slow
    claims = []
    for _ in range(40):
        begun = clock.now
        claims += await careful_.claim(64)
        assert clock.now - begun < 3 * SEARCH_SECONDS
    assert names(claims) == ["good"]


async def test_a_lease_that_was_not_stored_leaves_its_account_alone(clock):
    """A trigger that suppresses the UPDATE: it would be picked first again and again."""
    accounts = Accounts(fleet(2), unleased=("ghost",))
    with capture_logs() as logs:
        careful_ = careful(accounts, clock)
        await careful_.claim(8)
        await careful_.claim(8)
    assert [log["open_id"] for log in logs] == ["ghost"]
