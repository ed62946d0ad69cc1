"""What follows for videos that an operator wants to be asked for again, in words."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from refresher.domain.spans import counted


@dataclass(frozen=True, slots=True)
class Retried:
    """How many videos are to be asked for again, and how many of them have to wait."""

    videos: int = 0
    #: Until their account is active again.
    inactive: int = 0
    #: Until their account's dead access token is renewed.
    renewed_first: int = 0
    #: Until somebody stores new tokens: nothing else renews the dead one.
    lost: int = 0
    #: Until another program stores a new access token: this one is set to renew none.
    renewed_elsewhere: int = 0

    def plus(
        self, videos: int, *, inactive: bool, token_dead: bool, renewable: bool, managed: bool
    ) -> "Retried":
        """With some more, of one account; `managed`: we renew access tokens."""
        if inactive:
            more = replace(self, inactive=self.inactive + videos)
        elif not token_dead:
            more = self
        elif not managed:
            more = replace(self, renewed_elsewhere=self.renewed_elsewhere + videos)
        elif renewable:
            more = replace(self, renewed_first=self.renewed_first + videos)
        else:
            more = replace(self, lost=self.lost + videos)
        return replace(more, videos=self.videos + videos)


def retried_lines(retried: Retried, *, paused: bool) -> Iterator[str]:
    """A line for all, and one for each reason to wait; `paused`: everything is."""
    when = "after the pause" if paused else "now"
    yield f"{counted(retried.videos, 'video')} to be asked for {when}"
    for number, until in (
        (retried.inactive, "when their account is active again: see accounts list"),
        (retried.renewed_first, "when the dead access token of their account is renewed"),
        (
            retried.lost,
            "when their user authorizes again: the dead access token is not renewed",
        ),
        (
            retried.renewed_elsewhere,
            "when another program stores a new access token: this one renews none, as it is set",
        ),
    ):
        if number:
            yield f"{number:,} of them only {until}"
