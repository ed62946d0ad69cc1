"""Databases of a Citus cluster, each on all of its nodes: copies of a template, as on one server."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import asyncpg

#: What docs/scaling.md tells operators to set. A copy of a database does not bring it along.
SETTINGS = """
ALTER DATABASE {name} SET citus.enable_unsafe_triggers = on;
ALTER DATABASE {name} SET citus.override_table_visibility = off;
ALTER DATABASE {name} SET lock_timeout = '10s';
"""
NODES = "SELECT nodename, nodeport FROM pg_dist_node WHERE isactive ORDER BY groupid"
DROPS = 5
#: The daemon's tables in a schema that lives whole on one worker.
CELL = "SET citus.enable_schema_based_sharding = on; CREATE SCHEMA refresher"
#: Its sessions in a template would keep it from being copied, and it begins anew by itself.
CLOSED = """
ALTER DATABASE {name} ALLOW_CONNECTIONS false;
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '{name}';
"""


@dataclass
class Cluster:
    """The nodes of a cluster, the coordinator first, as URLs of a superuser."""

    nodes: list[str]

    async def create(self, name: str) -> None:
        """A database in which the nodes know each other. The coordinator holds no tables."""
        await self._everywhere(f"CREATE DATABASE {name}")
        await self._everywhere(SETTINGS.format(name=name))
        for node in self.nodes:
            await _execute(_named(node, name), "CREATE EXTENSION citus")
        (coordinator, *workers) = map(_address, self.nodes)
        await _execute(
            _named(self.nodes[0], name),
            f"SELECT citus_set_coordinator_host({coordinator})",
            *(f"SELECT citus_add_node({worker})" for worker in workers),
            f"SELECT citus_set_node_property({coordinator}, 'shouldhaveshards', false)",
        )

    async def make_cell(self, name: str) -> None:
        await _execute(_named(self.nodes[0], name), CELL)

    async def close(self, name: str) -> None:
        """From now on the database is only copied."""
        await self._everywhere(CLOSED.format(name=name))

    async def copy(self, name: str, template: str) -> None:
        await self._everywhere(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        await self._everywhere(SETTINGS.format(name=name))

    async def drop(self, name: str) -> None:
        # The nodes go on connecting to each other.
        for _ in range(DROPS):
            with suppress(asyncpg.ObjectInUseError):
                await self._everywhere(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
                return

    async def _everywhere(self, statements: str) -> None:
        await asyncio.gather(*(_execute(node, statements) for node in self.nodes))


async def cluster_of(coordinator: str) -> Cluster:
    """The cluster whose nodes this database of its coordinator knows."""
    connection = await asyncpg.connect(coordinator)
    try:
        nodes = await connection.fetch(NODES)
    finally:
        await connection.close()
    parts = urlsplit(coordinator)
    user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    return Cluster(
        [
            urlunsplit(parts._replace(netloc=f"{user}{name}:{port}", path="/postgres"))
            for name, port in nodes
        ]
    )


def _address(node: str) -> str:
    parts = urlsplit(node)
    return f"'{parts.hostname}', {parts.port}"


def _named(node: str, database: str) -> str:
    return urlunsplit(urlsplit(node)._replace(path=f"/{database}"))


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


_UPDATES = (
    "an application's UPDATE with a function of a column, or one in CASE, which Citus refuses"
)
_ROLES = "nodes log in as the role that SET ROLE has taken, which may not"
_SESSION = "the setting of a session or of the database does not reach the workers"
_WORKERS = "it looks at the sessions, locks or counters of the server, which are the worker's"
_TABLES = "it makes a table, a trigger or a function that the workers do not have"

#: Tests that Citus cannot run as they are, by name, and why: what they themselves send is refused or
#: shows nothing. A refusal of one of our statements does not belong here.
NOT_ON_CITUS = {
    "test_what_needs_no_mending_costs_nothing": _UPDATES,
    "test_a_cover_of_ours_whose_url_says_nothing_keeps_its_expiry": _UPDATES,
    "test_a_newer_cover_of_a_video_that_rests_is_asked_for": _UPDATES,
    "test_a_video_moved_and_changed_in_one_transaction_is_both": _UPDATES,
    "test_another_video_keeps_the_cover_that_comes_with_a_later_flush": _UPDATES,
    "test_newer_covers_are_written_in_strict_isolation": _UPDATES,
    "test_whatever_an_application_writes_is_mended_within_two_polls": _UPDATES,
    "test_slots_continue_where_the_last_claim_ended": _UPDATES,
    "test_requests_are_counted_from_the_full_hour": _UPDATES,
    "test_an_applications_role_needs_no_further_right": _ROLES,
    "test_a_daemon_with_the_rights_of_before_stores_its_new_pair": _ROLES,
    "test_inserting_videos_takes_no_right_to_write_accounts": _ROLES,
    "test_rows_that_a_replication_brings_wake_their_account": _SESSION,
    "test_above_read_committed_no_claim_is_sure": _SESSION,
    "test_the_daemons_own_writes_fire_nothing": _WORKERS,
    "test_a_claim_knows_that_it_may_not_have_seen_the_last_insert": _WORKERS,
    "test_one_accounts_trigger_keeps_nobody_elses_ignored_tokens_unsaid": _TABLES,
    "test_the_audit_holds_no_account_while_it_counts": _TABLES,
    "test_a_replica_that_goes_on_writes_seldom": _UPDATES,
    "test_covers_that_die_after_the_count_are_noticed": _UPDATES,
    "test_without_a_url_nothing_is_written": _UPDATES,
    "test_a_lead_shrinks_after_a_quiet_week": _UPDATES,
    "test_the_lead_grows_until_no_cover_is_dead": _UPDATES,
    "test_what_a_previous_version_counts_is_no_nonsense": _UPDATES,
    "test_a_refusal_is_checked_and_paid_for": _UPDATES,
    "test_covers_of_accounts_in_trouble_are_not_fetched": _UPDATES,
    "test_stored_covers_are_brought_forward": _UPDATES,
    "test_each_probe_is_told_of_once": _UPDATES,
    "test_what_an_application_stored_is_not_asked_for": _UPDATES,
    "test_more_probes_an_hour_begin_at_once": _UPDATES,
    "test_one_video_that_is_refused_moves_no_lead": _UPDATES,
    "test_no_answer_says_nothing": _UPDATES,
    "test_one_locked_row_holds_up_no_other": _UPDATES,
    "test_a_host_that_refuses_everything_moves_no_lead": _UPDATES,
    "test_replicas_share_the_turns": _UPDATES,
    "test_the_end_of_a_consent_is_said_in_time": _UPDATES,
    "test_an_account_without_a_closed_gate_is_claimed_and_no_other": _UPDATES,
    "test_a_video_stands_behind_its_accounts_earlier_ones": _UPDATES,
    "test_a_claim_during_a_pause_reads_no_account": _WORKERS,
    "test_videos_are_only_looked_up_by_their_key": _WORKERS,
    "test_a_pair_that_waits_for_a_lock_keeps_nobody_from_being_tried": _TABLES,
    "test_many_videos_are_deleted_in_steps": _TABLES,
    "test_a_trigger_that_keeps_the_row_is_told": _TABLES,
    "test_the_same_numbers_for_replicas_of_every_version": "it calls count_videos, which Citus does not",
}
