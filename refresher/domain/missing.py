"""Which missing videos are more than users delete every day."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

#: So many missing videos of all are nothing to look at.
FEW_OF_ALL: Final = 0.01
#: Nor are so many of one account, or this share of its videos.
FEW_OF_ONE: Final = 10
FEW_SHARE_OF_ONE: Final = 0.1


@dataclass(frozen=True, slots=True)
class Missing:
    """An account of which TikTok leaves out videos."""

    open_id: str
    missing: int
    videos: int


def is_many(missing: int, videos: int) -> bool:
    """Of all accounts together."""
    return missing > FEW_OF_ALL * videos


def bereft(accounts: Iterable[Missing]) -> Missing | None:
    """The account that has lost the largest part of its videos, if that is a large one."""
    lost = [
        one
        for one in accounts
        if one.missing > FEW_OF_ONE and one.missing > FEW_SHARE_OF_ONE * one.videos
    ]
    return max(lost, key=lambda one: one.missing / max(one.videos, 1), default=None)
