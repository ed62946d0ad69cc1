"""What an answer of the query endpoint means: covers, or an error.

Pure: no session, no clock.
"""

from collections.abc import Collection, Mapping

import msgspec

from refresher.tiktok.failures import OK, ErrorObject, failure, is_ok, malformed, read_error
from refresher.tiktok.fields import UNDECODABLE, anything, text


class _Video(msgspec.Struct, gc=False):
    id: str
    cover_image_url: str


class _Videos(msgspec.Struct):
    videos: list[_Video]


class _Answer(msgspec.Struct):
    data: _Videos
    error: ErrorObject


class _LooseVideos(msgspec.Struct):
    videos: list[msgspec.Raw] | None = None


class _LooseAnswer(msgspec.Struct):
    """Where there are no videos, the list or `data` may be null or left out."""

    error: ErrorObject
    data: _LooseVideos | None = None


class _LooseVideo(msgspec.Struct, gc=False):
    """Fields are decoded one by one: an odd one spoils no other, a number keeps all its digits."""

    id: msgspec.Raw = msgspec.Raw()
    cover_image_url: msgspec.Raw = msgspec.Raw()


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_loose_answer = msgspec.json.Decoder(_LooseAnswer).decode
_decode_loose_video = msgspec.json.Decoder(_LooseVideo).decode


def read_answer(
    status: int, headers: Mapping[str, str], body: bytes, asked: Collection[str], now: float
) -> dict[str, object]:
    """The covers of an answer: video ID to `cover_image_url`, whatever that holds.

    The API silently leaves out videos: IDs of `asked` that are not here, or all of them where the
    list is null or left out. Raises `UpstreamError` for anything but an `ok`. `now` is Unix time,
    for answers that do not tell theirs.
    """
    # `cursor` and `has_more` mean nothing for this endpoint. Status and `error.code` are judged
    # together: each alone has been seen to mislead.
    if status // 100 != 2:  # noqa: PLR2004 - any 2xx leaves it to the body
        raise failure(status, headers, read_error(body), now)
    try:
        answer = _decode_answer(body)
    except msgspec.ValidationError:
        covers = _read_loose_covers(status, headers, body, now)
    except UNDECODABLE:
        raise malformed(status, headers) from None
    else:
        if answer.error.code != OK and not is_ok(answer.error.code):
            raise failure(status, headers, read_error(body), now)
        covers = {video.id: video.cover_image_url for video in answer.data.videos}
    if covers and covers.keys().isdisjoint(asked):
        # Otherwise all that were asked for would count as missing, and be gone in the end.
        raise malformed(status, headers, detail="none of the videos was asked for")
    return covers


def _read_loose_covers(
    status: int, headers: Mapping[str, str], body: bytes, now: float
) -> dict[str, object]:
    """The covers of an answer in which some video has another shape: the others are kept."""
    try:
        answer = _decode_loose_answer(body)
    except UNDECODABLE:
        error = read_error(body)
        if error is None or is_ok(error.code):
            raise malformed(status, headers) from None
        raise failure(status, headers, error, now) from None
    if not is_ok(answer.error.code):
        raise failure(status, headers, read_error(body), now)
    videos = (answer.data and answer.data.videos) or ()
    covers = dict(filter(None, map(_read_loose_video, videos)))
    if videos and not covers:
        raise malformed(status, headers, detail="no video has a usable id")
    return covers


def _read_loose_video(raw: msgspec.Raw) -> tuple[str, object] | None:
    """ID and cover; None without an ID."""
    try:
        video = _decode_loose_video(raw)
    except UNDECODABLE:
        return None
    digits = bytes(video.id)
    video_id = digits.decode() if digits.isdigit() else text(video.id)
    return (video_id, anything(video.cover_image_url)) if video_id else None
