"""What TikTok gave the app."""

from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

FINGERPRINT_DIGITS: Final = 16


@dataclass(frozen=True, slots=True)
class AppCredentials:
    """Client key and client secret."""

    key: str = field(repr=False)
    secret: str = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """A text that differs for other credentials and reveals nothing of these."""
        both = f"{self.key}\0{self.secret}".encode()
        return sha256(both).hexdigest()[:FINGERPRINT_DIGITS]
