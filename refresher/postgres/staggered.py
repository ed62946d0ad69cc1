"""Several hosts, and the first that is fit."""

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
    """The first result. The next attempt begins when one has failed, or has been silent for long.

    `discard` gets a result that came too late. Where all fail, raises `ExceptionGroup` of their
    errors in the order of the attempts.
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
        # Each closes what it has opened; one that was done already is closed here.
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(result, BaseException):
                discard(result)
