"""The values that travel through the flow. docs/glossary.md explains the words."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple, NewType

from refresher.domain.pacing import DatabaseTime

#: The most IDs a request may hold.
CHUNK_SIZE: Final = 20

OpenId = NewType("OpenId", str)
VideoId = NewType("VideoId", str)


#: Our code where there is no access token that can be sent.
UNUSABLE_TOKEN: Final = "no_usable_access_token"  # noqa: S105 - a code, no token
HEADER_WORD: Final = re.compile(r"[!-~]+")


def usable_token(token: str | None) -> bool:
    """Whether a token can be sent in a header line."""
    return token is not None and HEADER_WORD.fullmatch(token) is not None


# A named tuple: there is one for every video, and a frozen dataclass takes three times as long.
class Video(NamedTuple):
    """A claimed video as the database has it."""

    video_id: VideoId
    #: At the time of the claim. One that was not due is a top-up.
    due: bool
    #: Unix seconds, as the driver takes ten times as long to decode a time; None without a cover.
    cover_expires_at: float | None
    #: Answers in a row without a newer cover.
    misses: int
    #: Left out of the last answer.
    missing: bool


@dataclass(frozen=True, slots=True)
class Claim:
    """An account under this replica's lease, with videos to ask for and slots.

    Times are the database's.
    """

    open_id: OpenId
    #: None where there is none, or none that we can read.
    access_token: str | None = field(repr=False)
    #: Grows with each lease of the account: a write under an older lease changes nothing.
    lease_epoch: int
    lease_expires_at: datetime
    #: Failed claims in a row.
    failures: int
    #: Empty where nothing was due after all, or where the token comes first.
    videos: Sequence[Video]
    #: The slot of the first chunk.
    first_slot: datetime
    #: From one chunk's slot to the next one's.
    step_seconds: float
    time: DatabaseTime
    token: "TokenStanding"
    #: More is due, or has not been looked at.
    unfinished: bool = False
    #: We keep to a limit of the app that 429s have shown.
    app_limited: bool = False
    #: How many videos the account has; None where the claim may not have seen them all.
    all_videos: int | None = None
    #: Since when it fails by itself; None where it does not.
    isolated_since: datetime | None = None
    #: Why it failed the last time.
    isolated_reason: str | None = None
    #: Where the rows were, for the database only. It finds other videos by their key.
    ctids: Mapping[VideoId, str] = field(default_factory=dict, repr=False)

    @property
    def chunks(self) -> int:
        """How many requests the videos take."""
        return -(-len(self.videos) // CHUNK_SIZE)


@dataclass(frozen=True, slots=True)
class TokenStanding:
    """The state of a claim's access token."""

    #: Grows with every change of the account's tokens.
    generation: int
    #: There is a refresh token, and we are to use it.
    renewable: bool = False
    #: To be renewed now, before anything is asked.
    due: bool = False
    #: Not to be sent any more.
    dead: bool = False
    #: It replaced a refused one and has not been accepted yet.
    renewed: bool = False
    #: False where it is sealed with a key that we do not have.
    readable: bool = True
    #: How often in a row its renewal was put off.
    failures: int = 0


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """What to renew an access token with."""

    token: str = field(repr=False)
    #: The outcome of an earlier request with it is unknown.
    interrupted: bool


@dataclass(frozen=True, slots=True)
class TokenPair:
    """The API's answer to a token request. For None, what is stored stays."""

    access_token: str = field(repr=False)
    access_token_lives_seconds: float
    refresh_token: str | None = field(repr=False)
    refresh_token_lives_seconds: float | None
    scope: str | None
    #: Whose the pair is, as the API says.
    open_id: str | None = None


@dataclass(slots=True)
class Write:
    """What is written back for some videos of a chunk that get the same values."""

    video_ids: list[VideoId]
    due_at: datetime
    #: When the new covers die; None where the stored covers stay.
    cover_expires_at: datetime | None = None
    #: A new cover for each video, byte for byte as it came; empty where the stored covers stay.
    urls: list[str] = field(default_factory=list, repr=False)  # a URL holds its signature
    misses: int = 0
    missing: bool = False
    gone: bool = False
    #: The code with which a request for this video alone was refused.
    refusal: str | None = None


@dataclass(slots=True)
class ChunkWrite:
    """The writes of one chunk, with the account and the lease epoch they were decided under."""

    open_id: OpenId
    lease_epoch: int
    writes: Sequence[Write]
    #: As in the claim.
    ctids: Mapping[VideoId, str] = field(default_factory=dict, repr=False)
    #: How many rows are to be written.
    videos: int = field(init=False)

    def __post_init__(self) -> None:
        self.videos = sum([len(write.video_ids) for write in self.writes])


@dataclass(frozen=True, slots=True)
class Park:
    """Why an account is parked. It holds only while nobody has replaced the tokens."""

    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class LastFailure:
    """What a claim's failure is remembered by."""

    #: TikTok's error code, or ours where no answer came.
    code: str
    #: None where no answer came.
    http_status: int | None
    log_id: str | None


@dataclass(frozen=True, slots=True)
class Release:
    """The end of a claim: the lease is released, with a back-off, a pause or a park."""

    open_id: OpenId
    lease_epoch: int
    #: Of the tokens that the claim had.
    generation: int = 0
    #: Failed claims in a row.
    failures: int = 0
    #: Delays the next claim. New videos may still wake the account, unless it is isolated.
    retry_seconds: float = 0.0
    #: Delays the next slot, for all replicas and for new videos, and lowers the account's rate.
    pause_seconds: float = 0.0
    park: Park | None = None
    #: The token was accepted.
    answered: bool = False
    #: The token was refused: it is renewed before anything is asked.
    refused: bool = False
    #: Renewing the token failed, or was not tried. It is tried again after so long.
    token_retry_seconds: float = 0.0
    #: How many were sent.
    requests: int = 0
    #: As in the claim.
    unfinished: bool = False
    #: Nothing was due in the part of the account that was read.
    passed_over: bool = False
    #: The pause is for a spent daily quota. It does not lower the rate.
    quota_spent: bool = False
    #: Set where the account fails by itself: `retry_seconds` then holds for new videos, too.
    isolated_reason: str | None = None
    #: None where nothing failed: then what is stored stays.
    last_failure: LastFailure | None = None
    #: Set where every video of the account got a new cover: a video for each group of equal writes.
    #: While these are unchanged, the release need not count the videos.
    samples: Sequence["Sample"] = ()


class Sample(NamedTuple):
    """A video with a new cover, which stands for all that were written with the same values."""

    video_id: VideoId
    #: How many it stands for, itself counted.
    videos: int


@dataclass(frozen=True, slots=True)
class Released:
    """What a release led to."""

    parked: bool
    #: Infinite where nothing is left to ask for.
    wake_in_seconds: float
    #: By this release or an earlier one.
    isolated: bool


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock."""

    #: The server's process; 0 for a prepared transaction.
    pid: int
    #: None where the server does not tell it.
    application_name: str | None
    #: Since when it may hold the lock; None where the server does not tell it.
    since: datetime | None
