"""The values that travel through the flow. The words are the README's."""

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


#: Our word where there is no access token that could be sent.
UNUSABLE_TOKEN: Final = "no_usable_access_token"  # noqa: S105 - a code, no token
HEADER_WORD: Final = re.compile(r"[!-~]+")


def usable_token(token: str | None) -> bool:
    """Whether a token can be sent at all: it travels in a header line."""
    return token is not None and HEADER_WORD.fullmatch(token) is not None


# A named tuple, as one is made for every video: a frozen dataclass takes three times as long.
class Video(NamedTuple):
    """A claimed video as the database has it; without a cover, `cover_expires_at` is None.

    That is in Unix seconds: to decode a time takes the driver ten times as long. `due` is as of the
    claim; what was not due fills a chunk up.
    """

    video_id: VideoId
    due: bool
    cover_expires_at: float | None
    misses: int
    missing: bool


@dataclass(frozen=True, slots=True)
class Claim:
    """An account under this replica's lease, with the videos to ask for and the slots reserved.

    The first chunk's slot is `first_slot`, each further one `step_seconds` later. All times are
    the database's. No videos: nothing was due after all, or the token comes first. `unfinished`:
    more is due, or has not been looked at. `app_limited`: a limit of the app that 429s have shown
    is kept to. `isolated_since`: it fails by itself, the last time for that reason. `all_videos`:
    how many the account has, where the claim is sure to have seen them all. `ctids`: where the rows
    lay, for the database only; it finds a video that has none by its key.
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
    token: "TokenStanding"
    unfinished: bool = False
    app_limited: bool = False
    all_videos: int | None = None
    isolated_since: datetime | None = None
    isolated_reason: str | None = None
    ctids: Mapping[VideoId, str] = field(default_factory=dict, repr=False)

    @property
    def chunks(self) -> int:
        """How many requests the videos take."""
        return -(-len(self.videos) // CHUNK_SIZE)


@dataclass(frozen=True, slots=True)
class TokenStanding:
    """How it is with a claim's access token.

    `generation` moves with every change of the account's tokens. `renewable`: there is a refresh
    token, and refreshing is ours to do. `due`: refresh it now, nothing is to be asked before;
    `dead`: it is not to be sent any more. `renewed`: it replaced a refused one and has not been
    accepted yet. Not `readable`: it is sealed with a key that we do not have.
    """

    generation: int
    renewable: bool = False
    due: bool = False
    dead: bool = False
    renewed: bool = False
    readable: bool = True
    failures: int = 0


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """What to refresh with. `interrupted`: an earlier request with it has an unknown outcome."""

    token: str = field(repr=False)
    interrupted: bool


@dataclass(frozen=True, slots=True)
class TokenPair:
    """The API's answer to a refresh; None where it says nothing: what is stored then stays.

    `open_id` is whose the pair is, by the API's word.
    """

    access_token: str = field(repr=False)
    access_token_lives_seconds: float
    refresh_token: str | None = field(repr=False)
    refresh_token_lives_seconds: float | None
    scope: str | None
    open_id: str | None = None


@dataclass(slots=True)
class Write:
    """What is written back alike for some videos of a chunk.

    `urls` are their covers, byte for byte as they came, which die at `cover_expires_at`; where the
    stored ones stay there is neither. `refusal` is the code with which a request for one of them
    alone was refused.
    """

    video_ids: list[VideoId]
    due_at: datetime
    cover_expires_at: datetime | None = None
    urls: list[str] = field(default_factory=list, repr=False)  # a URL holds its signature
    misses: int = 0
    missing: bool = False
    gone: bool = False
    refusal: str | None = None


@dataclass(slots=True)
class ChunkWrite:
    """The writes of one chunk, with the account and the lease epoch they were decided under.

    `ctids` are its claim's. `videos` is how many rows are to be written.
    """

    open_id: OpenId
    lease_epoch: int
    writes: Sequence[Write]
    ctids: Mapping[VideoId, str] = field(default_factory=dict, repr=False)
    videos: int = field(init=False)

    def __post_init__(self) -> None:
        self.videos = sum([len(write.video_ids) for write in self.writes])


@dataclass(frozen=True, slots=True)
class Park:
    """Why an account is parked. It holds only while nobody has replaced the tokens."""

    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class Release:
    """The end of a claim: back-off, pause or park, and the lease given back.

    `retry_seconds` delays the next claim, `pause_seconds` the next slot: the pause holds for all
    replicas and against new videos, too, and lowers the account's rate, unless it is for a day's
    `quota_spent`. `answered`: the token was
    accepted; `refused`: it is to be refreshed before anything is asked; `token_retry_seconds`:
    refreshing it failed and is tried again then. `unfinished` is the claim's;
    `passed_over`: nothing was due in the part of the account that was read. `samples`: a video of
    each kind of new covers with how many are of that kind, all of the account's together; it need
    not be counted while these are as they were written. `isolated_reason`: the account fails by
    itself; `retry_seconds` then holds as a pause does, but does not lower the rate.
    """

    open_id: OpenId
    lease_epoch: int
    generation: int = 0
    failures: int = 0
    retry_seconds: float = 0.0
    pause_seconds: float = 0.0
    park: Park | None = None
    answered: bool = False
    refused: bool = False
    token_retry_seconds: float = 0.0
    requests: int = 0
    unfinished: bool = False
    passed_over: bool = False
    quota_spent: bool = False
    isolated_reason: str | None = None
    samples: Sequence["Sample"] = ()


class Sample(NamedTuple):
    """A video with a new cover, and how many were written alike with it, itself counted."""

    video_id: VideoId
    videos: int


@dataclass(frozen=True, slots=True)
class Released:
    """What a release led to. `wake_in_seconds` may be infinite: nothing left to ask for.

    `isolated`: it is now, by this release or an earlier one.
    """

    parked: bool
    wake_in_seconds: float
    isolated: bool


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock: the server's process, what it calls itself, since when it may hold it.

    None is what the server does not tell; process 0 is a prepared transaction.
    """

    pid: int
    application_name: str | None
    since: datetime | None
