"""Turns a row of the claim's answer into a `Claim`."""

from collections.abc import Sequence

from asyncpg import Record

from refresher.domain.errors import TokenUnreadable
from refresher.domain.model import Claim, OpenId, TokenStanding, Video
from refresher.domain.pacing import DatabaseTime
from refresher.postgres.sealing import Sealer


def claim_of(row: Record, sealer: Sealer, seals: int, sent: float) -> Claim:
    """The claim of a leased account.

    `seals`: by how much sealing has raised its generation since. `sent`: when the statement was
    sent, by the monotonic clock.
    """
    access_token, readable = _unsealed(row["access_token"], sealer)
    return Claim(
        open_id=OpenId(row["open_id"]),
        access_token=access_token,
        lease_epoch=row["lease_epoch"],
        lease_expires_at=row["lease_expires_at"],
        failures=row["failures"],
        videos=_videos(row),
        ctids=dict(zip(row["video_ids"] or (), (row["ctids"] or "").split(), strict=True)),
        unfinished=row["unfinished"],
        app_limited=row["app_limited"],
        all_videos=row["all_videos"],
        isolated_since=row["isolated_since"],
        isolated_reason=row["isolated_reason"],
        first_slot=row["first_slot"],
        step_seconds=row["step_seconds"],
        # The transaction began when the statement arrived, a little after it was sent. So we send
        # early and end early by that much, which the headroom allows for.
        time=DatabaseTime(row["now"], sent),
        token=_standing(row, seals, readable=readable),
    )


def _unsealed(stored: str | None, sealer: Sealer) -> tuple[str | None, bool]:
    """The access token, and whether one of our keys can read it."""
    try:
        return sealer.unseal(stored), True
    except TokenUnreadable:
        return None, False


def _standing(row: Record, seals: int, *, readable: bool) -> TokenStanding:
    return TokenStanding(
        generation=row["tokens_generation"] + seals,
        renewable=row["renewable"],
        due=row["token_due"],
        dead=row["dead"],
        renewed=row["token_standing"] == "renewed",
        failures=row["token_failures"],
        readable=readable,
    )


def _videos(row: Record) -> Sequence[Video]:
    video_ids, due = row["video_ids"] or (), row["due_videos"]
    columns = row["expires_ats"] or (), row["misses"] or (), row["missing"] or ()
    is_due = [True] * due + [False] * (len(video_ids) - due)
    return list(map(Video._make, zip(video_ids, is_due, *columns, strict=True)))
