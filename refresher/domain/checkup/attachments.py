"""Judges whether attached tables and the stored videos are kept alike."""

from collections.abc import Iterator

from refresher.domain.attachment_check import SLOW_SECONDS
from refresher.domain.checkup.facts import Attachments
from refresher.domain.checkup.findings import Finding, fine, warning
from refresher.domain.spans import counted, span


def applied(attachments: Attachments) -> Iterator[Finding]:
    tables = attachments.waiting_seconds
    late = {name: seconds for name, seconds in tables.items() if seconds > SLOW_SECONDS}
    for name, seconds in late.items():
        yield warning(
            f"what attachment {name} tells has waited for {span(seconds)}",
            "attachment.failed in the log says why; refresher attach --check looks at its table",
        )
    if not tables:
        yield fine("no table is attached")
    elif not late:
        yield fine(f"{counted(len(tables), 'attached table')}, none waits for long")
