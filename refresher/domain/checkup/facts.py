"""What a check-up looks at. Times are seconds, sizes bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from refresher.domain.due import DuePolicy
from refresher.domain.missing import Missing


@dataclass(frozen=True, slots=True)
class Unread:
    """Stands for a fact that could not be read."""

    why: str
    #: The database gave no answer, or none in time: another look may bring one.
    unanswered: bool = False


@dataclass(frozen=True, slots=True)
class Configured:
    """The settings."""

    #: What is wrong with them; None: they can be read.
    error: str | None
    #: Names with our prefix that no setting has, with their places in files.
    unknown: Sequence[str]
    #: The names that settings have.
    known: Sequence[str]


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters of the database URL and the `PG…` variables."""

    #: Those that have no effect.
    ignored: Sequence[str]


@dataclass(frozen=True, slots=True)
class Reached:
    """Whether the database answers."""

    #: Why not; None: it does.
    error: str | None


class Pooling(StrEnum):
    """What stands between us and the server."""

    NONE = "none"
    #: A pooler that keeps a server process for each client, or is too busy to tell.
    SESSION = "session"
    TRANSACTION = "transaction"
    STATEMENT = "statement"


@dataclass(frozen=True, slots=True)
class Session:
    """A session of ours, and the server behind it."""

    #: As the server tells it: `16.3`, and 160003.
    version: str
    version_number: int
    pooling: Pooling
    #: 0: statements wait for locks without end.
    lock_timeout_seconds: float
    jit: bool


@dataclass(frozen=True, slots=True)
class Clocks:
    """The clock of the database against the one of this machine."""

    #: How far the database's is ahead.
    ahead_seconds: float
    #: Half of the round trip: no difference below it shows.
    tolerance_seconds: float


@dataclass(frozen=True, slots=True)
class Schema:
    """The revision of the tables."""

    #: None: there are no tables.
    revision: str | None
    needed: str

    @property
    def is_outdated(self) -> bool:
        return self.revision is None or self.revision < self.needed


@dataclass(frozen=True, slots=True)
class Role:
    """What the role may do."""

    #: Such as `UPDATE on refresher.videos`.
    lacking: Sequence[str]
    #: Why it can do nothing at all.
    refused: str | None
    #: Tables of which policies show it some rows, which may be all.
    restricted: Sequence[str]
    #: How many connections it may open, if that is fewer than wanted.
    connections: int | None
    wanted: int


@dataclass(frozen=True, slots=True)
class Tokens:
    """The stored tokens, as far as they were looked at."""

    has_keys: bool
    #: Accounts with a sealed token.
    sealed: int
    #: Of those, how many no key opens, and the open_id of one.
    unreadable: int
    example: str | None
    #: There was time for all.
    all_seen: bool


@dataclass(frozen=True, slots=True)
class Troubles:
    """What of the accounts cannot be kept alive, as their releases counted it."""

    accounts: int
    #: Neither paused, parked nor isolated.
    untroubled: int
    needs_reauthorization: int
    needs_scope: int
    #: For how long the first of these has been parked; None: there are none.
    parked_seconds: float | None
    #: Of the untroubled ones, those whose access token is dead, and nobody has renewed it.
    dead_tokens: int
    videos: int
    #: Left out by the last good answer, and not gone yet.
    missing: int
    #: Gone, and without a living cover.
    gone: int
    #: The accounts with the most missing videos.
    missing_of: Sequence[Missing]


@dataclass(frozen=True, slots=True)
class App:
    """The app: its credentials, and its limit."""

    #: The daemon is to renew tokens.
    needed: bool
    given: bool
    #: How long ago TikTok refused these; None: they were not the last to be refused.
    refused_seconds_ago: float | None
    #: Requests a minute, as found after 429s; None: no such limit is in force.
    found_per_minute: float | None


@dataclass(frozen=True, slots=True)
class Greeting:
    """How TikTok answered a request without a token."""

    #: Why there was no answer.
    error: str | None
    status: int = 0
    #: The error code of the answer; empty if it is none of TikTok's.
    code: str = ""
    #: How far its clock is ahead of the database's; None: not known.
    ahead_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Covers:
    """How fresh the covers are, and what is due."""

    #: Expired covers that could have been kept alive.
    expired: int
    due: int
    #: For how long the first of what is due has been.
    overdue_seconds: float
    lead_seconds: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Whether operators have paused everything."""

    #: For how long; None: they have not.
    seconds: float | None
    #: Covers that have expired; None: not known.
    expired: int | None = None


@dataclass(frozen=True, slots=True)
class Lives:
    """How long covers live, by a sample of those stored."""

    sampled: int
    #: One in twenty lives shorter.
    short_seconds: float
    usual_seconds: float
    policy: DuePolicy


@dataclass(frozen=True, slots=True)
class CoverHosts:
    """The hosts that covers come from."""

    #: By how many seconds the lead of each has grown, as its covers die early.
    grown: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Table:
    """A table, with its partitions."""

    name: str
    #: Since the statistics were last reset.
    updates: int
    hot_updates: int
    live_rows: int
    dead_rows: int
    #: Autovacuum is off for it.
    unattended: bool


@dataclass(frozen=True, slots=True)
class Tables:
    """Our tables, and whether the server vacuums any."""

    tables: Sequence[Table]
    autovacuum: bool


@dataclass(frozen=True, slots=True)
class Holder:
    """Something that keeps dead rows from being cleared."""

    what: str
    #: None: nobody knows since when.
    since_seconds: float | None
    #: How to end it.
    remedy: str


@dataclass(frozen=True, slots=True)
class Snapshots:
    """What keeps dead rows, the oldest first."""

    holders: Sequence[Holder]
    #: Sessions of others that the role may not see into.
    hidden: int


@dataclass(frozen=True, slots=True)
class Indexes:
    """Indexes that do harm."""

    #: Left over from a CREATE INDEX CONCURRENTLY that failed.
    invalid: Sequence[str]
    #: On columns of the videos that a refresh writes.
    hindering: Sequence[str]


@dataclass(frozen=True, slots=True)
class Scatter:
    """How the rows of some accounts lie."""

    accounts: int
    rows: int
    #: That hold these rows, and the fewest that could; None: no statistics tell.
    pages: int
    least_pages: int | None
    #: Of all videos; and what the server takes to be cached.
    table_bytes: int
    cache_bytes: int


@dataclass(frozen=True, slots=True)
class Webhooks:
    """What waits to be told to the application."""

    waiting: int
    oldest_seconds: float


@dataclass(frozen=True, slots=True)
class Probes:
    """What became of the covers that were fetched within a day."""

    served: int
    refused: int
    #: No host was reached, or it said nothing of the cover.
    unknown: int


@dataclass(frozen=True, slots=True)
class Attachments:
    """The attached tables."""

    #: For how long what was told of each has waited to be applied or carried; 0: nothing waits.
    waiting_seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Replica:
    """A daemon."""

    name: str
    version: str
    silent_seconds: float


@dataclass(frozen=True, slots=True)
class Replicas:
    """The daemons that say that they run, and how many hold leases."""

    replicas: Sequence[Replica]
    with_leases: int
    #: Of this program.
    version: str


@dataclass(frozen=True, slots=True)
class Listening:
    """Whether the daemons hear of new videos at once."""

    #: Replicas that run.
    running: int
    #: Sessions that listen.
    listening: int
    #: Sessions of others that the role may not see into.
    hidden: int
    pooling: Pooling
