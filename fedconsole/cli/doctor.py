"""`fedconsole doctor`: what on this machine could stand in the way, and how to mend it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fedconsole import paths
from fedconsole.cli.output import Output, OutputOption, print_rows
from fedconsole.errors import StorageError
from pi_daemon.protocol.limits import PORT

_MIN_PYTHON = (3, 11)
_MIN_DISK_BYTES = 1 << 30
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
    yield _multicast()
    yield _port()
    yield _disk()
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
