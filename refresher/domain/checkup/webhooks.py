"""Judges how webhooks are delivered."""

from collections.abc import Iterator

from refresher.domain.checkup.facts import Webhooks
from refresher.domain.checkup.findings import Finding, fine, warning
from refresher.domain.spans import counted, span
from refresher.domain.webhooks import LATE_SECONDS


def delivered(webhooks: Webhooks) -> Iterator[Finding]:
    if not webhooks.waiting:
        yield fine("no webhook waits")
        return
    waiting = counted(webhooks.waiting, "webhook")
    told = f"{waiting} not delivered, the oldest for {span(webhooks.oldest_seconds)}"
    if webhooks.oldest_seconds < LATE_SECONDS:
        yield fine(told)
    else:
        yield warning(
            told, "webhook.failed in the log says why not; refresher webhooks test sends one"
        )
