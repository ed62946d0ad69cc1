"""A plain script as people write it first: one chunk after another, an UPDATE a video."""

import psycopg
import requests

from benchmarks.runners.job import (
    ALSO_SET,
    QUERY,
    SQL_TOKENS,
    SQL_VIDEOS,
    arguments,
    bearer,
    chunks_of,
    expiry_of,
    tokens_of,
)

SQL_SAVE = f"""
UPDATE refresher.videos
SET cover_image_url = %s, cover_expires_at = %s, {ALSO_SET}
WHERE open_id = %s AND video_id = %s
"""


def main() -> None:
    options = arguments(__doc__)
    with psycopg.connect(options.database_url) as connection, requests.Session() as session:
        tokens = tokens_of(connection.execute(SQL_TOKENS).fetchall())
        videos = connection.execute(SQL_VIDEOS).fetchall()
        for open_id, video_ids in chunks_of(videos):
            answer = session.post(
                options.base_url + QUERY,
                json={"filters": {"video_ids": video_ids}},
                headers=bearer(tokens[open_id]),
                timeout=10,
            )
            answer.raise_for_status()
            for video in answer.json()["data"]["videos"]:
                url = video["cover_image_url"]
                connection.execute(SQL_SAVE, (url, expiry_of(url), open_id, video["id"]))
            connection.commit()


if __name__ == "__main__":
    main()
