"""The query endpoint: the videos of one user, by ID."""

from collections.abc import Iterable
from typing import assert_never

from aiohttp import hdrs, web

from refresher.emulator.answers import (
    NO_HEADERS,
    Answer,
    account_error,
    envelope,
    gateway_error,
    page,
    query_error,
    reply,
)
from refresher.emulator.covers import CoverSigner
from refresher.emulator.faults import Chances, drawn
from refresher.emulator.grants import Account, Grant, SlidingWindow
from refresher.emulator.options import DAY_SECONDS, HOUR_SECONDS
from refresher.emulator.requests import Query
from refresher.emulator.videos import FACTS, Video, video_of
from refresher.emulator.world import World
from refresher.tiktok.wire import QUERY_PATH


class QueryEndpoint:
    """Answers queries, with the faults that were ordered."""

    def __init__(self, world: World, chances: Chances, covers: CoverSigner) -> None:
        self._world = world
        self._chances = chances
        self._covers = covers
        self._app_window = SlidingWindow()

    def answer(
        self, request: web.Request, query: Query, grant: Grant | None, log_id: str, now: float
    ) -> Answer:
        """The videos asked for, or what is wrong with the request."""
        if query.method != hdrs.METH_POST or request.path != QUERY_PATH:
            return query_error("unsupported_path", log_id)
        if grant is None or grant.expires_at <= now:
            return query_error("access_token_invalid", log_id)
        if grant.account.refusal:
            return account_error(grant.account.refusal, log_id)
        if refusal := self.refusal(query, grant, now):
            if refusal == "rate_limit_exceeded":
                return self._throttled(log_id)
            message = query.breach if refusal == "invalid_params" else None
            return query_error(refusal, log_id, message=message)
        base_url = self._world.options.public_url or f"{request.scheme}://{request.host}"
        videos = self.videos(base_url, query, grant.account, now)
        return self._disturbed(envelope(videos, log_id), log_id)

    def refusal(self, query: Query, grant: Grant, now: float) -> str | None:
        """The error code for a good token, if any.

        Not documented: that the scope is looked at before the rate limit and both before the
        parameters.
        """
        if "video.list" not in grant.account.scope.split(","):
            return "scope_not_authorized"
        if not self._admit(grant, now):
            return "rate_limit_exceeded"
        is_refused = query.breach or not self._world.refused.isdisjoint(query.video_ids)
        return "invalid_params" if is_refused else None

    def _admit(self, grant: Grant, now: float) -> bool:
        """Whether both windows have room for one more, which then counts in both.

        Not documented: that a refused request does not count, and that a new access token starts
        with an empty window.
        """
        limits = (
            (grant.window, self._world.options.rate_limit_per_token),
            (self._app_window, self._world.options.rate_limit_per_app),
        )
        if not all(window.has_room(now, limit) for window, limit in limits):
            return False
        for window, _ in limits:
            window.add(now)
        return True

    def videos(
        self, base_url: str, query: Query, account: Account, now: float
    ) -> list[dict[str, str | int]]:
        """The account's videos among those asked for; two or more never in that order."""
        expires_at = self.cover_expiry(now)
        return [
            {
                name: self._covers.url(base_url, video, expires_at)
                if name == "cover_image_url"
                else FACTS[name](video)
                for name in query.fields
            }
            for video in self._shuffled(self.present(query.video_ids, account))
        ]

    def present(self, video_ids: Iterable[str], account: Account) -> list[Video]:
        """The account's videos among these, without those that options leave out."""
        videos = (video_of(video_id) for video_id in video_ids if video_id in account.videos)
        return [
            video for video in videos if video.missing_rank >= self._world.options.missing_share
        ]

    def _shuffled(self, videos: list[Video]) -> list[Video]:
        shuffled = videos.copy()
        self._chances.other.shuffle(shuffled)
        return shuffled if shuffled != videos else videos[::-1]

    def cover_expiry(self, now: float) -> int:
        """When a cover dies that is given out now."""
        ttl = self._world.options.cover_ttl
        if ttl == "hourly":
            return int(now) // HOUR_SECONDS * HOUR_SECONDS + DAY_SECONDS
        return int(now) + ttl

    def _disturbed(self, body: bytes, log_id: str) -> Answer:
        """The good answer, or a fault. By then the request has counted in the windows."""
        fault = drawn(self._chances.faults, self._world.options.faults)
        match fault:
            case None:
                return Answer("ok", reply(body, log_id))
            case "throttled":
                return self._throttled(log_id)
            case "failed":
                return self._failure(log_id)
            case "timeout":
                return Answer("no_answer", "hang")
            case "malformed":
                garbled = self._chances.faults.choice((body[: len(body) // 2], page(502)))
                return Answer("malformed", reply(garbled, log_id))
            case _:
                assert_never(fault)

    def _throttled(self, log_id: str) -> Answer:
        seconds = self._world.options.retry_after_seconds
        headers = NO_HEADERS if seconds is None else {"Retry-After": str(seconds)}
        return query_error("rate_limit_exceeded", log_id, headers=headers)

    def _failure(self, log_id: str) -> Answer:
        if self._chances.faults.random() < 1 / 2:
            return query_error("internal_error", log_id)
        return gateway_error("internal_error", log_id, 502)
