"""A device that may be there: a name, an address, and who says so."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from typing import Final

from fedconsole.errors import UsageError
from pi_daemon.protocol.limits import PORT

ONE_IDENTITY: Final = (
    "the devices at {why} have one identity, as after copying an SD card: stop pi-daemon on one of them, "
    "delete its state folder, and start it again"
)


class Source(StrEnum):
    """Who named a device, the most trusted address first."""

    LOCAL = "this machine"
    MDNS = "mDNS"
    CONFIG = "configuration"
    KNOWN = "paired"


@dataclass(frozen=True, slots=True)
class Device:
    name: str
    """A label, as the device or the configuration gives it; cleaned."""
    address: str
    """HOST:PORT as `parse_address` writes it."""
    source: Source
    device_id: str | None = None
    """None: only an address is known."""
    others: tuple[str, ...] = ()
    """Further addresses at which it may be."""
    is_paired: bool = False
    """With this console."""

    @property
    def places(self) -> tuple[str, ...]:
        return self.address, *self.others


def _is_ipv6(host: str) -> bool:
    try:
        return ip_address(host).version == 6
    except ValueError:
        return False


def is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_same_place(one: str, other: str) -> bool:
    """Whether two addresses of `parse_address` name one place, however they are spelled."""
    return _canonical(one) == _canonical(other)


def _canonical(address: str) -> tuple[str, str]:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        return str(ip_address("127.0.0.1" if host == "localhost" else host)), port
    except ValueError:
        return host, port


def reachable(listened: str) -> str:
    """An address of this machine for one that a daemon listens on: all interfaces has none."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listened, listened)


def parse_address(text: str) -> str:
    """HOST, HOST:PORT, or an IPv6 address with or without brackets -> what follows `ws://`.

    Raises:
        UsageError: no host, or the port is none.
    """
    host, port = text.strip(), str(PORT)
    if host.startswith("["):
        host, _, rest = host[1:].partition("]")
        port = rest.removeprefix(":") or port
    elif host.count(":") == 1:
        host, port = host.split(":")
    if ":" in host and not _is_ipv6(host):
        host = ""
    is_port = port.isascii() and port.isdigit() and 1 <= int(port) <= 65_535
    if (
        not host
        or not is_port
        or any(c in "/@?#[]'\"" or not c.isprintable() or c.isspace() for c in host)
    ):
        raise UsageError(f"{text!r} is no address; expected HOST:PORT, such as 192.168.0.52:{PORT}")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
