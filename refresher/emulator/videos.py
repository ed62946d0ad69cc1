"""The made-up videos."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple


class Video(NamedTuple):
    """A video that is not stored: all its facts follow from its ID."""

    video_id: str
    #: A digest of the ID.
    key: str
    #: The first 64 bits of the digest.
    number: int

    @property
    def missing_rank(self) -> float:
        """Between 0 and 1; the share of missing videos takes the lowest ranks."""
        return self.number / 2**64


def video_of(video_id: str) -> Video:
    digest = hashlib.blake2b(video_id.encode(), digest_size=16).digest()
    return Video(video_id, digest.hex(), int.from_bytes(digest[:8], "big"))


def _embed_link(video: Video) -> str:
    return (
        f"https://www.tiktok.com/static/profile-video?id={video.video_id}"
        "&hide_author=1&utm_campaign=tt4d_open_api&utm_source=sample"
    )


def _embed_html(video: Video) -> str:
    return (
        f'<blockquote class="tiktok-embed" data-video-id="{video.video_id}">'
        f'<iframe src="{_embed_link(video)}"></iframe></blockquote>'
    )


# Only the fields that are asked for are computed. The cover's URL also depends on the time.
FACTS: Final[Mapping[str, Callable[[Video], str | int]]] = {
    "id": lambda video: video.video_id,
    "create_time": lambda video: 1_700_000_000 + video.number % 50_000_000,
    "share_url": lambda video: f"https://www.tiktok.com/@sample/video/{video.video_id}",
    "video_description": lambda video: f"Sample video {video.key[:6]} #sample",
    "duration": lambda video: 5 + video.number % 175,
    "height": lambda _: 1024,
    "width": lambda _: 576,
    "title": lambda video: f"Sample video {video.key[:6]}",
    "embed_html": _embed_html,
    "embed_link": _embed_link,
    "like_count": lambda video: video.number % 90_000,
    "comment_count": lambda video: video.number % 4_000,
    "share_count": lambda video: video.number % 2_000,
    "view_count": lambda video: 90_000 + video.number % 9_000_000_000,
}
