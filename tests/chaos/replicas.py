"""`refresher run` as processes that are killed, stopped, ended and started again."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic

from tests.chaos.journal import Entry, Journal

#: Fakes the wall clock of a process, not its monotonic clock. Debian's package is libfaketime.
#: Without it no clock is stepped.
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
#: How much longer than its grace time a stop may take on a busy machine.
SLACK_SECONDS = 4.0
#: How long /livez may take to answer after a start on a busy machine.
START_SECONDS = 15.0
#: How long a process may need to catch up after a SIGSTOP.
BREATH_SECONDS = 2.0


class Replica:
    """One replica, process after process. It reports unexpected ends to `on_violation`."""

    def __init__(
        self,
        name: str,
        environment: Mapping[str, str],
        folder: Path,
        journal: Journal,
        on_violation: Callable[[str, str], None],
        *,
        grace_seconds: float,
        steps_clock: bool = True,
    ) -> None:
        self.name = name
        self.outputs: list[Path] = []
        self.steady = False
        self._environment = dict(environment)
        self._folder = folder
        self._journal = journal
        self._on_violation = on_violation
        self._grace_seconds = grace_seconds
        self._process: asyncio.subprocess.Process | None = None
        self._expected: set[int] = set()
        self._watching: asyncio.Task[None] | None = None
        self._started = 0.0
        self._is_up = False
        self._unanswered_since: float | None = None
        self._clock = folder / f"{name}.clock"
        self._offsets = [0]
        if FAKETIME and steps_clock:
            self._environment |= {
                "LD_PRELOAD": str(FAKETIME),
                "FAKETIME_TIMESTAMP_FILE": str(self._clock),
                "FAKETIME_CACHE_DURATION": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
            self.step_clock(0)

    def step_clock(self, seconds: int) -> None:
        """Within a second, its wall clock is this far ahead of the true time."""
        self._offsets.append(seconds)
        self._clock.write_text(f"{seconds:+d}\n")

    def real_time(self, told: float, heard: float) -> float:
        """The true Unix time of a log line: `told` by its own wall clock, `heard` by ours."""
        return min((told - offset for offset in self._offsets), key=lambda at: abs(heard - at))

    async def start(self) -> None:
        """Start a new process with a new log. It is `steady` from now on."""
        output = self._folder / f"{self.name}-{len(self.outputs) + 1}.log"
        self.outputs.append(output)
        with output.open("wb") as file:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "refresher", "run",
                env=self._environment,
                cwd=self._folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )  # fmt: skip
        self._expected = set()
        self._started, self._is_up = monotonic(), False
        self._unanswered_since = None
        self.steady = True
        self._watching = asyncio.create_task(self._watch(self._process))
        self._journal.note("started", self.name)

    async def kill(self) -> None:
        self.steady = False
        self._journal.note("killed", self.name)
        self._signal(signal.SIGKILL)
        await self._ended()

    def stop(self) -> Entry:
        """Send SIGSTOP. Give the entry to `go_on` later."""
        self.steady = False
        entry = self._journal.note("stopped", self.name, lasting=True)
        self._signal(signal.SIGSTOP, ends=False)
        return entry

    def go_on(self, entry: Entry) -> None:
        entry.ended = monotonic() + BREATH_SECONDS
        self._signal(signal.SIGCONT, ends=False)
        self._unanswered_since = None
        self.steady = True

    async def terminate(self) -> None:
        """SIGTERM: it must exit 0 within its grace time."""
        self.steady = False
        self._journal.note("terminated", self.name)
        # Before it handles signals it has nothing to clean up.
        self._expected = {0} if self._is_up else {0, -signal.SIGTERM}
        if not self._process or self._process.returncode is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        began = monotonic()
        try:
            await asyncio.wait_for(self._ended(), self._grace_seconds + SLACK_SECONDS)
        except TimeoutError:
            waited = f"{monotonic() - began:.1f} s after SIGTERM"
            self._on_violation("5 process", f"{self.name}: still there {waited}")
            await self.kill()

    async def end(self) -> None:
        """Kill it if it is there."""
        self.steady = False
        self._expected = {0, -signal.SIGKILL}
        if self._process and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._ended()

    def answered(self, *, is_alive: bool) -> None:
        """Take the result of a look at /livez. Report a process that does not answer for long."""
        now = monotonic()
        if is_alive or not self.steady:
            self._unanswered_since = None
            self._is_up = self._is_up or is_alive
            return
        if not self._is_up and now < self._started + START_SECONDS:
            return
        self._unanswered_since = self._unanswered_since or now
        if now - self._unanswered_since > SLACK_SECONDS:
            self._on_violation("5 process", f"{self.name}: /livez has not answered")

    def _signal(self, number: signal.Signals, *, ends: bool = True) -> None:
        if ends:
            self._expected = {-number}
        if self._process and self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    async def _ended(self) -> None:
        if self._watching:
            await asyncio.shield(self._watching)

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        _forget_clock(process.pid)
        if process is not self._process:
            return
        if code not in self._expected:
            expected = sorted(self._expected) or "nothing"
            self._on_violation("5 process", f"{self.name}: exit code {code}, expected {expected}")


def _forget_clock(pid: int) -> None:
    """Remove the shared memory that faketime leaves after a kill."""
    for left in Path("/dev/shm").glob(f"*faketime*_{pid}"):
        left.unlink(missing_ok=True)
