"""What the database knows of the whole fleet. Each replica shows the same numbers."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from refresher.domain.clocks import Clock
from refresher.domain.pacing import SILENT_SECONDS
from refresher.operations.families import gauge, gauges, moment
from refresher.operations.shared import Shared
from refresher.postgres.outbox import Outbox
from refresher.postgres.replicas import Replica
from refresher.postgres.snapshot import Consents, Kind, Snapshot
from refresher.postgres.status import Quota, Summary

#: Numbers that are older are left out: a frozen number looks like a good one.
STALE_SECONDS: Final = 60.0
#: The end of each HELP text.
FLEET: Final = "Of the fleet: each replica shows the same, so use max(), not sum()."
#: Reasons are written by applications and by TikTok, too. So that none makes the metrics grow or
#: shows an ID, only words count, and only the most frequent ones.
REASON: Final = re.compile(r"[A-Za-z_]{1,40}")
MOST_REASONS: Final = 20
OTHER: Final = "other"


class FleetCollector(Collector):
    """The latest reading, or only its age if that is too old."""

    def __init__(self, fleet: Shared[Snapshot], clock: Clock) -> None:
        self._fleet = fleet
        self._clock = clock
        self._began = clock()

    def collect(self) -> Iterator[Metric]:
        reading = self._fleet.reading
        age = self._clock() - (reading.read_at if reading else self._began)
        yield from gauge(
            "refresher_snapshot_age_seconds",
            "Age of the numbers of the fleet. Past 60 they are left out.",
            age,
        )
        if reading and age < STALE_SECONDS:
            yield from fleet_metrics(reading.value)


def fleet_metrics(snapshot: Snapshot) -> Iterator[Metric]:
    """All that a snapshot tells."""
    yield from _freshness(snapshot.summary)
    yield _accounts(snapshot.kinds)
    yield from _consents(snapshot.consents)
    yield from _quota(snapshot.quota)
    yield from _app(snapshot)
    if snapshot.replicas is not None:
        yield _replicas(snapshot.taken_at, snapshot.replicas)
    if snapshot.outbox is not None:
        yield from _outbox(snapshot.outbox)


def _freshness(summary: Summary) -> Iterator[Metric]:
    states = ("valid", "expired", "uncovered", "unreachable")
    videos = {state: getattr(summary, state) for state in states}
    # The numbers may be of slightly different times.
    videos["dead_missing"] = max(0, summary.videos - sum(videos.values()))
    yield from gauges(
        "refresher_videos", f"Stored videos by state; each is in one. {FLEET}", "state", videos
    )
    yield from gauge(
        "refresher_missing_videos",
        f"Videos that the last good answer left out, with a living cover or not. {FLEET}",
        summary.missing,
    )
    yield from gauge("refresher_due_videos", f"Videos to ask for now. {FLEET}", summary.due)
    yield from gauge(
        "refresher_oldest_overdue_seconds",
        f"For how long the first due video has been due. {FLEET}",
        summary.oldest_overdue_seconds,
    )


def _accounts(kinds: Sequence[Kind]) -> Metric:
    family = GaugeMetricFamily(
        "refresher_accounts", f"Accounts by state and reason. {FLEET}", labels=["state", "reason"]
    )
    for (state, reason), accounts in bounded(kinds).items():
        family.add_metric([state, reason], accounts)
    return family


def bounded(kinds: Sequence[Kind]) -> Counter[tuple[str, str]]:
    """Accounts by state and reason, with all that is rare or no word as one."""
    by_words: Counter[tuple[str, str]] = Counter()
    for kind in kinds:
        reason = kind.reason or ""
        word = reason if not reason or REASON.fullmatch(reason) else OTHER
        by_words[kind.state, word] += kind.accounts
    result: Counter[tuple[str, str]] = Counter()
    for place, ((state, word), accounts) in enumerate(by_words.most_common()):
        result[state, word if place < MOST_REASONS or not word else OTHER] += accounts
    return result


def _consents(consents: Consents) -> Iterator[Metric]:
    yield from gauge(
        "refresher_ended_consents",
        f"Consents that have ended, of accounts that are not parked. {FLEET}",
        consents.ended,
    )
    ending = {days: getattr(consents, f"within_{days}_days") for days in ("3", "14", "30")}
    yield from gauges(
        "refresher_ending_consents",
        f"Consents that end within so many days. {FLEET}",
        "within_days",
        ending,
    )


def _quota(quota: Quota) -> Iterator[Metric]:
    yield from gauges(
        "refresher_requests_this_hour",
        f"Requests since the full hour: of all accounts, and of the one with the most. {FLEET}",
        "of",
        {"all": quota.requests, "busiest_account": quota.busiest},
    )
    yield from moment(
        "refresher_hour_started_timestamp_seconds",
        f"When the hour of refresher_requests_this_hour began. {FLEET}",
        quota.since,
    )


def _app(snapshot: Snapshot) -> Iterator[Metric]:
    app = snapshot.app
    yield from gauge(
        "refresher_app_limit_learned_requests_per_minute",
        f"The limit of the app that 429s have shown. Absent: none has. {FLEET}",
        app.learned_per_minute,
    )
    yield from moment(
        "refresher_app_throttled_timestamp_seconds",
        f"When 429s last showed a limit of the app. Absent: never. {FLEET}",
        app.throttled_at,
    )
    yield from moment(
        "refresher_client_refused_timestamp_seconds",
        f"When TikTok last refused the app's client key or secret. Absent: never. {FLEET}",
        app.client_refused_at,
    )
    yield from gauge(
        "refresher_paused", f"1: everything is paused. {FLEET}", int(app.paused_since is not None)
    )


def _outbox(outbox: Outbox) -> Iterator[Metric]:
    yield from gauge(
        "refresher_waiting_webhooks", f"Webhooks that wait to be delivered. {FLEET}", outbox.waiting
    )
    yield from gauge(
        "refresher_oldest_webhook_seconds",
        f"For how long the oldest of them has waited. {FLEET}",
        outbox.oldest_seconds,
    )


def _replicas(now: datetime, replicas: Sequence[Replica]) -> Metric:
    since = now - timedelta(seconds=SILENT_SECONDS)
    seen = [one for one in replicas if one.seen_at and one.seen_at >= since]
    family = GaugeMetricFamily(
        "refresher_replicas", f"Replicas that run, by version. {FLEET}", labels=["version"]
    )
    for version, count in Counter(one.version or "" for one in seen).items():
        family.add_metric([version], count)
    return family
