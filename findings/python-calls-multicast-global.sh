#!/usr/bin/env bash
# Python's ipaddress calls addresses global that are not the public internet's.
#
# Library: ipaddress of Python 3.11.7, 3.12.1 and 3.13.0.
# Documentation: is_global is True if the address is defined as globally reachable by IANA's registries of special-purpose
#   addresses. One would think that what is global is a host on the internet, and that a check of it keeps a program
#   out of its own network.
# Surprise: multicast is global, as it is in other registries. So is an IPv4 address translated into IPv6 (64:ff9b::/96), a
#   loopback or private one too, and a site-local address (fec0::/10).
# The refresher: fetches covers from hosts that a table names, so it looks at the address before it connects. It has a list
#   of its own: what is not in it is not connected to.
set -euo pipefail
python3 - <<'PY'
import platform
import sys
from ipaddress import ip_address

ADDRESSES = {
    "224.0.0.1": "multicast: all hosts of this network",
    "239.255.255.250": "multicast: what answers to UPnP",
    "ff02::1": "multicast: all nodes of this link",
    "64:ff9b::7f00:1": "127.0.0.1, translated",
    "64:ff9b::a00:1": "10.0.0.1, translated",
    "fec0::1": "site-local",
}
print(f"versions: Python {platform.python_version()}")
print("expected: is_global is False for all")
FOUND = dict.fromkeys(ADDRESSES, True)
seen = {address: ip_address(address).is_global for address in ADDRESSES}
for address, what in ADDRESSES.items():
    print(f"seen:     {seen[address]} for {address}, {what}")
sys.exit(seen != FOUND and 'changed: see "seen"')
PY
echo 'as found'
