"""What is announced to applications that listen: which covers have changed."""

import json
from collections.abc import Iterator, Sequence
from typing import Final

from refresher.domain.model import OpenId, VideoId

#: PostgreSQL takes payloads of fewer than 8000 bytes.
MOST_BYTES: Final = 7_999


def payloads(open_id: OpenId, video_ids: Sequence[VideoId]) -> Iterator[str]:
    """JSON objects with `open_id` and `video_ids`, each at most `MOST_BYTES` long in UTF-8.

    What does not even fit alone, beside a very long open_id, is left out.
    """
    room = MOST_BYTES - _size(_payload(open_id, []))
    part: list[VideoId] = []
    used = 0
    for video_id in video_ids:
        size = _size(json.dumps(video_id, ensure_ascii=False)) + 1  # its comma
        if size > room:
            continue
        if used + size > room:
            yield _payload(open_id, part)
            part, used = [], 0
        part.append(video_id)
        used += size
    if part:
        yield _payload(open_id, part)


def _payload(open_id: OpenId, video_ids: Sequence[VideoId]) -> str:
    told = {"open_id": open_id, "video_ids": video_ids}
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"))


def _size(text: str) -> int:
    return len(text.encode())
