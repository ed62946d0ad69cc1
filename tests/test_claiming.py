"""Claims that one account's trigger, constraint or lock does not stop."""

from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from structlog.testing import capture_logs

from refresher import claiming
from refresher.claiming import SEARCH_SECONDS, Claiming
from refresher.domain.errors import DatabaseBusy, DatabaseUnavailable
from refresher.domain.parts import PARTS


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
    passed_by: bool = False
    unleased: tuple[str, ...] = ()

    async def claim(self, budget, *, left_out=(), only=None, tried=None):  # noqa: ARG002
        self.asked.append(only)
        if self.at_all:
            raise self.at_all
        picked = [name for name in self.due if name not in left_out]
        picked = [name for name in picked if only is None or name in only][:budget]
        for name in picked:
            if name in self.bad:
                raise self.bad[name]
        self.due = [name for name in self.due if name not in picked]
        return [Claimed(name) for name in picked]

    async def claimable(self, budget, left_out, tried=None):  # noqa: ARG002
        return [name for name in self.due if name not in left_out][:budget]


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(claiming, "monotonic", clock)
    return clock


def names(claims):
    return sorted(claim.open_id for claim in claims)


def fleet(number):
    return [f"{n:02}" for n in range(number)]


def careful(accounts):
    return Claiming(accounts, lambda: 1 - 2**-53)


async def test_a_good_claim_is_one_statement(clock):
    """Nothing is searched where nothing fails."""
    accounts = Accounts(fleet(30))
    assert names(await careful(accounts).claim(20)) == fleet(20)
    assert accounts.asked == [None]


@pytest.mark.parametrize("error", [ValueError("no\nDETAIL: row"), DatabaseBusy("lock")], ids=repr)
async def test_who_spoils_a_claim_is_found_in_few_statements(clock, error):
    """One of 64: the other 63 are claimed, it is said once, and then it is left out."""
    accounts = Accounts(fleet(64), {"13": error})
    careful_ = careful(accounts)
    with capture_logs() as logs:
        claims = await careful_.claim(64)
        accounts.due += ["later"]
        claims += await careful_.claim(64)
    assert names(claims) == [*(name for name in fleet(64) if name != "13"), "later"]
    assert len(accounts.asked) == 2 + 2 * PARTS + 1
    assert [(log["event"], log["open_id"], log["at"]) for log in logs] == [
        ("account.refused", "13", "claim")
    ]
    assert logs[0]["reason"] == str(error).splitlines()[0]


async def test_it_is_tried_again_by_itself_ever_more_rarely(clock):
    """While it spoils nobody's claim; and when it is well it is one of all again."""
    accounts = Accounts(["bad"], {"bad": ValueError("no")})
    careful_ = careful(accounts)
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
    accounts.due = ["bad"]
    accounts.asked.clear()
    assert names(await careful_.claim(8)) == ["bad"]
    assert accounts.asked == [None]


async def test_a_lock_may_be_let_go_any_moment(clock):
    """Who waits for one is tried again every few seconds at least."""
    accounts = Accounts(["bad"], {"bad": DatabaseBusy("lock")})
    careful_ = careful(accounts)
    await careful_.claim(8)
    clock.now += 1000
    for _ in range(10):
        accounts.asked.clear()
        await careful_.claim(8)
        clock.now += claiming.LONGEST_LOCK_WAIT_SECONDS
        assert ["bad"] in accounts.asked


@pytest.mark.parametrize("error", [ValueError("a rule"), DatabaseBusy("lock")], ids=repr)
async def test_what_spoils_any_claim_is_no_account_s_matter(clock, error):
    """A locked table, a trigger for each statement: the database is away, nobody is left alone."""
    accounts = Accounts(fleet(9), at_all=error)
    careful_ = careful(accounts)
    with capture_logs() as logs, pytest.raises(DatabaseUnavailable, match=str(error)):
        await careful_.claim(8)
    assert logs == []
    accounts.at_all = None
    assert names(await careful_.claim(9)) == fleet(9)


async def test_what_was_leased_is_kept_when_the_database_goes_away(clock):
    """In the middle of a search."""
    accounts = Accounts(fleet(16), {"00": ValueError("no"), "09": DatabaseUnavailable("gone")})
    claims = await careful(accounts).claim(16)
    assert names(claims) == fleet(8)[1:]


async def test_a_search_takes_no_longer_than_it_may(clock, monkeypatch):
    """It goes on with the next claim, and in the end all is known."""
    bad = {name: DatabaseBusy("lock") for name in fleet(40)}
    accounts = Accounts([*fleet(40), "good"], bad)
    careful_ = careful(accounts)
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
        careful_ = careful(accounts)
        await careful_.claim(8)
        await careful_.claim(8)
    assert [log["open_id"] for log in logs] == ["ghost"]
