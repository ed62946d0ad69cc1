"""What one replica knows of itself, whether the database is there or not."""

import time
from collections.abc import Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from refresher.domain.meter import Meter, Stats
from refresher.logs import emitted
from refresher.operations.families import add_histogram, counters, gauge, gauges
from refresher.operations.server import Sources
from refresher.settings import Settings


class ReplicaCollector(Collector):
    """Counts since the start of the process, and how it is just now."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        sources, stats = self._sources, self._sources.stats()
        yield InfoMetricFamily("refresher_build", "What runs.", {"version": sources.version})
        yield from _settings(sources.settings)
        yield from _state(stats)
        yield from _loops(sources.meter, sources.clock())
        yield from _done(stats)
        yield from _requests(sources.meter)
        yield _slot_waits(sources.meter)
        yield from _limits_and_renewals(sources.meter)
        yield from _probes(sources)
        yield from counters(
            "refresher_log_events", "Events by name, whatever the log level.", "event", emitted
        )


def _settings(settings: Settings) -> Iterator[Metric]:
    yield from gauge(
        "refresher_token_limit_requests_per_minute",
        "Setting: requests a minute for one token.",
        settings.rate_limit_per_token,
    )
    yield from gauge(
        "refresher_app_limit_requests_per_minute",
        "Setting: requests a minute for the whole app. Absent: no such limit is set.",
        settings.rate_limit_per_app or None,
    )
    yield from gauge(
        "refresher_lead_seconds",
        "Setting: how long before its expiry a cover is asked for.",
        settings.lead_seconds,
    )


def _state(stats: Stats) -> Iterator[Metric]:
    yield from gauge("refresher_requests_in_flight", "Requests on their way.", stats.in_flight)
    yield from gauge(
        "refresher_requests_in_flight_limit",
        "How many requests may be on their way now; 0 or 1 while TikTok does not answer.",
        stats.in_flight_limit,
    )
    yield from gauge("refresher_unsaved_results", "Answers that wait to be stored.", stats.unsaved)
    yield from gauge(
        "refresher_database_up", "1: the database answers this replica.", stats.database_up
    )
    yield from gauge("refresher_upstream_up", "1: TikTok answers this replica.", stats.upstream_up)


def _loops(meter: Meter, now: float) -> Iterator[Metric]:
    unix_time = time.time() - now
    yield from gauges(
        "refresher_loop_last_turn_timestamp_seconds",
        "When each loop last came to the end of a turn.",
        "loop",
        {loop: round(unix_time + at, 3) for loop, at in meter.turned_at.items()},
    )


def _done(stats: Stats) -> Iterator[Metric]:
    yield CounterMetricFamily(
        "refresher_requested_videos",
        "Videos asked for, 20 a request where chunks are full.",
        stats.asked,
    )
    yield from counters(
        "refresher_results", "What became of the videos asked for.", "outcome", stats.results
    )


def _requests(meter: Meter) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "refresher_requests",
        "Requests that have ended, by endpoint and outcome.",
        labels=["endpoint", "outcome"],
    )
    seconds = HistogramMetricFamily(
        "refresher_request_duration_seconds",
        "How long requests took, whatever came of them.",
        labels=["endpoint"],
    )
    for endpoint, outcomes in meter.requests.items():
        for outcome, count in outcomes.items():
            requests.add_metric([endpoint, outcome], count)
        add_histogram(seconds, [endpoint], meter.request_seconds[endpoint])
    yield requests
    yield seconds


def _slot_waits(meter: Meter) -> Metric:
    waits = HistogramMetricFamily(
        "refresher_slot_wait_seconds",
        "From the claim of a chunk to its request: it waits for its slot and for a permit.",
    )
    return add_histogram(waits, [], meter.slot_wait_seconds)


def _limits_and_renewals(meter: Meter) -> Iterator[Metric]:
    yield from counters(
        "refresher_throttles",
        "Limits met: an account's of a minute or of a day, or the app's.",
        "scope",
        meter.throttles,
    )
    yield from counters(
        "refresher_token_renewals",
        "Attempts to get a new pair of tokens.",
        "outcome",
        meter.renewals,
    )


def _probes(sources: Sources) -> Iterator[Metric]:
    yield from counters(
        "refresher_probes",
        "Covers fetched to see whether they live, by outcome.",
        "outcome",
        sources.meter.probes,
    )
    yield from gauge(
        "refresher_lead_grown_seconds",
        "By how much the lead of a host has grown at most, as its covers die early.",
        max(sources.hosts.grown.values(), default=0.0),
    )
