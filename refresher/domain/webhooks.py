"""Webhooks: what is told to the application, where, and when it is tried again."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from refresher.domain.clocks import Chance
from refresher.domain.model import OpenId

#: After its change. Then a webhook is given up.
TRIED_FOR_HOURS: Final = 24
#: After each attempt; then the last of them again and again.
WAITS_SECONDS: Final = (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0)
#: A webhook that has waited for so long is late: it was tried six times.
LATE_SECONDS: Final = 3600.0
#: A wait is up to so much shorter or longer, so that webhooks that failed together come apart.
JITTER: Final = 0.2


@dataclass(frozen=True, slots=True)
class Target:
    """The receiver as the operator has set it. Its URL may hold credentials."""

    url: str = field(repr=False)
    #: In the form `whsec_…`; one signature is made with each.
    secrets: Sequence[str] = field(repr=False)

    @property
    def origin(self) -> str:
        """Scheme, host and port: all of the URL that may be logged."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


@dataclass(frozen=True, slots=True)
class Webhook:
    """A message about one change."""

    #: The same in each attempt.
    webhook_id: str
    type: str
    #: None: it concerns all accounts.
    open_id: OpenId | None
    changed_at: datetime
    #: What belongs to its type, without the open_id.
    data: Mapping[str, object]

    @property
    def body(self) -> str:
        """The JSON that is signed and sent."""
        named = {} if self.open_id is None else {"open_id": self.open_id}
        told = {
            "type": self.type,
            "timestamp": self.changed_at.isoformat(),
            "data": {**named, **self.data},
        }
        return json.dumps(told, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of an attempt."""

    #: The HTTP status; 0 without an answer.
    status: int
    #: In words, without any part of the URL but its host.
    reason: str
    #: The beginning of the body of a refusal, for an operator who asks.
    detail: str = ""
    #: What the answer asks for; None where it does not say.
    retry_after_seconds: float | None = None

    @property
    def is_delivered(self) -> bool:
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES

    @property
    def is_gone(self) -> bool:
        """The receiver wants no more webhooks."""
        return self.status == HTTPStatus.GONE


def wait_seconds(attempts: int, asked_seconds: float | None, chance: Chance) -> float:
    """How long to wait after so many attempts.

    `asked_seconds` is what the answer asked for: it counts up to the longest of our own waits.
    """
    usual = WAITS_SECONDS[min(attempts, len(WAITS_SECONDS)) - 1]
    jittered = usual * (1 + JITTER * (2 * chance() - 1))
    return max(jittered, min(asked_seconds or 0.0, WAITS_SECONDS[-1]))
