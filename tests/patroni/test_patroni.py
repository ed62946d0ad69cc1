"""Two daemons on a Patroni cluster whose primary changes: run by `make test-patroni`."""

import pytest

from tests.patroni.cluster import missing_programs, running_cluster
from tests.patroni.run import FAULTS, play

pytestmark = [
    pytest.mark.patroni,
    pytest.mark.skipif(
        bool(missing_programs()),
        reason=f"not there: {', '.join(missing_programs())}",
    ),
]


@pytest.fixture(scope="module")
def cluster():
    with running_cluster() as cluster:
        yield cluster


@pytest.mark.parametrize("fault", FAULTS)
async def test_nothing_is_lost_when_the_primary_changes(cluster, fault):
    """In the middle of a full run and of a token request; all is fresh again afterwards."""
    report = await play(cluster, fault)
    assert report.violations == []
