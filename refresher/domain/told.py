"""What an attached table tells: which of its videos may have changed."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from refresher.domain.parts import parts_of


@dataclass(frozen=True, slots=True)
class Told:
    """Videos of one attachment, in one of three kinds.

    `accounts` are values of the application's account column, with a video ID each; `open_ids`
    come with a video ID each, or without `video_ids` all their rows are meant. No account at all
    means every account.
    """

    id: int
    told_at: datetime
    accounts: Sequence[str] | None = None
    open_ids: Sequence[str] | None = None
    video_ids: Sequence[str] | None = None

    @property
    def size(self) -> int:
        """Of how many it tells."""
        return len(self.accounts or self.open_ids or ())

    @property
    def is_everything(self) -> bool:
        return not self.size

    def split(self) -> Sequence["Told"]:
        """The same in some parts, to find out which of it cannot be applied."""
        return [
            replace(
                self,
                accounts=_picked(self.accounts, places),
                open_ids=_picked(self.open_ids, places),
                video_ids=_picked(self.video_ids, places),
            )
            for places in parts_of(range(self.size))
        ]


def together(told: Iterable[Told]) -> Iterator[Told]:
    """The same in as few as may be: those of a kind as one, with the first one's ID and time."""
    kinds: dict[tuple[bool, bool, bool], list[Told]] = {}
    for each in told:
        kind = (each.accounts is None, each.video_ids is None, each.is_everything)
        kinds.setdefault(kind, []).append(each)
    for alike in kinds.values():
        yield replace(
            alike[0],
            accounts=_chained([each.accounts for each in alike]),
            open_ids=_chained([each.open_ids for each in alike]),
            video_ids=_chained([each.video_ids for each in alike]),
        )


def _chained(lists: Sequence[Sequence[str] | None]) -> Sequence[str] | None:
    if any(each is None for each in lists):
        return None
    return [value for each in lists if each is not None for value in each]


def _picked(values: Sequence[str] | None, places: Sequence[int]) -> Sequence[str] | None:
    return None if values is None else [values[place] for place in places]
