"""The covers: one picture under signed URLs that expire."""

import base64
import hmac
import itertools
from typing import Final
from urllib.parse import quote

from refresher.emulator.videos import Video

# Every cover is this one: 3 by 4 pixels of grey.
COVER_JPEG: Final = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABALDA4MChAODQ4SERATGCgaGBYWGDEjJR0oOjM9PDkzODdASFxOQERXRTc4"
    "UG1RV19iZ2hnPk1xeXBkeFxlZ2P/wAALCAAEAAMBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAAA//EABQQAQAAAAAAAAAA"
    "AAAAAAAAAAD/2gAIAQEAAD8AN//Z"
)


_COVER_PATH: Final = "/tos-maliva-p-0068/{}~tplv-tiktokx-cropcenter-q:300:400:q72.jpeg"
# Real URLs vary in the order of their parameters, too.
_COVER_SIGNED: Final = "refresh_token={token}&x-expires={expires}&x-signature={signature}"
_COVER_QUERIES: Final = (
    f"dr=14782&{_COVER_SIGNED}&t=bacd0480&ps=933b5bde&idc=maliva&sc=cover&biz_tag=tt_video",
    f"dr=8596&{_COVER_SIGNED}&t=bacd0480&ps=933b5bde&idc=useast5&s=TIKTOK_FOR_DEVELOPER&sc=cover",
    "x-expires={expires}&x-signature={signature}&refresh_token={token}&idc=my2&t=5897f7ec&ps=d5b8",
)


class CoverSigner:
    """Makes cover URLs and tells its own from any other, byte for byte."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def url(self, base_url: str, video: Video, expires_at: int) -> str:
        path = _COVER_PATH.format(video.key)
        query = _COVER_QUERIES[video.number % len(_COVER_QUERIES)].format(
            token=video.key[-8:],
            expires=expires_at,
            signature=self._signature(path, str(expires_at)),
        )
        return f"{base_url}{path}?{query}"

    def serves(self, raw_target: str, now: float, early_seconds: float = 0) -> bool:
        """Whether this request target, exactly as sent, is signed and not yet expired.

        It dies `early_seconds` before it says so.

        Not documented: real URLs are known to break when `%2F` is re-encoded, hence the
        comparison without any decoding. Parameters other than these two are not looked at.
        """
        path, _, query = raw_target.partition("?")
        values = {key: value for key, _, value in (p.partition("=") for p in query.split("&"))}
        expires = values.get("x-expires", "")
        is_signed = values.get("x-signature") == self._signature(path, expires)
        return is_signed and now < int(expires) - early_seconds

    def _signature(self, path: str, expires: str) -> str:
        """Always contains a %2F, so that no URL survives re-encoding by luck."""
        signatures = (self._attempt(f"{path}\n{expires}\n{n}") for n in itertools.count())
        return quote(next(text for text in signatures if "/" in text), safe="")

    def _attempt(self, text: str) -> str:
        signed = text.encode(errors="surrogateescape")
        return base64.b64encode(hmac.digest(self._key, signed, "sha256")).decode()
