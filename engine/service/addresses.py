"""Which addresses are this machine's own."""

from __future__ import annotations

import ipaddress

_LOCAL = {"localhost", "127.0.0.1", "[::1]", "::1", "testserver"}


def is_loopback(host: str) -> bool:
    """Whether an address cannot be reached from other machines."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def local_names(host: str) -> frozenset[str]:
    """Return the names that a service on a loopback address may be called by."""
    return frozenset({*_LOCAL, host.lower(), f"[{host.lower()}]"})
