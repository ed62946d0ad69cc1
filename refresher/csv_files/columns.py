"""The columns of the files, and those that must be there."""

from typing import Final

ACCOUNT_COLUMNS: Final = (
    "open_id",
    "access_token",
    "access_token_expires_at",
    "refresh_token",
    "refresh_token_expires_at",
    "scope",
)
ACCOUNT_NEEDS: Final = ("open_id", "access_token")
VIDEO_COLUMNS: Final = ("open_id", "video_id", "cover_image_url")
VIDEO_NEEDS: Final = ("open_id", "video_id")
