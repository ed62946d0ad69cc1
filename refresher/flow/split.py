"""A refused chunk taken apart, until what spoils it stands alone."""

from collections.abc import Sequence

from refresher.domain.answers import Failure, Reaction
from refresher.domain.bisection import Bisection
from refresher.domain.due import DuePolicy
from refresher.domain.model import Video
from refresher.domain.reconcile import Reconciled, put_aside, refused_alone
from refresher.flow.gate import Gate
from refresher.flow.health import Health
from refresher.flow.leases import Leases
from refresher.flow.results import Results
from refresher.flow.work import Work


class Split:
    """Takes a refused chunk apart, within the account's slots."""

    def __init__(
        self,
        gate: Gate,
        leases: Leases,
        results: Results,
        *,
        health: Health,
        policy: DuePolicy,
    ) -> None:
        self._gate = gate
        self._leases = leases
        self._results = results
        self._health = health
        self._policy = policy

    async def take_apart(
        self, work: Work, videos: Sequence[Video], failure: Failure
    ) -> Reconciled | None:
        """What became of the videos of a chunk that failed.

        None: what was not answered stays due.
        """
        code = failure.error.code
        if failure.reaction is Reaction.BISECT:
            return await self._bisect(work, videos, code)
        return await self._search(work, videos, code)

    async def _bisect(self, work: Work, videos: Sequence[Video], code: str) -> Reconciled | None:
        """Ask parts of the chunk, each in a slot of its own, until each bad ID is refused alone."""
        search = Bisection(videos)
        while (part := search.next_part()) and not self._refuses_all(work, search):
            refused = await self._is_refused(work, part)
            if refused is None:
                return None
            search.tell(refused=refused)
        if self._refuses_all(work, search):
            work.at_fault = True
            return put_aside(self._policy, videos, code, work.now())
        return refused_alone(search.bad, code, work.now())

    async def _search(self, work: Work, videos: Sequence[Video], code: str) -> Reconciled | None:
        """A chunk fails again and again: is the reason the account, or one of its videos?

        Where nothing else of the account was answered, a half of the chunk that is answered shows
        that it is a video. A single video that brought nothing before is the reason itself. One
        search a claim. None: the reason is the account.
        """
        if work.searched:
            return None
        work.searched = True
        accused = len(videos) == 1 and videos[0].misses > 0
        if not (accused or work.answered or self._health.is_mixed(work.claim.open_id)):
            videos = await self._failing_half(work, videos)
        return await self._bisect(work, videos, code) if videos else None

    async def _failing_half(self, work: Work, videos: Sequence[Video]) -> Sequence[Video]:
        """The half that fails while the other one is answered. Empty: the account is the reason."""
        middle = len(videos) // 2
        halves = videos[:middle], videos[middle:]
        refused: bool | None = True
        for asked, other in (halves, halves[::-1]):
            if asked and refused:
                refused = await self._is_refused(work, asked)
                if refused is False:
                    return other
        work.at_fault = refused is True
        return ()

    async def _is_refused(self, work: Work, part: Sequence[Video]) -> bool | None:
        """Ask for a part in a slot of its own, store what comes. None: not known."""
        slot = await self._leases.next_slot(work)
        if slot is None:
            return None
        outcome = await self._gate.query(work, part, slot)
        if isinstance(outcome, Reconciled):
            await self._results.store(work, outcome)
            return False
        return None if outcome is None else True

    @staticmethod
    def _refuses_all(work: Work, search: Bisection[Video]) -> bool:
        return search.hopeless and not work.answered
