"""`accounts remove`: what it says, asks and does."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from refresher.cli.database import sealer_of, with_database
from refresher.cli.options import unknown_account
from refresher.cli.output import Incomplete, Misuse, encodable, print_pairs, printable, say, short
from refresher.cli.progress import progress
from refresher.domain.errors import DatabaseUnavailable
from refresher.domain.spans import counted, span
from refresher.postgres.attaching.holding import Holder, read_holders
from refresher.postgres.failures import ROWS_REFUSED, first_line
from refresher.postgres.removal import Stored, Taken, forget, give_back, read_stored
from refresher.postgres.tokens import TokenStore
from refresher.removal import Consent, NotRevocableError, NotRevokedError, take_when_free
from refresher.settings import Settings, read_settings
from refresher.tiktok.client import opened

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from refresher.postgres.database import Pool

#: What no command of ours can delete.
STAYS: Final = (
    "lines of logs, which name the open_id and video_ids",
    "backups, the WAL and its archive",
    "rows of your application's own tables",
)
KEEP_CONSENT: Final = "--keep-consent deletes the account without revoking"
AGAIN: Final = "run the command again"


class Plan(NamedTuple):
    """What is to be removed, and what stands in the way."""

    open_id: str
    stored: Stored
    #: Attached tables that have the account's tokens.
    holders: Sequence[Holder]
    revokes: bool

    @property
    def found(self) -> bool:
        return bool(self.stored.rows)

    @property
    def deletes(self) -> Sequence[str]:
        """The tables that lose rows."""
        kept = {"attached_tokens"} if self.holders else set()
        return [table for table in self.stored.rows if table not in kept]


def remove_account(open_id: str, *, keep_consent: bool, yes: bool) -> None:
    """Says what will be done, asks unless `yes`, and does it."""
    if not (yes or sys.stdin.isatty()):
        raise Misuse("expected a terminal to ask on, or --yes")
    if not encodable(open_id):
        raise unknown_account(open_id)
    settings = read_settings()
    plan = with_database(settings, lambda pool: _planned(pool, open_id, revokes=not keep_consent))
    _refuse(plan, settings)
    print_pairs([*_told(plan)])
    if not (yes or _agreed(f"Remove {printable(open_id)}?")):
        raise Incomplete("nothing was removed")
    print(with_database(settings, lambda pool: _remove(pool, settings, plan)))


async def _planned(pool: Pool, open_id: str, *, revokes: bool) -> Plan:
    stored = await read_stored(pool, open_id)
    return Plan(open_id, stored, await read_holders(pool, open_id), revokes)


def _refuse(plan: Plan, settings: Settings) -> None:
    """Raises for what cannot be done, before anything is."""
    if not plan.found:
        raise unknown_account(plan.open_id)
    if not plan.deletes:
        raise Incomplete(_left(plan))
    if plan.stored.forbidden:
        tables = _named(plan.stored.forbidden)
        raise Misuse(f"the role lacks DELETE on {tables}: run it as the owner of the tables")
    if plan.stored.state and plan.revokes and settings.app_credentials is None:
        raise Misuse(
            "REFRESHER_TIKTOK_CLIENT_KEY and REFRESHER_TIKTOK_CLIENT_SECRET are not set: they are "
            f"needed to revoke the consent; {KEEP_CONSENT}"
        )


def _named(tables: Sequence[str]) -> str:
    return ", ".join(f"refresher.{table}" for table in tables)


def _told(plan: Plan) -> Iterator[tuple[str, str]]:
    stored, rows = plan.stored, plan.stored.rows
    yield "open_id", plan.open_id
    if stored.state:
        worked = f", worked now by {stored.worked_by}" if stored.worked_by else ""
        yield "state", f"{stored.state}, since {short(stored.state_since)}{worked}"
        yield "videos", f"{rows.get('videos', 0):,}"
        yield "consent", "is revoked at TikTok first" if plan.revokes else "stays"
    else:
        yield "state", "not stored any more; this is left of it"
    yield "deletes", ", ".join(f"refresher.{table} ({rows[table]:,})" for table in plan.deletes)
    for what in STAYS:
        yield "stays", what
    for holder in plan.holders:
        yield "stays", f"{_tokens_in(holder)}: {_returns(plan)}"


def _tokens_in(holder: Holder) -> str:
    if holder.unreadable:
        return f"perhaps tokens in {holder.table}, which cannot be read ({holder.unreadable})"
    return f"its tokens in {holder.table}"


def _returns(plan: Plan) -> str:
    kept = (
        ", so refresher.attached_tokens keeps fingerprints of the old ones"
        if "attached_tokens" in plan.stored.rows
        else ""
    )
    return f"new tokens there add the account again{kept}; delete the row there first"


def _agreed(question: str) -> bool:
    print(f"{question} [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


async def _remove(pool: Pool, settings: Settings, plan: Plan) -> str:
    """What was done."""
    consent = await _freed(pool, settings, plan) if plan.stored.state else ""
    try:
        videos = await _forget(pool, plan)
        left = await _planned(pool, plan.open_id, revokes=False)
    except (DatabaseUnavailable, *ROWS_REFUSED) as error:
        raise Incomplete(
            f"database: {first_line(error)}; {consent}not all is deleted: {AGAIN}"
        ) from error
    if left.deletes:
        tables = _named(left.deletes)
        raise Incomplete(f"rows are left in {tables}: a trigger of yours, or new ones: {AGAIN}")
    done = f"{printable(plan.open_id)} removed: {consent}{counted(videos, 'video')} deleted"
    if left.found:
        print(done)
        raise Incomplete(_left(left))
    return done


def _left(plan: Plan) -> str:
    there = " and ".join(_tokens_in(holder) for holder in plan.holders)
    return (
        f"refresher.attached_tokens still has fingerprints of {there}: without them the account "
        f"would be added again; delete the row there, then {AGAIN}"
    )


async def _forget(pool: Pool, plan: Plan) -> int:
    with progress(printable(plan.open_id), plan.stored.rows.get("videos", 0)) as on_progress:
        return await forget(
            pool,
            plan.open_id,
            keep_attached=bool(plan.holders),
            on_progress=lambda done: on_progress(done, None),
        )


async def _freed(pool: Pool, settings: Settings, plan: Plan) -> str:
    """Take the account from the daemons, and end the consent. What became of that.

    Where it fails, the account is worked again as before.
    """
    sealer, seconds = sealer_of(settings), settings.request_timeout_seconds
    taken = await take_when_free(pool, sealer, plan.open_id, seconds, _say_wait)
    if taken is None:
        return ""  # somebody else has deleted it
    try:
        return await _ended(pool, settings, taken) if plan.revokes else "the consent stays, "
    except BaseException:
        with suppress(DatabaseUnavailable):
            await give_back(pool, taken)
        raise


def _say_wait(seconds: float) -> None:
    say(f"a daemon is renewing its tokens: waiting, {span(seconds)} at most")


async def _ended(pool: Pool, settings: Settings, taken: Taken) -> str:
    if taken.renewing:
        raise Incomplete(f"its tokens are being renewed; nothing was removed: {AGAIN}")
    seconds = settings.request_timeout_seconds
    async with opened(settings.tiktok_base_url, 1, settings.app_credentials) as tiktok:
        store = TokenStore(pool, sealer_of(settings))
        consent = Consent(taken, store, tiktok, seconds, renews=settings.renews_tokens)
        try:
            revoked = await consent.end()
        except NotRevokedError as error:
            told = f"the consent was not revoked: {error}; nothing was removed: {AGAIN}"
            raise Incomplete(told) from error
        except NotRevocableError as error:
            raise Misuse(f"the consent was not revoked: {error}; {KEEP_CONSENT}") from error
    return "the consent was revoked, " if revoked else "the consent had ended already, "
