"""Judges how the rows are stored."""

from collections.abc import Iterator
from typing import Final

from refresher.domain.checkup.facts import Holder, Indexes, Scatter, Snapshots, Table, Tables
from refresher.domain.checkup.findings import Finding, fine, skipped, warning
from refresher.domain.spans import counted, span

#: Fewer updates say nothing.
LEAST_UPDATES: Final = 1_000
LEAST_HOT: Final = 0.9
#: Autovacuum begins at a tenth of the rows: at three tenths it does not keep up.
MOST_DEAD: Final = 0.3
LEAST_DEAD: Final = 10_000
#: A snapshot that old keeps dead versions on the pages, so updates are not HOT.
OLD_SECONDS: Final = 600.0
#: Pages read, to the fewest possible.
SCATTERED: Final = 4.0
LEAST_SCATTER_ROWS: Final = 200
GIGABYTE: Final = 1e9
VIDEOS: Final = "videos"


def hot_updates(storage: Tables) -> Iterator[Finding]:
    """Of the videos only: accounts are found by an index on what every release writes."""
    videos = next((table for table in storage.tables if table.name == VIDEOS), None)
    if videos is None or videos.updates < LEAST_UPDATES:
        yield skipped("too few updates were counted so far")
        return
    share = videos.hot_updates / videos.updates
    told = f"{share:.1%} of the updates of videos were HOT"
    if share < LEAST_HOT:
        yield warning(
            told,
            "end old snapshots and drop indexes that hinder, see below; counted since the"
            " statistics were last reset",
        )
    else:
        yield fine(told)


def dead_rows(storage: Tables) -> Iterator[Finding]:
    full = [table for table in storage.tables if _is_full_of_dead_rows(table)]
    for table in full:
        yield warning(
            f"{table.name} has {table.dead_rows:,} dead rows beside"
            f" {counted(table.live_rows, 'live one')}",
            f"VACUUM refresher.{table.name}, and see why autovacuum does not keep up",
        )
    if not full:
        dead = sum(table.dead_rows for table in storage.tables)
        yield fine(f"{counted(dead, 'dead row')}, no table is full of them")


def _is_full_of_dead_rows(table: Table) -> bool:
    return table.dead_rows > max(LEAST_DEAD, MOST_DEAD * table.live_rows)


def autovacuum(storage: Tables) -> Iterator[Finding]:
    off = [table.name for table in storage.tables if table.unattended]
    if not storage.autovacuum:
        yield warning("autovacuum is off", "set autovacuum = on (and track_counts = on)")
    for name in off:
        yield warning(
            f"autovacuum is off for refresher.{name}",
            f"ALTER TABLE refresher.{name} RESET (autovacuum_enabled)",
        )
    if storage.autovacuum and not off:
        yield fine("autovacuum is on")


def snapshots(snapshots: Snapshots) -> Iterator[Finding]:
    old = [holder for holder in snapshots.holders if _is_old(holder)]
    for holder in old:
        since = "" if holder.since_seconds is None else f" for {span(holder.since_seconds)}"
        yield warning(f"{holder.what} keeps dead rows from being cleared{since}", holder.remedy)
    if not old:
        hidden = (
            f", as far as the role sees: GRANT pg_read_all_stats shows"
            f" {counted(snapshots.hidden, 'more session')}"
            if snapshots.hidden
            else ""
        )
        yield fine(f"no snapshot is older than {span(OLD_SECONDS)}{hidden}")


def _is_old(holder: Holder) -> bool:
    return holder.since_seconds is None or holder.since_seconds > OLD_SECONDS


def invalid_indexes(indexes: Indexes) -> Iterator[Finding]:
    for name in indexes.invalid:
        yield warning(
            f"index {name} is invalid: it costs and serves nothing",
            f"unless it is being built just now, DROP INDEX CONCURRENTLY {name} or REINDEX it",
        )
    if not indexes.invalid:
        yield fine("every index is valid")


def hindering_indexes(indexes: Indexes) -> Iterator[Finding]:
    for name in indexes.hindering:
        yield warning(
            f"index {name} names a column that every refresh writes: no update is HOT",
            f"DROP INDEX CONCURRENTLY {name}; docs/decisions/0001 has the cost",
        )
    if not indexes.hindering:
        yield fine("no index on a column that a refresh writes")


def scatter(scatter: Scatter) -> Iterator[Finding]:
    if scatter.rows < LEAST_SCATTER_ROWS:
        yield skipped("the accounts looked at have too few videos to tell")
        return
    if scatter.least_pages is None:
        yield skipped("videos was not analyzed since its rows came: ANALYZE refresher.videos")
        return
    told = (
        f"the videos of {counted(scatter.accounts, 'account')} lie on"
        f" {counted(scatter.pages, 'page')}; on {scatter.least_pages:,} after a CLUSTER"
    )
    factor = scatter.pages / scatter.least_pages
    if factor < SCATTERED:
        yield fine(told)
    elif scatter.table_bytes <= scatter.cache_bytes:
        yield fine(f"{told}, which gains little while all fits into memory")
    else:
        yield warning(
            f"{told}, and {scatter.table_bytes / GIGABYTE:,.1f} GB do not fit into memory"
            " (effective_cache_size)",
            "more memory; or CLUSTER refresher.videos USING videos_pkey in a maintenance window:"
            " it locks the table, for readers too, until it is done, see docs/scaling.md",
        )
