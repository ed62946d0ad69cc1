"""Which addresses belong to the public internet, and to nobody's own network.

Not `ipaddress.is_global`: it counts multicast as global, and what else it counts changes with
Python's version. Source: IANA's registries of special-purpose IPv4 and IPv6 addresses.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

LOCAL_IPV4: Final = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",
        "100.64.0.0/10",  # behind a carrier's NAT
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local; where clouds serve credentials
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",  # relays to IPv6
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",  # multicast, reserved, broadcast
    )
)
#: Nothing outside this is assigned for the internet.
GLOBAL_IPV6: Final = IPv6Network("2000::/3")
#: Of it, what is special. 6to4 and Teredo hold an IPv4 address, which nobody checks.
LOCAL_IPV6: Final = tuple(
    IPv6Network(network)
    for network in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)
#: Where a network has IPv6 only, IPv4 addresses come so: the last 32 bits are the real one.
TRANSLATED: Final = IPv6Network("64:ff9b::/96")


def is_public(text: str) -> bool:
    """Whether an IP address, as a socket names it, is one of the public internet's.

    What is no address is not.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        return _is_public_ipv6(address)
    return _is_public_ipv4(address)


def _is_public_ipv6(address: IPv6Address) -> bool:
    if address.scope_id is not None:
        return False
    if mapped := address.ipv4_mapped:
        return _is_public_ipv4(mapped)
    if address in TRANSLATED:
        return _is_public_ipv4(IPv4Address(int(address) & 0xFFFF_FFFF))
    return address in GLOBAL_IPV6 and not any(address in network for network in LOCAL_IPV6)


def _is_public_ipv4(address: IPv4Address) -> bool:
    return not any(address in network for network in LOCAL_IPV4)
