"""Virtual time: the loop jumps to its next timer when it has nothing else to do."""

import asyncio
import inspect
import selectors
from collections.abc import Awaitable, Callable


class JumpingSelector(selectors.DefaultSelector):
    """A selector without files. Instead of waiting it moves its time on."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout=None):
        """As any selector. Raises AssertionError if there is no timer, either."""
        assert timeout is not None, "nothing is left to wait for: the test would hang"
        self.now += max(0.0, timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop with the time of its selector."""

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

    # No functools.wraps: pytest would then find the coroutine function and await it itself.
    run.__name__, run.__doc__, run.__module__ = test.__name__, test.__doc__, test.__module__
    vars(run)["__signature__"] = inspect.signature(test)
    return run
