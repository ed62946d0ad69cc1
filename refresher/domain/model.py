"""The values that travel through the flow. The words are the README's."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NewType

from refresher.domain.pacing import DatabaseTime

OpenId = NewType("OpenId", str)
VideoId = NewType("VideoId", str)


def usable_token(token: str | None) -> bool:
    """Whether a token can be sent at all: it travels in a header line."""
    return token is not None and re.fullmatch(r"[!-~]+", token) is not None


@dataclass(frozen=True, slots=True)
class Cover:
    """A cover URL, byte for byte as it came, and the time it dies."""

    url: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Video:
    """A claimed video as the database has it; without a cover, `cover_expires_at` is None."""

    video_id: VideoId
    due_at: datetime
    cover_expires_at: datetime | None
    misses: int
    missing: bool


@dataclass(frozen=True, slots=True)
class Claim:
    """An account under this replica's lease, with the videos to ask for and the slots reserved.

    The first chunk's slot is `first_slot`, each further one `step_seconds` later. All times are
    the database's. No videos: nothing was due after all, the account only wants its next wake-up.
    """

    open_id: OpenId
    access_token: str | None = field(repr=False)
    lease_epoch: int
    lease_expires_at: datetime
    failures: int
    videos: Sequence[Video]
    first_slot: datetime
    step_seconds: float
    time: DatabaseTime


@dataclass(frozen=True, slots=True)
class Write:
    """What is written back for one video. `cover` is None when the stored one stays."""

    video_id: VideoId
    due_at: datetime
    cover: Cover | None = None
    misses: int = 0
    missing: bool = False
    gone: bool = False


@dataclass(frozen=True, slots=True)
class ChunkWrite:
    """The writes of one chunk, with the account and the lease epoch they were decided under."""

    open_id: OpenId
    lease_epoch: int
    writes: Sequence[Write]


@dataclass(frozen=True, slots=True)
class Park:
    """Why an account is parked. It holds only while `access_token` is still the stored one."""

    state: str
    reason: str
    access_token: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Release:
    """The end of a claim: back-off, pause or park, and the lease given back.

    `retry_seconds` delays the next claim, `pause_seconds` the next slot: the pause holds for all
    replicas and against new videos, too.
    """

    open_id: OpenId
    lease_epoch: int
    failures: int = 0
    retry_seconds: float = 0.0
    pause_seconds: float = 0.0
    park: Park | None = None
    requests: int = 0


@dataclass(frozen=True, slots=True)
class Released:
    """What a release led to. `wake_in_seconds` may be infinite: nothing left to ask for."""

    parked: bool
    wake_in_seconds: float
