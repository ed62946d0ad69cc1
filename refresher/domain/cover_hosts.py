"""The hosts that covers come from: which may be asked, and which kill covers early."""

import re
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import urlsplit

from refresher.domain.addresses import is_public

#: One that the domain name system can hold, in lower case, with a top level that is no number.
HOST_NAME: Final = re.compile(
    r"(?=.{4,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])"
)
#: No port, no user, no IP address: all programs find the same host in it.
COVER_URL: Final = re.compile(r"https://([a-z0-9.-]+)/")
#: What follows the first dot of a host may belong to everybody: co.uk does.
COUNTRY_LETTERS: Final = 2


def host_of(url: str) -> str:
    """What stands between the scheme and the path of an http URL: the host, and its port.

    Quick: it says nothing about whether that may be asked.
    """
    return url.split("/", 3)[2]


def suffix_of(host: str) -> str:
    """What hosts of the same owner end in: all behind the first dot, if it is long enough.

    p16-sign-va.tiktokcdn.com is under tiktokcdn.com. Under a country's domain, where the second
    word is often nobody's own (co.uk), three words must be left. Else it is the host itself.
    """
    rest = host.partition(".")[2]
    words = 3 if len(rest.rpartition(".")[2]) == COUNTRY_LETTERS else 2
    return rest if rest.count(".") + 1 >= words else host


def local_origin(base_url: str) -> str | None:
    """The origin of a TikTok that the operator runs: of the setting, if it is one's own; else None.

    It is one's own if it is asked without TLS, by a name without a dot, or by an address that is
    not public.
    """
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    if parts.scheme == "https" and (HOST_NAME.fullmatch(host) or is_public(host)):
        return None
    return f"{parts.scheme}://{parts.netloc}"


class CoverHosts:
    """The hosts of covers, as one replica knows them. Others hear of them through the database."""

    def __init__(self, local: str | None = None) -> None:
        """`local`: the origin of `local_origin`."""
        self.local = local
        #: By how many seconds the lead of a host has grown. Mostly empty.
        self.grown: Mapping[str, float] = {}
        self._named: set[str] = set()
        self._known: frozenset[str] = frozenset()
        self._suffixes: frozenset[str] = frozenset()

    def note(self, urls: Iterable[str]) -> None:
        """Covers that TikTok's own answers named."""
        self._named.update(map(host_of, urls))

    def news(self) -> list[str]:
        """Hosts that answers have named since, and that are not known yet."""
        named, self._named = self._named - self._known, set()
        return sorted(host for host in named if HOST_NAME.fullmatch(host))

    def hear(self, grown: Mapping[str, float]) -> None:
        """All hosts that are known to the fleet, and by how much the lead of each has grown."""
        self.grown = {host: seconds for host, seconds in grown.items() if seconds}
        self._known = frozenset(grown)
        self._suffixes = frozenset(map(suffix_of, grown))

    def of(self, url: str) -> str | None:
        """The host of a cover that may be asked for; None if it may not."""
        if self.is_local(url):
            return host_of(url)
        found = COVER_URL.match(url)
        if not found or not HOST_NAME.fullmatch(found[1]):
            return None
        host = found[1]
        return host if host in self._known or self._is_under_suffix(host) else None

    def is_local(self, url: str) -> bool:
        """Whether it is on the operator's own TikTok."""
        return self.local is not None and url.startswith(f"{self.local}/")

    def prefix(self, host: str) -> str:
        """How the URLs of a host begin."""
        is_local = self.local is not None and host_of(f"{self.local}/") == host
        return f"{self.local}/" if is_local else f"https://{host}/"

    def _is_under_suffix(self, host: str) -> bool:
        return any(host.endswith(f".{suffix}") for suffix in self._suffixes)
