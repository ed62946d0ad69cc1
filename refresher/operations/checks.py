"""A verdict of the status page, and what a replica knows for it."""

from dataclasses import dataclass
from typing import Literal

from refresher.domain.quota import Demand
from refresher.postgres.details import Details

#: `ok`, `warn`: look at it today, `bad`: covers die or will soon.
Level = Literal["ok", "warn", "bad"]


@dataclass(frozen=True, slots=True)
class Known:
    """What this replica knows of itself, from its settings."""

    replica: str
    lead_seconds: float
    #: Requests a minute; 0: no limit.
    limit_per_token: int
    limit_per_app: int
    #: Access tokens are to be renewed and there are no app credentials for it.
    lacks_credentials: bool
    #: Of the app credentials in use.
    fingerprint: str | None


@dataclass(frozen=True, slots=True)
class Extra:
    """What was read beside the snapshot; None where it has not been read, or there is none."""

    details: Details | None = None
    #: The requests that the stored covers need.
    demand: Demand | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """One verdict."""

    #: The section of the page that shows more.
    section: str
    name: str
    level: Level
    says: str
    #: What to do; empty if there is nothing to do.
    act: str = ""
