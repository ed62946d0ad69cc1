"""Which accounts fail while others are answered, as far as one replica has seen."""

from collections import Counter, deque
from collections.abc import Iterable
from math import inf
from typing import Final

#: So many accounts in trouble are remembered, and so many of their failed videos. Beyond that the
#: oldest accounts are forgotten and begin anew.
MOST_ACCOUNTS: Final = 10_000
MOST_VIDEOS: Final = 100_000
WATCHED: Final = 50
WATCHED_SECONDS: Final = 60.0
#: If fewer than this share of the latest answers are good, the host is not well. Then a few
#: failures in a row are bad luck, not the account's own.
WELL_SHARE: Final = 0.8
#: A video of so many failed chunks in a row is under suspicion.
SUSPECT_AFTER: Final = 3


class Troubles:
    """Failures that go on while others are answered are the account's own. Times are monotonic."""

    def __init__(self) -> None:
        #: When an account's failures in a row began.
        self._since: dict[str, float] = {}
        #: How often each of its videos failed in a row.
        self._videos: dict[str, Counter[str]] = {}
        self._counted = 0
        #: Those of them that were answered for other videos meanwhile.
        self._mixed: set[str] = set()
        self._last_answer = -inf
        #: Good answers (True), and the first failure of each account in trouble (False).
        self._lately: deque[tuple[float, bool]] = deque(maxlen=WATCHED)

    def answered(self, account: str, videos: Iterable[str], now: float) -> None:
        """A good answer, with covers."""
        self._last_answer = now
        self._lately.append((now, True))
        if account in self._since:
            del self._since[account]
        if failed := self._videos.get(account):
            before = len(failed)
            for video in videos:
                failed.pop(video, None)
            self._counted -= before - len(failed)
            if failed:
                self._mixed.add(account)
            else:
                self._drop(account)

    def failed(self, account: str, videos: Iterable[str], now: float) -> None:
        """No answer, or one without covers."""
        if account not in self._since and account not in self._videos:
            self._lately.append((now, False))
        self._since.setdefault(account, now)
        failed = self._videos.setdefault(account, Counter())
        self._counted -= len(failed)
        failed.update(videos)
        self._counted += len(failed)
        if not failed:
            self._drop(account)  # it was for no videos
        if len(self._since) > MOST_ACCOUNTS:
            del self._since[next(iter(self._since))]
        while len(self._videos) > MOST_ACCOUNTS or self._counted > MOST_VIDEOS:
            self._drop(next(iter(self._videos)))

    def forget(self) -> None:
        """Forget all failures: the API was away, which explains them."""
        self._since.clear()
        self._videos.clear()
        self._counted = 0
        self._mixed.clear()
        self._lately.clear()

    def is_known(self, account: str) -> bool:
        """Whether others have been answered since the account began to fail."""
        return self._last_answer > self._since.get(account, inf)

    def is_own(self, account: str, now: float) -> bool:
        """Whether the account's failures are its own: others are answered, and hardly any fail.

        Not while another account has begun to fail since the last answer: the host may fail.
        """
        newest = next(reversed(self._since.values()), -inf)
        return self.is_known(account) and self._last_answer > newest and self.is_host_well(now)

    def is_alone(self, account: str) -> bool:
        """Whether no other account is in trouble."""
        return len(self._since) == (account in self._since)

    def is_mixed(self, account: str) -> bool:
        """Whether some of the account's videos fail while others of them are answered."""
        return account in self._mixed

    def are_suspect(self, account: str, videos: Iterable[str], now: float) -> bool:
        """Whether a video was in several failed chunks in a row, while others are answered."""
        failed = self._videos.get(account, Counter())
        if not any(failed[video] >= SUSPECT_AFTER for video in videos):
            return False
        return self.is_host_well(now) and (self.is_mixed(account) or self.is_known(account))

    def is_host_well(self, now: float) -> bool:
        """Whether hardly any account has begun to fail lately."""
        lately = [good for at, good in self._lately if at > now - WATCHED_SECONDS]
        return sum(lately) >= WELL_SHARE * len(lately)

    def _drop(self, account: str) -> None:
        self._counted -= len(self._videos.pop(account))
        self._mixed.discard(account)
