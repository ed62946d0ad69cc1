"""`explain`, and what it shares with `accounts show`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from refresher.cli.options import ADD_VIDEOS, TAKES_HYPHENS, unknown_account, unknown_video
from refresher.cli.output import Misuse, encodable, print_pairs, printable, short

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from refresher.domain.checkup.facts import Lives
    from refresher.domain.explain import Explanation
    from refresher.domain.facts import Facts, VideoFacts
    from refresher.domain.gates import Gate
    from refresher.domain.pacing import Pace
    from refresher.domain.quota import Limit
    from refresher.postgres.database import Pool
    from refresher.settings import Settings

#: For a closed gate about which nothing is to be done.
WAITS: Final = "waits"
#: By `Mark`, and where the output cannot show these.
MARKS: Final = {"open": "✓", WAITS: "…", "closed": "✗", "trouble": "!", "silent": "·"}
PLAIN_MARKS: Final = {"open": "+", WAITS: "~", "closed": "x", "trouble": "!", "silent": "-"}
CONTEXT: Final = TAKES_HYPHENS


def explain(
    video_id: Annotated[
        str | None, typer.Argument(help="The video; else the account alone.")
    ] = None,
    account: Annotated[str | None, typer.Option(help="The open_id of the account.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Why a video or an account is in the state it is in, and when it is asked for next.

    Example: refresher explain 7077642457847994444
    """
    import json

    from refresher.cli.database import with_database
    from refresher.domain.explain import explain as explained
    from refresher.settings import read_settings

    if video_id is None and account is None:
        raise Misuse("VIDEO_ID, --account: expected one of them, or both")
    settings = read_settings()
    facts = with_database(settings, lambda pool: _read(pool, settings, video_id, account))
    told = [explained(each) for each in facts]
    if as_json:
        print(json.dumps({"explained": [as_data(each) for each in told]}, indent=2))
        return
    for number, each in enumerate(told):
        print("\n" * bool(number), end="")
        _print(each)


async def _read(
    pool: Pool, settings: Settings, video_id: str | None, account: str | None
) -> Sequence[Facts]:
    from refresher.postgres.vitals import read_lives

    if account is not None:
        facts: Sequence[Facts] = [await read_account(pool, settings, account, video_id)]
    else:
        facts = await _of_video(pool, settings, video_id)
    lives = await read_lives(pool, settings.due_policy)
    return [replace(each, limit=_limit(each, lives, settings.pace)) for each in facts]


async def _of_video(pool: Pool, settings: Settings, video_id: str | None) -> Sequence[Facts]:
    from refresher.postgres.explain import accounts_of_video

    assert video_id is not None  # noqa: S101 - one of them is given
    open_ids = await accounts_of_video(pool, video_id) if encodable(video_id) else []
    if not open_ids:
        raise unknown_video(video_id)
    return await _facts(pool, settings, open_ids, video_id)


async def read_account(
    pool: Pool, settings: Settings, open_id: str, video_id: str | None = None
) -> Facts:
    """Raises `Misuse` where there is no such account, or no such video of it."""
    facts = (
        await _facts(pool, settings, [open_id], video_id)
        if encodable(open_id) and encodable(video_id or "")
        else []
    )
    if not facts:
        raise unknown_account(open_id)
    if video_id is not None and facts[0].video is None:
        raise await _elsewhere(pool, open_id, video_id)
    return facts[0]


async def _elsewhere(pool: Pool, open_id: str, video_id: str) -> Misuse:
    from refresher.postgres.explain import accounts_of_video

    others = await accounts_of_video(pool, video_id)
    hint = f"it is stored under {', '.join(map(repr, others))}" if others else ADD_VIDEOS
    return unknown_video(video_id, account=open_id, hint=hint)


async def _facts(
    pool: Pool, settings: Settings, open_ids: Sequence[str], video_id: str | None
) -> Sequence[Facts]:
    from refresher.postgres.explain import read_facts

    credentials = settings.app_credentials
    return await read_facts(
        pool,
        open_ids,
        video_id,
        pace=settings.pace,
        managed=settings.renews_tokens,
        poll_seconds=settings.poll_seconds,
        credentials=credentials.fingerprint if credentials else None,
    )


def _limit(facts: Facts, lives: Lives, pace: Pace) -> Limit | None:
    """The limit of its token, and what its covers need of it if they live as others do."""
    from refresher.domain.claiming import chunks_of
    from refresher.domain.quota import limit_of_token, needed_by
    from refresher.domain.spans import counted

    videos = facts.account.videos
    if not videos or not lives.sampled:
        return None
    whose = f"its {counted(videos, 'video')} need{'s' if videos == 1 else ''}"
    life_seconds = lives.usual_seconds
    needed = needed_by(whose, chunks_of(videos), lives.policy, 1.0, life_seconds)
    return limit_of_token(pace, needed)


# --- For people ---


def _print(told: Explanation) -> None:
    facts = told.facts
    video = f"video {facts.video.id} of " if facts.video else ""
    print(printable(f"{video}account {facts.account.open_id}: {told.verdict}"))
    print()
    marks = MARKS if encodable("".join(MARKS.values()), output=True) else PLAIN_MARKS
    print_pairs(
        [
            (
                f"{marks[WAITS if gate.waits else gate.mark]} {gate.name.replace('_', ' ')}",
                _gate(gate),
            )
            for gate in told.gates
        ]
    )
    print()
    print_pairs(_rest(told))


def _gate(gate: Gate) -> str:
    since = f", since {short(gate.since)}" if gate.since else ""
    until = f", until {short(gate.until)}" if gate.until else ""
    return f"{gate.value}{since}{until}"


def _rest(told: Explanation) -> Sequence[tuple[str, str]]:
    from refresher.domain.spans import seen_from

    now, video = told.facts.now, told.facts.video
    failed = _failure(told.facts)
    lines = [("cover", _cover(video))] if video else []
    lines += [
        ("last failure", failed or "none"),
        (
            "asked for next",
            seen_from(now, told.next_ask_at) if told.next_ask_at else "not by itself",
        ),
        (
            "expected by",
            seen_from(now, told.expected_at) if told.expected_at else f"not known: {told.unknown}",
        ),
        ("to change it", told.command or "nothing is to be done"),
        *(("", command) for command in told.commands[1:]),
    ]
    return lines


def _failure(facts: Facts) -> str:
    from refresher.domain.explain import last_failure

    told, at = last_failure(facts.account), facts.account.last_failure_at
    return f"{told}, at {short(at)}" if told else ""


def _cover(video: VideoFacts) -> str:
    if video.cover_image_url is None:
        return "none"
    dies = f"dies {short(video.cover_expires_at)}" if video.cover_expires_at else "names no expiry"
    stored = f", stored {short(video.refreshed_at)}" if video.refreshed_at else ""
    return f"{dies}{stored}, {unsigned(video.cover_image_url)}"


def unsigned(url: str) -> str:
    """The URL without its query, which holds the signature, and without a password."""
    from refresher.logs import redacted_text

    return redacted_text(url.partition("?")[0].partition("#")[0])


# --- For programs ---


def as_data(told: Explanation) -> Mapping[str, Any]:
    """What `--json` prints: the names are an interface, see docs/commands.md."""
    facts, account = told.facts, told.facts.account
    return {
        "open_id": account.open_id,
        "video_id": facts.video and facts.video.id,
        "at": facts.now.isoformat(),
        "verdict": told.verdict,
        "reason": told.reason,
        "gates": [_gate_data(gate) for gate in told.gates],
        "cover": facts.video and _cover_data(facts, facts.video),
        "last_failure": failure_data(facts),
        "next_ask_at": iso(told.next_ask_at),
        "expected_at": iso(told.expected_at),
        "unknown": told.unknown,
        "accounts_ahead": account.accounts_ahead,
        "command": told.command,
        "commands": told.commands,
    }


def _gate_data(gate: Gate) -> Mapping[str, Any]:
    return {
        "name": gate.name,
        "state": gate.mark.value,
        "value": gate.value,
        "since": iso(gate.since),
        "until": iso(gate.until),
        "command": gate.command,
    }


def _cover_data(facts: Facts, video: VideoFacts) -> Mapping[str, Any]:
    """The stored cover and what its last answers were."""
    expires, url = video.cover_expires_at, video.cover_image_url
    return {
        "url_without_query": url and unsigned(url),
        "expires_at": iso(expires),
        "left_seconds": (expires - facts.now).total_seconds() if url and expires else None,
        "refreshed_at": iso(video.refreshed_at),
        "due_at": iso(video.due_at),
        "misses": video.misses,
        "missing_since": iso(video.missing_since),
        "gone_at": iso(video.gone_at),
        "refusal": video.refusal,
    }


def failure_data(facts: Facts) -> Mapping[str, Any] | None:
    """The last failure of an account, which stays after the account has recovered."""
    account = facts.account
    if account.last_failure_code is None:
        return None
    return {
        "at": iso(account.last_failure_at),
        "code": account.last_failure_code,
        "http_status": account.last_failure_http_status,
        "log_id": account.last_failure_log_id,
    }


def iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
