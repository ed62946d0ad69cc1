"""Judges the settings."""

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Final

from refresher.domain.checkup.facts import Configured, Parameters
from refresher.domain.checkup.findings import Finding, fine, problem, warning

#: A name of ours, in capitals or not; in a path, the last part.
NAME: Final = re.compile(r"REFRESHER_\w*", re.IGNORECASE)
#: Below this, a name that is meant would be a guess.
LEAST_LIKENESS: Final = 0.75


def valid(settings: Configured) -> Iterator[Finding]:
    if settings.error is not None:
        yield problem(settings.error, "correct it; docs/settings.md lists all settings")
    else:
        yield fine("every setting can be read")


def known(settings: Configured) -> Iterator[Finding]:
    for name in settings.unknown:
        yield warning(f"{name} is no setting and has no effect", _meant(name, settings))
    if not settings.unknown:
        yield fine("every name that begins with REFRESHER_ is a setting")


def _meant(unknown: str, settings: Configured) -> str:
    found = NAME.findall(unknown)
    close = found and get_close_matches(
        found[-1].upper(), settings.known, n=1, cutoff=LEAST_LIKENESS
    )
    return f"did you mean {close[0]}?" if close else "remove it, or see docs/settings.md"


def parameters(parameters: Parameters) -> Iterator[Finding]:
    if parameters.ignored:
        yield warning(
            f"REFRESHER_DATABASE_URL: left out: {', '.join(parameters.ignored)}",
            "remove it; docs/connection-strings.md says why it has no effect",
        )
    else:
        yield fine("every parameter of the database URL has its effect")
