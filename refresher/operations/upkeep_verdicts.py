"""Verdicts on what a daemon does beside the flow. Of what nobody uses, none."""

from collections.abc import Iterator

from refresher.domain.attachment_check import SLOW_SECONDS
from refresher.domain.probing import are_many_refused
from refresher.domain.spans import counted, number, span
from refresher.domain.webhooks import LATE_SECONDS
from refresher.operations.checks import Check
from refresher.postgres.snapshot import Snapshot


def webhooks(snapshot: Snapshot) -> Iterator[Check]:
    outbox = snapshot.outbox
    if outbox is None or not outbox.waiting:
        return
    waiting, oldest = counted(outbox.waiting, "webhook"), span(outbox.oldest_seconds)
    says = f"{waiting} not delivered, the oldest for {oldest}."
    if outbox.oldest_seconds < LATE_SECONDS:
        yield Check("events", "Webhooks", "ok", says)
    else:
        act = "See webhook.failed in the log; refresher webhooks test sends one."
        yield Check("events", "Webhooks", "warn", says, act)


def probes(snapshot: Snapshot) -> Iterator[Check]:
    probes = snapshot.probes
    if probes is None or not probes.served + probes.refused:
        return
    fetched = counted(probes.served + probes.refused, "cover")
    says = f"{number(probes.refused)} of {fetched} fetched within a day were refused."
    if are_many_refused(probes.refused, probes.served):
        act = "See lead.grown and host.refused in the log."
        yield Check("events", "Probes", "warn", says, act)
    else:
        yield Check("events", "Probes", "ok", says)


def attachments(snapshot: Snapshot) -> Iterator[Check]:
    if not snapshot.attached:
        return
    worst = max(snapshot.attached, key=lambda one: one.waiting_seconds)
    if worst.waiting_seconds <= SLOW_SECONDS:
        says = f"{counted(len(snapshot.attached), 'table')}, none waits for long."
        yield Check("events", "Attached tables", "ok", says)
    else:
        says = f"What attachment {worst.name} tells has waited for {span(worst.waiting_seconds)}."
        act = "See attachment.failed in the log; refresher attach --check looks at its table."
        yield Check("events", "Attached tables", "warn", says, act)
