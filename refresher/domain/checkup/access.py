"""Judges tokens, app credentials and the way to TikTok."""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Final

from refresher.domain.checkup.facts import App, Greeting, Tokens
from refresher.domain.checkup.findings import Finding, fine, problem, skipped, warning
from refresher.domain.pacing import REFUSED_SECONDS
from refresher.domain.spans import counted, span

#: A cover's expiry is a time of TikTok's, and due is what the database's clock says.
CLOCK_SECONDS: Final = 30.0


def keys(tokens: Tokens) -> Iterator[Finding]:
    looked_at = "the" if tokens.all_seen else "the first"
    if tokens.unreadable:
        yield problem(
            f"no key opens the tokens of {tokens.unreadable:,} of {looked_at}"
            f" {counted(tokens.sealed, 'account')} with sealed ones, {tokens.example} among them",
            "add the key they were sealed with to REFRESHER_TOKEN_KEYS, or store new tokens",
        )
    elif not tokens.has_keys:
        yield warning(
            "REFRESHER_TOKEN_KEYS is not set: tokens are stored in plain text",
            "see docs/security.md, Keys",
        )
    else:
        yield fine(
            f"the keys open the tokens of {looked_at} {counted(tokens.sealed, 'account')} with any"
        )


def credentials(app: App) -> Iterator[Finding]:
    names = "REFRESHER_TIKTOK_CLIENT_KEY and REFRESHER_TIKTOK_CLIENT_SECRET"
    ago = app.refused_seconds_ago
    if ago is not None and ago < REFUSED_SECONDS:
        yield problem(
            f"TikTok refused the app credentials {span(ago)} ago",
            f"correct {names} on all replicas and restart them",
        )
    elif app.needed and not app.given:
        yield warning(
            f"{names} are not set: access tokens are not renewed",
            "set both, or REFRESHER_TOKEN_MANAGEMENT=external if another program renews them",
        )
    elif app.given:
        yield fine("the app credentials are set, and were not refused lately")
    else:
        yield fine("another program renews the tokens")


def reachable(greeting: Greeting) -> Iterator[Finding]:
    check = "check the network, its proxies and REFRESHER_TIKTOK_BASE_URL"
    if greeting.error is not None:
        yield problem(f"TikTok does not answer: {greeting.error}", check)
    elif greeting.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        yield warning(f"TikTok answers with {greeting.status}", "wait: the daemon tries again")
    elif not greeting.code:
        yield problem(
            f"what answers with {greeting.status} does not speak as TikTok's API does", check
        )
    else:
        yield fine(f"TikTok answers ({greeting.status} {greeting.code}, as it should)")


def clock(greeting: Greeting) -> Iterator[Finding]:
    ahead = greeting.ahead_seconds
    if ahead is None:
        yield skipped("no time of TikTok's to compare")
    elif abs(ahead) > CLOCK_SECONDS:
        side = "behind" if ahead > 0 else "ahead of"
        yield warning(
            f"the database's clock is {span(abs(ahead))} {side} TikTok's",
            "set the database server's clock by NTP: it decides which covers are due",
        )
    else:
        yield fine(f"the database's clock and TikTok's are {span(abs(ahead))} apart")
