"""Every event the program logs: the interface of docs/events.md, held to it by a test."""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple


class Event(NamedTuple):
    """A log event: `noun.past_tense`, its level, and the fields it carries."""

    name: str
    level: str
    fields: tuple[str, ...]


DAEMON_STARTED: Final = Event(
    "daemon.started",
    "info",
    ("version", "base_url", "limit_per_minute", "app_limit_per_minute", "lead_seconds"),
)
DAEMON_SIGNALED: Final = Event("daemon.signaled", "info", ("signal", "grace_seconds"))
DAEMON_STOPPED: Final = Event("daemon.stopped", "info", ("abandoned_accounts",))
DAEMON_FAILED: Final = Event("daemon.failed", "error", ("exception",))
LOOP_FAILED: Final = Event("loop.failed", "error", ("loop", "exception"))
TOKENS_UNSEALED: Final = Event("tokens.unsealed", "warning", ("reason",))
TOKENS_UNMANAGED: Final = Event("tokens.unmanaged", "warning", ("reason",))
TOKENS_IGNORED: Final = Event("tokens.ignored", "warning", ("open_id", "writes"))
TOKENS_SEALED: Final = Event("tokens.sealed", "info", ("accounts",))
SETTINGS_IGNORED: Final = Event("settings.ignored", "warning", ("variables",))
CLOCK_STEPPED: Final = Event("clock.stepped", "warning", ("seconds",))
PARAMETERS_IGNORED: Final = Event("parameters.ignored", "warning", ("parameters",))
ROWS_RESTRICTED: Final = Event("rows.restricted", "warning", ("tables",))
CONNECTIONS_LIMITED: Final = Event("connections.limited", "warning", ("limit", "wanted"))
REPLICA_LOST: Final = Event("replica.lost", "warning", ("lost_replica", "accounts"))
NOTIFICATIONS_RECEIVED: Final = Event("notifications.received", "info", ("channel",))
NOTIFICATIONS_MISSED: Final = Event("notifications.missed", "info", ("reason",))
COVERS_UNANNOUNCED: Final = Event("covers.unannounced", "warning", ("videos", "reason"))
OPERATIONS_SERVED: Final = Event("operations.served", "info", ("address",))

DATABASE_LOST: Final = Event("database.lost", "error", ("reason",))
DATABASE_RECOVERED: Final = Event("database.recovered", "info", ("away_seconds",))

UPSTREAM_LOST: Final = Event("upstream.lost", "error", ("code", "log_id"))
UPSTREAM_RECOVERED: Final = Event("upstream.recovered", "info", ("away_seconds",))

TOKEN_REFRESHED: Final = Event("token.refreshed", "info", ("open_id", "lives_seconds", "stored"))
TOKEN_FAILED: Final = Event(
    "token.failed",
    "warning",
    ("open_id", "code", "http_status", "log_id", "detail", "retry_in_seconds"),
)
TOKEN_LOST: Final = Event("token.lost", "error", ("open_id",))
CLIENT_REFUSED: Final = Event("client.refused", "error", ("code", "http_status", "log_id"))
CLIENT_REPLACED: Final = Event("client.replaced", "info", ("accounts",))
CONSENT_WARNED: Final = Event("consent.warned", "warning", ("open_id", "ends_at", "within_days"))
APP_THROTTLED: Final = Event(
    "app.throttled", "warning", ("rate_per_minute", "answered", "pause_seconds")
)

ACCOUNT_REFRESHED: Final = Event(
    "account.refreshed",
    "info",
    (
        "open_id",
        "requests",
        "videos",
        "refreshed",
        "unchanged",
        "missing",
        "rejected",
        "postponed",
        "wake_in_seconds",
        "took_seconds",
    ),
)
ACCOUNT_PARKED: Final = Event("account.parked", "warning", ("open_id", "state", "reason", "log_id"))
ACCOUNT_THROTTLED: Final = Event(
    "account.throttled", "warning", ("open_id", "pause_seconds", "code", "quota", "log_id")
)
ACCOUNT_MISNAMED: Final = Event("account.misnamed", "warning", ("open_id", "token_open_id"))
ACCOUNT_FAILED: Final = Event("account.failed", "error", ("open_id", "exception"))
ACCOUNT_ISOLATED: Final = Event(
    "account.isolated",
    "warning",
    ("open_id", "code", "http_status", "log_id", "failures", "retry_in_seconds"),
)
ACCOUNT_RECOVERED: Final = Event("account.recovered", "info", ("open_id", "isolated_seconds"))
ACCOUNT_MENDED: Final = Event("account.mended", "warning", ("open_id", "overslept_seconds"))
ACCOUNT_BLOCKED: Final = Event("account.blocked", "error", ("open_id",))
RELEASE_BLOCKED: Final = Event(
    "release.blocked",
    "warning",
    ("open_id", "holder_pid", "holder_application", "holder_since", "waited_seconds"),
)
RELEASE_FREED: Final = Event("release.freed", "info", ("open_id", "waited_seconds"))
ACCOUNT_REFUSED: Final = Event(
    "account.refused", "warning", ("open_id", "at", "reason", "retry_in_seconds")
)
ACCOUNT_ABANDONED: Final = Event("account.abandoned", "warning", ("open_id",))
CHUNK_UNSAVED: Final = Event("chunk.unsaved", "warning", ("open_id", "videos"))
CHUNK_BLOCKED: Final = Event(
    "chunk.blocked",
    "warning",
    ("open_id", "videos", "holder_pid", "holder_application", "holder_since", "waited_seconds"),
)
CHUNK_FREED: Final = Event("chunk.freed", "info", ("open_id", "waited_seconds"))
CHUNK_FAILED: Final = Event(
    "chunk.failed", "warning", ("open_id", "videos", "code", "http_status", "log_id", "detail")
)
VIDEO_REJECTED: Final = Event("video.rejected", "warning", ("open_id", "video_id", "reason"))

FRESHNESS_SUMMARIZED: Final = Event(
    "freshness.summarized",
    "info",
    (
        "videos",
        "valid",
        "expired",
        "uncovered",
        "missing",
        "unreachable",
        "due",
        "oldest_overdue_seconds",
        "accounts",
        "requests",
        "refreshed",
        "unchanged",
        "left_out",
        "rejected",
        "chunk_fill",
        "throttled",
        "isolated",
        "hour_requests",
        "hour_busiest",
        "limit_per_minute",
        "paused_since",
    ),
)

FRESHNESS_PROBED: Final = Event(
    "freshness.probed",
    "info",
    (
        "served",
        "refused",
        "unknown",
        "skipped",
        "served_by_host",
        "refused_by_host",
        "served_by_life_left",
        "refused_by_life_left",
    ),
)
LEAD_GROWN: Final = Event(
    "lead.grown",
    "warning",
    ("host", "early_seconds", "lead_seconds", "is_enough", "refused", "served"),
)
LEAD_LOWERED: Final = Event("lead.lowered", "info", ("host", "lead_seconds"))
HOST_REFUSED: Final = Event("host.refused", "warning", ("host", "refused"))
PROBES_FAILED: Final = Event("probes.failed", "warning", ("host", "reason"))

#: Of tables that applications have attached.
ATTACHMENT_APPLIED: Final = Event(
    "attachment.applied", "info", ("attachment", "added", "removed", "unknown")
)
ATTACHMENT_MENDED: Final = Event("attachment.mended", "info", ("attachment", "added", "removed"))
ATTACHMENT_FAILED: Final = Event(
    "attachment.failed", "warning", ("attachment", "at", "reason", "retry_in_seconds")
)
ATTACHMENT_REFUSED: Final = Event(
    "attachment.refused", "warning", ("attachment", "at", "account", "video_id", "reason")
)
COVERS_CARRIED: Final = Event("covers.carried", "info", ("attachment", "covers", "locked"))

#: An operator has paused everything, and resumed it.
FLEET_PAUSED: Final = Event("fleet.paused", "warning", ("since",))
FLEET_RESUMED: Final = Event("fleet.resumed", "info", ("since",))
FORECAST_AT_RISK: Final = Event(
    "forecast.at_risk",
    "warning",
    (
        "first_death_at",
        "covers",
        "accounts",
        "valid_share_after_24_hours",
        "quota_needed_per_minute",
        "quota_per_minute",
        "token_quota_needed_per_minute",
        "token_quota_per_minute",
    ),
)

WEBHOOKS_ENABLED: Final = Event("webhooks.enabled", "info", ("base_url",))
WEBHOOKS_DISABLED: Final = Event("webhooks.disabled", "warning", ("base_url", "retry_in_seconds"))
WEBHOOK_DELIVERED: Final = Event(
    "webhook.delivered", "info", ("webhook_id", "type", "open_id", "attempts")
)
WEBHOOK_FAILED: Final = Event(
    "webhook.failed",
    "warning",
    (
        "webhook_id",
        "type",
        "open_id",
        "http_status",
        "reason",
        "attempts",
        "retry_in_seconds",
    ),
)
WEBHOOK_ABANDONED: Final = Event(
    "webhook.abandoned", "warning", ("webhook_id", "type", "open_id", "attempts")
)

LIBRARY_WARNED: Final = Event("library.warned", "warning", ("logger", "message", "exception"))
LIBRARY_FAILED: Final = Event("library.failed", "error", ("logger", "message", "exception"))

EVENTS: Final = {
    event.name: event for event in list(globals().values()) if isinstance(event, Event)
}

#: What each field holds, as JSON. A name has one type in all events (but see `type_of`): stores
#: with a column a field refuse a line whose field has another type than before. ops/log-schema.json
#: is made of this.
FIELDS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "abandoned_accounts": int,
        "account": str,
        "accounts": dict[str, int],
        "added": int,
        "address": str,
        "answered": int,
        "app_limit_per_minute": int | None,
        "at": Literal[
            "claim",
            "release",
            "token",
            "renewal",
            "audit",
            "seal",
            "consent",
            "free",
            "forward",
            "ignored tokens",
            "apply",
            "carry",
            "walk",
            "takeover",
        ],
        "attachment": str,
        "attempts": int,
        "away_seconds": float,
        "base_url": str,
        "channel": str,
        "chunk_fill": float | None,
        "code": str,
        "covers": int,
        "detail": str,
        "due": int,
        "early_seconds": float,
        "ends_at": datetime,
        "exception": str,
        "expired": int,
        "failures": int,
        "first_death_at": datetime,
        "grace_seconds": float,
        "holder_application": str | None,
        "holder_pid": int | None,
        "holder_since": datetime | None,
        "host": str,
        "hour_busiest": int,
        "hour_requests": int,
        "http_status": int,
        "is_enough": bool,
        "isolated": int,
        "isolated_seconds": float,
        "lead_seconds": float,
        "left_out": int,
        "limit": int,
        "limit_per_minute": int,
        "lives_seconds": float,
        "locked": int,
        "log_id": str,
        "logger": str,
        "loop": Literal[
            "heartbeat",
            "operations",
            "summary",
            "forecast",
            "audit",
            "cover hosts",
            "probe",
            "takeover",
            "tend tokens",
            "ignored tokens",
            "told rows",
            "told covers",
            "attachments",
            "outbox",
            "webhooks",
            "renew leases",
            "keep app limit",
        ],
        "lost_replica": str,
        "message": str,
        "missing": int,
        "oldest_overdue_seconds": float,
        "open_id": str,
        "overslept_seconds": float | None,
        "parameters": list[str],
        "pause_seconds": float,
        "paused_since": datetime | None,
        "postponed": int,
        "quota": Literal["minute", "day"],
        "quota_needed_per_minute": float,
        "quota_per_minute": int | None,
        "rate_per_minute": int,
        "reason": str,
        "refreshed": int,
        "refused": int,
        "refused_by_host": dict[str, int],
        "refused_by_life_left": dict[str, int],
        "rejected": int,
        "removed": int,
        "requests": int,
        "retry_in_seconds": float | None,
        "seconds": float,
        "served": int,
        "served_by_host": dict[str, int],
        "served_by_life_left": dict[str, int],
        "signal": Literal["SIGTERM", "SIGINT"],
        "since": datetime,
        "skipped": int,
        "state": Literal["needs_reauthorization", "needs_scope"],
        "stored": bool,
        "tables": list[str],
        "throttled": int,
        "token_open_id": str,
        "token_quota_needed_per_minute": float,
        "token_quota_per_minute": int | None,
        "took_seconds": float,
        "type": str,
        "unchanged": int,
        "unknown": int,
        "uncovered": int,
        "unreachable": int,
        "valid": int,
        "valid_share_after_24_hours": float | None,
        "variables": list[str],
        "version": str,
        "video_id": str | None,
        "videos": int,
        "waited_seconds": float,
        "wake_in_seconds": float | None,
        "wanted": int,
        "webhook_id": str,
        "within_days": int,
        "writes": int,
    }
)
#: A library's line has a traceback only where the library gave an error.
OPTIONAL: Final = frozenset({"exception"})


def type_of(event: Event, field: str) -> Any:
    """What this field of this event holds.

    `accounts` is a number in all events but the summary; a webhook may concern all accounts.
    """
    if field == "accounts" and event is not FRESHNESS_SUMMARIZED:
        return int
    if field == "open_id" and event.name.startswith("webhook."):
        return str | None
    return FIELDS[field]
