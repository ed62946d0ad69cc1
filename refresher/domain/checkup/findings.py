"""What a check found, in one line, and what to do about it, in another."""

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """How bad it is."""

    OK = "ok"
    #: Covers stay alive, but something is wrong or will be.
    WARNING = "warning"
    #: Covers die, or the daemon cannot work.
    PROBLEM = "problem"
    #: It could not be looked at.
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    outcome: Outcome
    text: str
    #: What to do; empty where there is nothing to do. What was skipped has one if it was to be
    #: checked, and could not be.
    remedy: str = ""

    @property
    def is_unchecked(self) -> bool:
        return self.outcome is Outcome.SKIPPED and bool(self.remedy)


def fine(text: str) -> Finding:
    return Finding(Outcome.OK, text)


def warning(text: str, remedy: str) -> Finding:
    return Finding(Outcome.WARNING, text, remedy)


def problem(text: str, remedy: str) -> Finding:
    return Finding(Outcome.PROBLEM, text, remedy)


def skipped(why: str) -> Finding:
    return Finding(Outcome.SKIPPED, why)


def unchecked(why: str) -> Finding:
    return Finding(Outcome.SKIPPED, why, "ask again, from a machine near the database")
