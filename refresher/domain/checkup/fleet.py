"""Judges the replicas."""

from collections.abc import Iterator

from refresher.domain.checkup.facts import Listening, Pooling, Replicas
from refresher.domain.checkup.findings import Finding, fine, problem, skipped, warning
from refresher.domain.pacing import SILENT_SECONDS
from refresher.domain.spans import counted, span


def alive(fleet: Replicas) -> Iterator[Finding]:
    silent = [each for each in fleet.replicas if each.silent_seconds >= SILENT_SECONDS]
    for replica in silent:
        yield warning(
            f"replica {replica.name} has said nothing for {span(replica.silent_seconds)}",
            "it hangs or died: kill it with SIGKILL if it does not stop, and start it again; its"
            " name holds host and process ID",
        )
    if len(silent) == len(fleet.replicas) and not fleet.with_leases:
        yield problem("no replica runs", "start refresher run")
    elif not fleet.replicas:
        holders = counted(fleet.with_leases, "replica")
        yield fine(f"leases are held by {holders} of a version that says no more")
    elif not silent:
        replicas = counted(len(fleet.replicas), "replica")
        yield fine(f"{replicas}, none silent for {span(SILENT_SECONDS)}")


def versions(fleet: Replicas) -> Iterator[Finding]:
    others = [each for each in fleet.replicas if each.version != fleet.version]
    for replica in others:
        yield warning(
            f"replica {replica.name} runs version {replica.version}, this is {fleet.version}",
            "restart the older ones with the newer version when the upgrade is to be complete",
        )
    if not fleet.replicas:
        yield skipped("no replica runs")
    elif not others:
        yield fine(f"every replica runs version {fleet.version}")


def listening(fleet: Listening) -> Iterator[Finding]:
    deaf = fleet.running - fleet.listening
    if not fleet.running:
        yield skipped("no replica runs")
    elif deaf <= 0:
        yield fine("every replica hears of new videos at once")
    elif fleet.pooling is Pooling.TRANSACTION:
        yield fine("new videos wait for the poll: notifications do not come through this pooler")
    elif fleet.hidden:
        yield skipped("sessions of other roles are hidden, those of the daemons perhaps, too")
    else:
        yield warning(
            f"{deaf} of {counted(fleet.running, 'replica')} do not hear of new videos, which wait"
            " for the poll",
            "notifications.missed in the log says why",
        )
