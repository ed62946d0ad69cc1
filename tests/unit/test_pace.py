"""The daemon and the simulator work at one pace, whatever is configured."""

from datetime import timedelta
from math import ceil

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from refresher.cli.simulate import _plan
from refresher.domain.cohorts import NO_COVER, Cohort, Fleet
from refresher.domain.model import CHUNK_SIZE, OpenId
from refresher.postgres.accounts import Accounts
from refresher.postgres.statements import statement
from refresher.setting_values import Secret
from refresher.settings import Settings
from refresher.simulation.engine import Engine
from refresher.simulation.plan import START

BUDGET = 128
#: So short that the simulator makes one claim only.
ONE_CLAIM_DAYS = 1e-9


class Sent(Exception):
    """The statement and its values, on the way to the server."""


class Wire:
    """What `Claims` takes for a pool."""

    async def acquire(self, **_timeout):
        return self

    async def release(self, _connection, **_timeout):
        pass

    async def fetch(self, _text, *values):
        raise Sent(*values)


class Chunks:
    """Counts what the simulator sends."""

    sent = 0

    def asked(self, _account, _sent_at, chunks, _videos):
        self.sent += chunks

    def refreshed(self, *_):
        pass


async def claimed_with(configured):
    """The values that the claim statement gets, by name."""
    claim = statement("claim")
    with pytest.raises(Sent) as sent:
        await Accounts(Wire(), replica="a", pace=configured.pace).claim(BUDGET)
    return dict(zip(claim._order, sent.value.args, strict=True))


def chunks_claimed(values):
    """How many chunks of an account with much to ask for the statement takes, if all are idle."""
    step, app_step = max(values["step"], values["app_step"]), values["app_step"]
    if not step:
        return BUDGET
    horizon = min(values["horizon"], values["app_horizon"]) if app_step else values["horizon"]
    wanted = max(1, horizon // step)
    room = ceil(max(horizon, app_step) / app_step) if app_step else BUDGET
    return min(wanted, room, BUDGET)


def chunks_simulated(configured):
    """How many the simulator takes in one claim of the same account."""
    huge = [Cohort(START, NO_COVER, CHUNK_SIZE * BUDGET)]
    counted = Chunks()
    plan = _plan(configured, "hourly", ONE_CLAIM_DAYS)
    list(Engine(Fleet(START, {OpenId("ana"): huge}), plan, counted).run())
    return counted.sent


@given(
    lease=st.floats(1, 86_400),
    request_timeout=st.floats(0.01, 600),
    per_token=st.just(0) | st.integers(1, 6000),
    per_app=st.just(0) | st.integers(1, 6000),
)
@example(lease=60, request_timeout=10, per_token=600, per_app=0)
@example(lease=60, request_timeout=1, per_token=600, per_app=0)
@example(lease=1, request_timeout=10, per_token=600, per_app=600)
async def test_the_simulator_claims_as_much_as_the_daemon(
    lease, request_timeout, per_token, per_app
):
    """For every lease and time-out: the same chunks under the same lease, as far ahead."""
    configured = Settings(
        database_url=Secret("postgresql:///"),
        lease_seconds=lease,
        request_timeout_seconds=request_timeout,
        rate_limit_per_token=per_token,
        rate_limit_per_app=per_app,
    )
    values = await claimed_with(configured)
    assert values["lease"] <= timedelta(seconds=lease)
    assert values["horizon"] - values["lease"] / 4 <= timedelta(microseconds=1)
    assert chunks_simulated(configured) == chunks_claimed(values)
