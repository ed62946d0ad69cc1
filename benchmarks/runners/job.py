"""What the runners beside the refresher have in common."""

import argparse
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

QUERY: Final = "/v2/video/query/?fields=id,cover_image_url"
CHUNK: Final = 20
#: As many as the refresher has by default.
IN_FLIGHT: Final = 64
EXPIRY: Final = re.compile(r"[?&]x-expires=(\d+)")
#: What an update sets beside the cover.
# With these two a write is the daemon's own kind: no trigger takes it for an application's.
ALSO_SET: Final = "refreshed_at = now(), due_at = now()"

SQL_TOKENS: Final = "SELECT open_id, access_token FROM refresher.accounts"
SQL_VIDEOS: Final = "SELECT open_id, video_id FROM refresher.videos ORDER BY open_id, video_id"
#: One statement a chunk, for asyncpg.
SQL_SAVE_CHUNK: Final = f"""
UPDATE refresher.videos AS v
SET cover_image_url = w.cover_image_url, cover_expires_at = w.cover_expires_at, {ALSO_SET}
FROM unnest($2::text[], $3::text[], $4::timestamptz[])
     AS w (video_id, cover_image_url, cover_expires_at)
WHERE v.open_id = $1 AND v.video_id = w.video_id
"""


def arguments(description: str | None) -> argparse.Namespace:
    """`database_url` and `base_url`; `enqueue` for those who keep a queue."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("database_url")
    parser.add_argument("base_url", nargs="?", help="of the endpoint")
    parser.add_argument("--enqueue", action="store_true", help="only make the jobs, before the job")
    return parser.parse_args()


def expiry_of(url: str) -> datetime:
    found = EXPIRY.search(url)
    if found is None:
        raise ValueError(f"no expiry in {url}")
    return datetime.fromtimestamp(int(found[1]), UTC)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}


def tokens_of(rows: Iterable[Any]) -> dict[str, str]:
    """Of rows (open_id, access_token)."""
    return dict(rows)


def chunks_of(videos: list[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Videos (open_id, video_id) in order, as chunks of one account."""
    chunks: list[tuple[str, list[str]]] = []
    for open_id, video_id in videos:
        if not chunks or chunks[-1][0] != open_id or len(chunks[-1][1]) == CHUNK:
            chunks.append((open_id, []))
        chunks[-1][1].append(video_id)
    return chunks
