"""`fedconsole doctor`: what on this machine could stand in the way, and how to mend it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fedconsole import paths
from fedconsole.cli.output import Output, OutputOption, print_rows
from fedconsole.errors import DamagedDeviceError, FedconsoleError, StorageError
from pi_daemon.protocol.limits import PORT

_MIN_PYTHON = (3, 11)
_MIN_DISK_BYTES = 1 << 30
_YEARS = range(2026, 2100)
"""A machine without a battery-backed clock begins in 1970, or when its system was built."""
_TMUX_S = 2.0
_MDNS_GROUP = "224.0.0.251"


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    is_good: bool
    found: str
    fix: str = ""
    """What to do when it is not good."""


def doctor(output: OutputOption = Output.TABLE) -> int:
    """Check terminal, versions, network, disk and folders; exit 1 if something must be mended."""
    checks = list(_checks())
    rows = [
        {
            "check": check.name,
            "result": "good" if check.is_good else "bad",
            "found": check.found,
            "fix": "" if check.is_good else check.fix,
        }
        for check in checks
    ]
    print_rows(rows, ("check", "result", "found", "fix"), output)
    return 0 if all(check.is_good for check in checks) else 1


def _checks() -> Iterator[Check]:
    yield _python()
    yield _torch()
    yield _terminal()
    yield _encoding()
    yield _colours()
    yield _tmux()
    yield _clock(datetime.now(UTC))
    yield _multicast()
    yield _port()
    yield _disk()
    yield _own_key()
    yield _known_devices()
    yield _folder("state folder", paths.state_dir())
    yield _runtime()


def _python() -> Check:
    import platform

    wanted = ".".join(map(str, _MIN_PYTHON))
    return Check(
        "python",
        sys.version_info >= _MIN_PYTHON,
        platform.python_version(),
        f"install Python {wanted} or newer",
    )


def _torch() -> Check:
    from importlib.metadata import PackageNotFoundError, version

    # From the metadata: the import takes more than a second.
    try:
        return Check("torch", True, version("torch"))
    except PackageNotFoundError:
        return Check("torch", False, "not installed", "pip install torch (64-bit systems only)")


def _terminal() -> Check:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return Check("terminal", True, "none; output is plain")
    kind = os.environ.get("TERM", "")
    columns, lines = shutil.get_terminal_size()
    return Check(
        "terminal",
        kind not in ("", "dumb") and columns >= 80 and lines >= 24,
        f"{kind or 'no TERM'}, {columns}x{lines}",
        "use a terminal of at least 80x24; set TERM, such as xterm-256color",
    )


def _encoding() -> Check:
    encoding = sys.stdout.encoding.lower()
    return Check("encoding", encoding == "utf-8", encoding, "export LC_ALL=C.UTF-8")


def _colours() -> Check:
    from rich.console import Console

    if "NO_COLOR" in os.environ:
        return Check("colours", True, "none: NO_COLOR is set")
    if not sys.stderr.isatty():
        return Check("colours", True, "none; no terminal")
    system = Console(stderr=True).color_system
    return Check(
        "colours",
        system in ("256", "truecolor"),
        system or "none",
        "set TERM=xterm-256color, and COLORTERM=truecolor where the terminal has 24 bits",
    )


def _tmux() -> Check:
    """Whether a copy reaches the terminal's clipboard (OSC 52) through tmux."""
    import subprocess

    if "TMUX" not in os.environ:
        return Check("tmux", True, "not in tmux")
    # Not `external`, the default: then tmux keeps what programs copy to itself.
    asking = ["tmux", "show-options", "-sv", "set-clipboard"]
    try:
        answer = subprocess.run(asking, capture_output=True, text=True, timeout=_TMUX_S)
        value = answer.stdout.strip() or "not told"
    except (OSError, subprocess.TimeoutExpired):
        value = "not told"
    return Check(
        "tmux",
        value == "on",
        f"set-clipboard is {value}",
        "tmux set -g set-clipboard on, and the same in ~/.tmux.conf: else nothing that is copied leaves tmux",
    )


def _clock(now: datetime) -> Check:
    return Check(
        "clock",
        now.year in _YEARS,
        f"{now:%Y-%m-%d %H:%M} UTC",
        "set the clock: sudo timedatectl set-ntp true",
    )


def _multicast() -> Check:
    import socket

    membership = socket.inet_aton(_MDNS_GROUP) + socket.inet_aton("0.0.0.0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        except OSError as error:
            fix = "name devices with --worker or [[devices]]; mDNS finds none in this network"
            return Check("multicast", False, error.strerror or str(error), fix)
    return Check("multicast", True, f"joined {_MDNS_GROUP}")


def _port() -> Check:
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError:
            # A daemon on this machine is a usual reason, and no fault.
            return Check("port", True, f"{PORT} is in use here; a daemon needs --port 0 or another")
    return Check("port", True, f"{PORT} is free")


def _disk() -> Check:
    folder = paths.runs_dir()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    return Check(
        "disk",
        free >= _MIN_DISK_BYTES,
        f"{free / 2**30:.1f} GiB free for runs in {folder}",
        "remove old runs: fedconsole runs rm, or set XDG_STATE_HOME to a larger disk",
    )


def _own_key() -> Check:
    name = "own key"
    if not (paths.identity_dir() / "key.pem").exists():
        return Check(name, True, "none yet; fedconsole pair makes it")
    from fedconsole.trust.own_keys import own_keys

    try:
        return Check(name, True, f"{own_keys().id[:7]} in {paths.identity_dir()}")
    except FedconsoleError as error:
        return Check(name, False, "cannot be used", str(error))


def _known_devices() -> Check:
    from fedconsole.trust import known_devices

    name = "paired devices"
    try:
        known = known_devices.load()
    except FedconsoleError as error:
        return Check(name, False, "cannot be read", str(error))
    whole, damaged = [], list(known.damaged.values())
    for device in known.all:
        try:
            known_devices.certificate_of(device)
            whole.append(device.name)
        except DamagedDeviceError as error:
            damaged.append(error)
    fix = "; ".join(map(str, damaged))
    found = ", ".join([*whole, *([f"{len(damaged)} damaged"] if damaged else [])])
    return Check(name, not damaged, found or "none yet", fix)


def _folder(name: str, folder: Path) -> Check:
    existing = folder
    while not existing.exists():
        existing = existing.parent
    is_writable = os.access(existing, os.W_OK | os.X_OK)
    return Check(name, is_writable, str(folder), f"make {existing} writable for you")


def _runtime() -> Check:
    try:
        folder = paths.runtime_dir()
    except StorageError as error:
        return Check("runtime folder", False, str(error), "set XDG_RUNTIME_DIR to a private folder")
    return _folder("runtime folder", folder)
