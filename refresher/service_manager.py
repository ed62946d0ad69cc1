"""Tells a service manager such as systemd how the daemon is, as sd_notify(3) describes it."""

import asyncio
import socket
from collections.abc import Callable, Mapping
from typing import Final

#: How often the manager hears of the daemon, or three times in the time of its watchdog.
BEAT_SECONDS: Final = 10.0
BEATS_IN_WATCHDOG: Final = 3
#: "Ready" is said again after so long, if it was not taken.
AGAIN_SECONDS: Final = 0.5


class ServiceManager:
    """The manager at `NOTIFY_SOCKET`. Without such a variable nobody is told anything."""

    def __init__(self, environment: Mapping[str, str], pid: int) -> None:
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self._beat_seconds = _beat_seconds(environment, pid)

    def waits(self) -> None:
        """The daemon has not started yet: the database is not there, or is being looked at."""
        self._send("STATUS=waiting for the database")

    def stops(self) -> None:
        """The daemon has begun to stop."""
        self._send("STOPPING=1", "STATUS=stopping")

    async def attend(self, is_turning: Callable[[], bool], status: Callable[[], str]) -> None:
        """Say that the daemon is ready, then feed the watchdog while it turns, until cancelled.

        `status` is one short line for people.
        """
        if not self._address:
            return
        is_ready = False
        while True:
            news = [f"STATUS={status()}"]
            if is_ready:
                self._send(*news, *(["WATCHDOG=1"] if is_turning() else []))
            else:
                is_ready = self._send(*news, "READY=1")
            await asyncio.sleep(self._beat_seconds if is_ready else AGAIN_SECONDS)

    def _send(self, *lines: str) -> bool:
        """Whether the manager has taken it. It is never waited for: covers come first."""
        if not self._address:
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.settimeout(0)
            try:
                out.sendto("\n".join(lines).encode(), self._address)
            except OSError:
                return False
        return True


def _address(given: str) -> str:
    """A path, or a name of the abstract namespace; nothing for other kinds of sockets."""
    if given.startswith("@"):
        return "\0" + given[1:]
    return given if given.startswith("/") else ""


def _beat_seconds(environment: Mapping[str, str], pid: int) -> float:
    """A watchdog is meant for us only if it names our process, or none."""
    microseconds = environment.get("WATCHDOG_USEC", "")
    is_ours = environment.get("WATCHDOG_PID", str(pid)) == str(pid)
    if not is_ours or not microseconds.isdecimal() or not int(microseconds):
        return BEAT_SECONDS
    return min(int(microseconds) / 1e6 / BEATS_IN_WATCHDOG, BEAT_SECONDS)
