"""The checks, in the order in which they are told."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from refresher.domain.checkup import (
    access,
    accounts,
    attachments,
    facts,
    fleet,
    freshness,
    server,
    settings,
    storage,
    webhooks,
)
from refresher.domain.checkup.findings import Finding, Outcome, skipped, unchecked
from refresher.domain.quota import Demand
from refresher.domain.spans import counted

F = TypeVar("F")

#: What was read, by its type, or an `Unread` in its place.
Facts = Mapping[type, object]


@dataclass(frozen=True, slots=True)
class Check(Generic[F]):
    """One question, asked of one fact."""

    #: `group.name`, for programs and for the docs.
    id: str
    looks_at: str
    about: type[F]
    judge: Callable[[F], Iterable[Finding]]

    @property
    def group(self) -> str:
        return self.id.partition(".")[0]

    def findings(self, known: Facts) -> Iterable[Finding]:
        """One finding or more. Skipped if the fact could not be read."""
        fact = known.get(self.about)
        if isinstance(fact, self.about):
            return self.judge(fact)
        if not isinstance(fact, facts.Unread):
            return [skipped("not looked at")]
        return [unchecked(fact.why) if fact.unanswered else skipped(fact.why)]


CHECKS: Final[tuple[Check[Any], ...]] = (
    Check("settings.valid", "every setting can be read", facts.Configured, settings.valid),
    Check(
        "settings.known",
        "names in the environment, .env and files of secrets that no setting has",
        facts.Configured,
        settings.known,
    ),
    Check(
        "settings.database_url",
        "parameters of the database URL that have no effect",
        facts.Parameters,
        settings.parameters,
    ),
    Check("database.reachable", "the database answers", facts.Reached, server.reachable),
    Check("database.version", "PostgreSQL is new enough", facts.Session, server.version),
    Check("database.pooler", "the pooler in between, and its mode", facts.Session, server.pooler),
    Check(
        "database.migrated", "the schema is what this version needs", facts.Schema, server.migrated
    ),
    Check(
        "database.clock", "the database's clock against this machine's", facts.Clocks, server.clock
    ),
    Check("role.rights", "the role may do all that the daemon does", facts.Role, server.rights),
    Check("role.rows", "read-only settings and row-level security", facts.Role, server.rows),
    Check(
        "role.connections", "the limit of the role's connections", facts.Role, server.connections
    ),
    Check("tokens.keys", "REFRESHER_TOKEN_KEYS open the stored tokens", facts.Tokens, access.keys),
    Check(
        "tiktok.credentials",
        "the app credentials are set and were not refused",
        facts.App,
        access.credentials,
    ),
    Check("tiktok.reachable", "TikTok answers (--online)", facts.Greeting, access.reachable),
    Check("tiktok.clock", "TikTok's clock (--online)", facts.Greeting, access.clock),
    Check(
        "accounts.parked",
        "accounts that wait for their users",
        facts.Troubles,
        accounts.parked,
    ),
    Check(
        "accounts.tokens",
        "active accounts whose access token stays dead",
        facts.Troubles,
        accounts.dead_tokens,
    ),
    Check(
        "accounts.missing",
        "videos that TikTok leaves out",
        facts.Troubles,
        accounts.missing,
    ),
    Check(
        "freshness.covers",
        "expired covers that could have been kept alive",
        facts.Covers,
        freshness.covers,
    ),
    Check("freshness.backlog", "how long videos have been due", facts.Covers, freshness.backlog),
    Check("freshness.paused", "whether everything is paused", facts.Pause, freshness.paused),
    Check(
        "freshness.lead", "lead and spread against the lives of covers", facts.Lives, freshness.lead
    ),
    Check(
        "freshness.hosts",
        "hosts whose covers die sooner than they say",
        facts.CoverHosts,
        freshness.hosts,
    ),
    Check(
        "freshness.probes",
        "covers that were fetched within a day to see whether they live",
        facts.Probes,
        freshness.probes,
    ),
    Check(
        "freshness.token_quota",
        "what the largest account needs against the limit of a token",
        Demand,
        freshness.token_quota,
    ),
    Check(
        "freshness.app_quota",
        "what all accounts need against the limit of the app",
        Demand,
        freshness.app_quota,
    ),
    Check("storage.hot_updates", "the share of HOT updates", facts.Tables, storage.hot_updates),
    Check("storage.dead_rows", "dead rows", facts.Tables, storage.dead_rows),
    Check("storage.autovacuum", "autovacuum works", facts.Tables, storage.autovacuum),
    Check(
        "storage.snapshots",
        "transactions, slots and the like that keep dead rows",
        facts.Snapshots,
        storage.snapshots,
    ),
    Check("storage.invalid_indexes", "invalid indexes", facts.Indexes, storage.invalid_indexes),
    Check(
        "storage.hindering_indexes",
        "indexes that end HOT updates",
        facts.Indexes,
        storage.hindering_indexes,
    ),
    Check(
        "storage.scatter",
        "how far apart the videos of an account lie",
        facts.Scatter,
        storage.scatter,
    ),
    Check(
        "webhooks.delivered",
        "how long webhooks have waited",
        facts.Webhooks,
        webhooks.delivered,
    ),
    Check(
        "attachments.applied",
        "how long what attached tables tell has waited",
        facts.Attachments,
        attachments.applied,
    ),
    Check("replicas.alive", "each replica was heard of lately", facts.Replicas, fleet.alive),
    Check("replicas.versions", "all replicas run this version", facts.Replicas, fleet.versions),
    Check(
        "replicas.listening",
        "all replicas hear of new videos at once",
        facts.Listening,
        fleet.listening,
    ),
)


def judged(known: Facts) -> Iterator[tuple[Check[Any], Finding]]:
    """What all checks find, in their order."""
    for check in CHECKS:
        for finding in check.findings(known):
            yield check, finding


def verdict(findings: Iterable[Finding]) -> str:
    """All of it in one line. All is well only if everything was checked that was to be."""
    told = list(findings)
    outcomes = [finding.outcome for finding in told]
    missed = sum(finding.is_unchecked for finding in told)
    left_out = outcomes.count(Outcome.SKIPPED) - missed
    worst = [
        counted(number, word)
        for outcome, word in ((Outcome.PROBLEM, "problem"), (Outcome.WARNING, "warning"))
        if (number := outcomes.count(outcome))
    ]
    unseen = [f"{missed} not checked"] if missed else []
    rest = [f"{left_out} skipped"] if left_out else []
    return ", ".join([*(worst + unseen or ["all is well"]), *rest])
