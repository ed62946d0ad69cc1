"""Time that passes at once: a loop that jumps to its next timer when nothing is left to do."""

import asyncio
import inspect
import selectors
from collections.abc import Awaitable, Callable


class JumpingSelector(selectors.DefaultSelector):
    """Waits for no file: the time it was to wait has passed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout=None):
        """As any selector. Raises AssertionError where there is no timer left either."""
        assert timeout is not None, "nothing is left to wait for: the test would hang"
        self.now += max(0.0, timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose time is its selector's."""

    def __init__(self) -> None:
        self.selector = JumpingSelector()
        super().__init__(self.selector)

    def time(self) -> float:
        return self.selector.now


def virtual(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Runs an async test in virtual time."""

    def run(**fixtures):
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(test(**fixtures))

    # No functools.wraps: pytest would follow it to the coroutine function, and await that itself.
    run.__name__, run.__doc__, run.__module__ = test.__name__, test.__doc__, test.__module__
    vars(run)["__signature__"] = inspect.signature(test)
    return run
