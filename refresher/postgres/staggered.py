"""Tries several things one after the other, and takes the first that succeeds."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


async def first_of(
    attempts: Sequence[Callable[[], Awaitable[T]]],
    *,
    after_seconds: float,
    discard: Callable[[T], None],
) -> T:
    """The first result. The next attempt begins when one fails, or after `after_seconds`.

    `discard` gets each result that comes too late. If all fail, raises `ExceptionGroup` of their
    errors, in the order of the attempts.
    """
    tasks: list[asyncio.Future[T]] = []
    failed: set[asyncio.Future[T]] = set()
    try:
        while len(failed) < len(attempts):
            waiting = len(tasks) < len(attempts)
            if waiting:
                tasks.append(asyncio.ensure_future(attempts[len(tasks)]()))
            done, _ = await asyncio.wait(
                set(tasks) - failed,
                timeout=after_seconds if waiting and len(tasks) < len(attempts) else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in tasks:
                if task in done and task.exception() is None:
                    return tasks.pop(tasks.index(task)).result()
            failed |= done
        errors = [task.exception() for task in tasks]
        raise ExceptionGroup("no host", [each for each in errors if isinstance(each, Exception)])
    finally:
        for task in tasks:
            task.cancel()
        # A cancelled attempt closes what it has opened. One that was done is discarded here.
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(result, BaseException):
                discard(result)
