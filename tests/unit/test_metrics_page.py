"""/metrics under a clock that the test moves: what is old, and who gets the same answer."""

import re
from datetime import UTC, datetime

import pytest
from aiohttp.test_utils import make_mocked_request

from refresher.domain.cover_hosts import CoverHosts
from refresher.domain.errors import DatabaseUnavailable
from refresher.domain.meter import Meter, Stats
from refresher.operations.metrics import metrics_handler
from refresher.operations.server import Sources
from refresher.operations.shared import Shared
from refresher.postgres.outbox import Outbox
from refresher.postgres.snapshot import AppState, Consents, Snapshot
from refresher.postgres.status import Quota, Summary
from refresher.settings import read_settings

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STATS = Stats(0, 64, 0, upstream_up=True, database_up=True, asked=0, results={})


class World:
    """A fleet without accounts, and a clock."""

    def __init__(self):
        self.now = 0.0
        self.away = False
        self.meter = Meter()
        self.handler = metrics_handler(
            Sources(
                ready=self.read,
                fleet=Shared(self.read, self.clock),
                details=None,  # these four are the page's
                demand=None,
                lists=None,
                known=None,
                meter=self.meter,
                stats=lambda: STATS,
                hosts=CoverHosts(),
                settings=read_settings(database_url="postgresql://db/refresher"),
                version="1",
                clock=self.clock,
            )
        )

    def clock(self):
        return self.now

    async def read(self):
        if self.away:
            raise DatabaseUnavailable
        return Snapshot(
            NOW,
            Summary(10, 4, 3, 2, 1, 0, 0, 0.0, {}),
            Quota(NOW, 0, 0),
            [],
            Consents(0, 0, 0, 0, None),
            AppState(None, None, None, None, None),
            [],
            Outbox(2, 60.0),
            None,
            None,
        )

    async def asked(self, **headers):
        return await self.handler(make_mocked_request("GET", "/metrics", headers=headers))

    async def value(self, sample):
        """Of a sample, None where it is left out."""
        text = (await self.asked()).body.decode()
        found = re.search(rf"^{re.escape(sample)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else None


VALID = 'refresher_videos{state="valid"}'
AGE = "refresher_snapshot_age_seconds"


async def test_what_is_old_is_left_out():
    """For a minute the last reading is shown with its age; then only the age, until it is read again."""
    world = World()
    assert (await world.value(VALID), await world.value(AGE)) == (4, 0)
    world.away = True
    world.now = 57.0
    assert (await world.value(VALID), await world.value(AGE)) == (4, 57)
    world.now = 61.0
    assert (await world.value(VALID), await world.value(AGE)) == (None, 61)
    world.away = False
    world.now = 80.0
    assert (await world.value(VALID), await world.value(AGE)) == (4, 0)


async def test_without_any_reading_the_age_grows_from_the_start():
    """So that the alert on old numbers fires where there never were any."""
    world = World()
    world.away = True
    world.now = 300.0
    assert (await world.value(VALID), await world.value(AGE)) == (None, 300)


async def test_the_states_add_up_to_all_videos():
    """What is in none of the counted states is missing and dead."""
    world = World()
    states = ("valid", "expired", "uncovered", "unreachable", "dead_missing")
    assert [await world.value(f'refresher_videos{{state="{state}"}}') for state in states] == [
        4, 3, 2, 0, 1,
    ]  # fmt: skip


async def test_all_who_ask_within_moments_get_the_same_answer():
    """It is made once; who wants another format gets that."""
    world = World()
    first = await world.asked()
    world.meter.throttles["app"] += 1
    world.now = 0.9
    assert (await world.asked()).body == first.body
    open_metrics = await world.asked(Accept="application/openmetrics-text; version=1.0.0")
    assert open_metrics.headers["Content-Type"].startswith("application/openmetrics-text")
    assert open_metrics.body.endswith(b"# EOF\n")
    world.now = 2.5
    assert await world.value('refresher_throttles_total{scope="app"}') == 1


@pytest.mark.parametrize(
    ("seconds", "below"),
    [
        pytest.param(0.05, {"0.05": 1, "10.0": 1, "+Inf": 1}, id="on-a-bound"),
        pytest.param(0.3, {"0.05": 0, "0.25": 0, "0.5": 1, "+Inf": 1}, id="between"),
        pytest.param(11.0, {"10.0": 0, "+Inf": 1}, id="above-all"),
    ],
)
async def test_a_histogram_counts_all_below_each_bound(seconds, below):
    """As Prometheus reads buckets: each holds those of the smaller ones, too."""
    world = World()
    world.meter.ended("video_query", seconds, None)
    name = "refresher_request_duration_seconds"
    for bound, count in below.items():
        sample = f'{name}_bucket{{endpoint="video_query",le="{bound}"}}'
        assert await world.value(sample) == count, bound
    assert await world.value(f'{name}_sum{{endpoint="video_query"}}') == seconds
    assert await world.value('refresher_requests_total{endpoint="video_query",outcome="ok"}') == 1
