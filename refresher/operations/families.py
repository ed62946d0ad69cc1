"""Metrics from values that are there already."""

from collections.abc import Iterator, Mapping
from datetime import datetime

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from refresher.domain.meter import Histogram


def gauge(name: str, text: str, value: float | None) -> Iterator[Metric]:
    """A gauge without labels; left out where there is no value."""
    if value is not None:
        yield GaugeMetricFamily(name, text, value)


def moment(name: str, text: str, when: datetime | None) -> Iterator[Metric]:
    """A gauge of Unix time; left out where there is none."""
    yield from gauge(name, text, when.timestamp() if when else None)


def gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> Iterator[Metric]:
    """A gauge with one label."""
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    yield family


def counters(name: str, text: str, label: str, values: Mapping[str, float]) -> Iterator[Metric]:
    """A counter with one label."""
    family = CounterMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    yield family


def add_histogram(
    family: HistogramMetricFamily, labels: list[str], histogram: Histogram
) -> HistogramMetricFamily:
    """Add what was observed, with the counts added up from bound to bound."""
    buckets: list[tuple[str, float]] = []
    below = 0
    for bound, count in zip((*histogram.bounds, "+Inf"), histogram.counts, strict=True):
        below += count
        buckets.append((str(bound), below))
    family.add_metric(labels, buckets, histogram.total)
    return family
