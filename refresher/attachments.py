"""Beside the flow: keeps the tables that applications have attached and refresher.videos alike."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from asyncpg import PostgresError

from refresher import events
from refresher.domain.clocks import Clock
from refresher.domain.errors import DatabaseUnavailable, is_away
from refresher.domain.told import Told
from refresher.logs import emit
from refresher.postgres.attached import (
    Attachment,
    AttachmentUnfitError,
    Changes,
    Refused,
    apply_told,
    carry_told,
    give_up_told,
    read_attachments,
    walk_step,
)
from refresher.postgres.database import Pool
from refresher.postgres.failures import first_line

#: How often it is looked for what was told, where tables are attached.
TOLD_SECONDS: Final = 1.0
#: How often it is looked for tables, and a step of the walk through all accounts is done.
WALK_SECONDS: Final = 10.0
#: An attachment that does not fit its table is left alone for so long.
REST_SECONDS: Final = 60.0

Step = Callable[[Pool, Attachment, Refused], Awaitable[tuple[Changes, bool]]]


@dataclass(slots=True)
class Attachments:
    """The attached tables. Each method is one turn, and raises `DatabaseUnavailable`."""

    pool: Pool
    clock: Clock = monotonic
    #: Set when something may have been told.
    told: asyncio.Event = field(default_factory=asyncio.Event)
    #: None: it was not looked for tables yet.
    _attached: Sequence[Attachment] | None = None
    #: Until when an attachment is left alone, by its name and by what failed.
    _rests: dict[tuple[str, str], float] = field(default_factory=dict)

    async def apply(self) -> None:
        """Take over what the tables have told of their videos and tokens."""
        for attachment, done in await self._in_turns("apply", apply_told, await self._known()):
            if done.added or done.removed or done.unknown:
                emit(
                    events.ATTACHMENT_APPLIED,
                    attachment=attachment.name,
                    added=done.added,
                    removed=done.removed,
                    unknown=done.unknown,
                )

    async def carry(self) -> None:
        """Write fresh covers into the tables that have columns for them."""
        carrying = [each for each in await self._known() if each.carries]
        for attachment, done in await self._in_turns("carry", carry_told, carrying):
            if done.carried or done.locked:
                emit(
                    events.COVERS_CARRIED,
                    attachment=attachment.name,
                    covers=done.carried,
                    locked=done.locked,
                )

    async def walk(self) -> None:
        """Look for tables; look at the next accounts of each, whatever was told."""
        self._attached = await read_attachments(self.pool)
        for attachment, done in await self._in_turns("walk", walk_step, self._attached):
            if done.added or done.removed:
                emit(
                    events.ATTACHMENT_MENDED,
                    attachment=attachment.name,
                    added=done.added,
                    removed=done.removed,
                )

    async def _known(self) -> Sequence[Attachment]:
        """The tables as they were last looked for: what is told is not told to nobody."""
        if self._attached is None:
            self._attached = await read_attachments(self.pool)
        return self._attached

    async def _in_turns(
        self, at: str, step: Step, attachments: Sequence[Attachment]
    ) -> Sequence[tuple[Attachment, Changes]]:
        """Do a step for each until nothing is left of any: none waits for all of another."""
        done = {each.name: Changes() for each in attachments}
        left = [each for each in attachments if self._rests.get((each.name, at), 0) <= self.clock()]
        while left:
            going_on = []
            for attachment in left:
                made, more = await self._tried(at, step, attachment)
                done[attachment.name] = done[attachment.name].plus(made)
                if more:
                    going_on.append(attachment)
            left = going_on
        return [(each, done[each.name]) for each in attachments]

    async def _tried(self, at: str, step: Step, attachment: Attachment) -> tuple[Changes, bool]:
        """A step. What is the fault of this attachment stops no other one."""
        try:
            return await step(self.pool, attachment, _refused(at, attachment))
        except AttachmentUnfitError as error:
            self._rest(at, attachment, error)
            await give_up_told(self.pool, attachment)
        except (DatabaseUnavailable, PostgresError) as error:
            if is_away(error):
                raise
            self._rest(at, attachment, error)
        return Changes(), False

    def _rest(self, at: str, attachment: Attachment, error: Exception) -> None:
        self._rests[attachment.name, at] = self.clock() + REST_SECONDS
        emit(
            events.ATTACHMENT_FAILED,
            attachment=attachment.name,
            at=at,
            reason=first_line(error),
            retry_in_seconds=REST_SECONDS,
        )


def _refused(at: str, attachment: Attachment) -> Refused:
    """Says what cannot be done for one video or account, and why."""

    def say(told: Told, error: Exception) -> None:
        emit(
            events.ATTACHMENT_REFUSED,
            attachment=attachment.name,
            at=at,
            account=(told.open_ids or told.accounts or ("",))[0],
            video_id=(told.video_ids or (None,))[0],
            reason=first_line(error),
        )

    return say
