"""Lets consoles find this daemon: by a file for those on the same machine, by mDNS on the network.

What is announced is a hint that anybody could forge; it decides no trust.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from pi_daemon.paths import make_private, runtime_dir
from pi_daemon.protocol.errors import UNREADABLE
from pi_daemon.protocol.messages import DeviceState
from pi_daemon.protocol.text import clean

if TYPE_CHECKING:
    from zeroconf import ServiceInfo

log = logging.getLogger(__name__)

SERVICE: Final = "_fedconsole._tcp.local."
STATE_UPDATE_S: Final = 5.0
"""The announced state changes at most this often: each change is a multicast to everybody."""
ADDRESS_CHECK_S: Final = 5.0
"""A lease of a router may end, or the Wi-Fi come up after the daemon."""


class RegisteredDaemon(msgspec.Struct, frozen=True):
    """A daemon that runs on this machine, for this user."""

    device_id: str
    worker_name: str
    address: str
    port: Annotated[int, msgspec.Meta(ge=1, le=2**16 - 1)]
    pid: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
    is_initialised: bool = False
    """It speaks TLS, to consoles that it was paired with."""


def registered_daemons() -> list[RegisteredDaemon]:
    """The daemons that run now, by worker name; files of dead ones are removed.

    Two have one device id where a state folder was copied.
    """
    found = [daemon for _, daemon in _entries() if daemon is not None]
    return sorted(found, key=lambda daemon: (daemon.worker_name, daemon.device_id, daemon.port))


def damaged_entries() -> list[Path]:
    """Files of the registry from which nobody can tell a daemon."""
    return sorted(path for path, daemon in _entries() if daemon is None)


def _entries() -> Iterator[tuple[Path, RegisteredDaemon | None]]:
    """None: the file is damaged."""
    for path in registry_dir().glob("*.json"):
        try:
            daemon = _read(path)
        except FileNotFoundError:
            continue  # it has ended this moment
        except (OSError, ValueError, *UNREADABLE):
            yield path, None
            continue
        if _is_running(daemon.pid):
            yield path, daemon
        else:
            path.unlink(missing_ok=True)


def _read(path: Path) -> RegisteredDaemon:
    """Raises OSError: it cannot be read; ValueError and UNREADABLE: it is damaged."""
    if path.exists() and not path.is_file():
        raise OSError(f"{path.name} is no regular file")
    daemon = msgspec.json.decode(path.read_bytes(), type=RegisteredDaemon)
    ipaddress.ip_address(daemon.address)
    return daemon


def registry_dir() -> Path:
    return make_private(runtime_dir() / "daemons")


@contextlib.contextmanager
def registered(daemon: RegisteredDaemon) -> Iterator[None]:
    """Leave word of this daemon for as long as it runs."""
    for entry, other in _entries():
        if other is None or other.device_id != daemon.device_id:
            continue
        if (other.address, other.port) != (daemon.address, daemon.port) and _listens(other):
            log.warning(
                "%s at %s:%d has this daemon's identity, as after copying an SD card: stop one of "
                "them, delete its state folder, and start it again",
                clean(other.worker_name, 64),
                other.address,
                other.port,
            )
        else:
            # Left by a power cut; its process id is somebody else's now.
            entry.unlink(missing_ok=True)
    path = registry_dir() / f"{daemon.device_id}-{daemon.pid}.json"
    temporary = path.with_suffix(f".{daemon.pid}")
    temporary.write_bytes(msgspec.json.encode(daemon))
    temporary.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _listens(daemon: RegisteredDaemon) -> bool:
    try:
        socket.create_connection((daemon.address, daemon.port), timeout=1.0).close()
    except OSError:
        return False
    return True


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


class Announcement:
    """This daemon on mDNS. Trouble with it is logged and never stops the daemon."""

    def __init__(self, daemon: RegisteredDaemon) -> None:
        self._device_id = daemon.device_id
        self._name = clean(daemon.worker_name, 64)
        self._address = daemon.address
        self._port = daemon.port
        self._is_initialised = daemon.is_initialised
        self._state = asyncio.Event()
        self._current = "idle"

    def show_state(self, state: DeviceState) -> None:
        """Announce what the device does: idle, training (whatever belongs to it) or paused."""
        announced = state if state in {DeviceState.IDLE, DeviceState.PAUSED} else "training"
        if announced != self._current:
            self._current = announced
            self._state.set()

    async def run(self) -> None:
        """Announce until cancelled, then say goodbye; anew whenever this machine's addresses change."""
        while True:
            addresses = _addresses(self._address)
            try:
                await self._announce(addresses)
            except Exception as error:  # whatever the network makes zeroconf raise
                log.warning("mDNS announcement failed (%s): consoles need this address", error)
                while not self._has_moved(addresses):  # noqa: ASYNC110
                    await asyncio.sleep(ADDRESS_CHECK_S)

    async def _announce(self, addresses: list[str]) -> None:
        """Until the machine has other addresses. Raises OSError: it has no multicast; and what zeroconf does."""
        # Half a second and 15 MB, when the daemon listens already.
        from zeroconf.asyncio import AsyncZeroconf

        # It warns with a traceback of each packet that an address which is gone does not send.
        logging.getLogger("zeroconf").setLevel(logging.ERROR)
        is_loopback = ipaddress.ip_address(self._address).is_loopback
        # Its sockets are those of the addresses that there are now.
        zeroconf = AsyncZeroconf(interfaces=[self._address]) if is_loopback else AsyncZeroconf()
        try:
            info = self._info(addresses)
            await (await zeroconf.async_register_service(info, allow_name_change=True))
            try:
                while not self._has_moved(addresses):
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(ADDRESS_CHECK_S):
                            await self._state.wait()
                    if self._state.is_set():
                        self._state.clear()
                        await (await zeroconf.async_update_service(self._info(addresses)))
                        await asyncio.sleep(STATE_UPDATE_S)
            finally:
                # The second await is for the goodbye, which else is never sent.
                await (await zeroconf.async_unregister_service(self._info(addresses)))
        finally:
            await zeroconf.async_close()

    def _has_moved(self, addresses: list[str]) -> bool:
        return _addresses(self._address) != addresses

    def _info(self, addresses: list[str]) -> ServiceInfo:
        from zeroconf import ServiceInfo

        name = self._name.replace(".", "-")[:40]
        return ServiceInfo(
            SERVICE,
            f"{name}-{self._device_id[:4]}.{SERVICE}",
            port=self._port,
            addresses=[ipaddress.ip_address(address).packed for address in addresses],
            server=f"fedconsole-{self._device_id[:16].lower()}.local.",
            properties={
                "v": "1",
                "id": self._device_id[:16],
                "st": self._current,
                "pair": str(int(self._is_initialised)),
                "nm": self._name[:60],
            },
        )


def reachable_address(listening: str) -> str:
    """Where others find a daemon that listens on this address: of all, the one with the way out."""
    address = ipaddress.ip_address(listening)
    if not address.is_unspecified:
        return listening
    family, anywhere = (
        (socket.AF_INET, "192.0.2.1") if address.version == 4 else (socket.AF_INET6, "2001:db8::1")
    )
    # No packet is sent: connecting a datagram socket only chooses the way.
    with socket.socket(family, socket.SOCK_DGRAM) as chooser, contextlib.suppress(OSError):
        chooser.connect((anywhere, 9))
        return str(chooser.getsockname()[0])
    return next(iter(_addresses(listening)), "127.0.0.1" if address.version == 4 else "::1")


def _addresses(address: str) -> list[str]:
    """What to announce for the address that the daemon listens on."""
    if not ipaddress.ip_address(address).is_unspecified:
        return [address]
    import psutil

    return [
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family is socket.AF_INET and not entry.address.startswith("127.")
    ]
