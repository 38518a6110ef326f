"""The systemd unit under which the daemon runs as a guest on somebody's device. Pure text.

Not `DynamicUser`: an owner gives a user that stays the right to read data, and gives commands as that
user; and systemd would put a link where the state directory is, which the daemon does not trust.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

USER: Final = "pi-daemon"
STATE_DIR: Final = "/var/lib/pi-daemon"
SYSUSERS: Final = f'u {USER} - "trains on this device\'s data" {STATE_DIR}\n'
"""For systemd-sysusers: a user and a group of that name, with no rights of their own."""

_HOMES: Final = ("/home", "/root", "/run/user")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the daemon is on a device, and what it needs there. All paths are absolute."""

    program: tuple[str, ...]
    """`pi-daemon`, or what runs it and its first arguments."""
    config: str
    state_dir: str
    read: tuple[str, ...]
    """Data of the owner's."""
    write: tuple[str, ...]
    """Where consoles may deal data into."""
    uses_gpu: bool = False
    has_firmware: bool = False
    """A Raspberry Pi's, which tells whether it throttles."""


def in_home(path: str) -> bool:
    return any(PurePosixPath(path).is_relative_to(home) for home in _HOMES)


def in_tmp(path: str) -> bool:
    return any(PurePosixPath(path).is_relative_to(tmp) for tmp in ("/tmp", "/var/tmp"))


def unit(place: Place) -> str:
    """The whole file. Raises ValueError: a path has a control character, such as a line end."""
    homely = any(map(in_home, (*place.read, *place.write)))
    lines = [
        "[Unit]",
        "Description=fedconsole worker: trains on this device's data",
        "Wants=network-online.target",
        "After=network-online.target",
        "",
        "[Service]",
        "Type=notify",
        f"User={USER}",
        f"Group={USER}",
        "# From its first start on it speaks to paired consoles only.",
        f"ExecStartPre={_command(*place.program, 'init', '--state-dir', place.state_dir)}",
        "ExecStart="
        + _command(*place.program, "--config", place.config, "--state-dir", place.state_dir),
        "Restart=on-failure",
        "RestartSec=2",
        "# A wrong option or setting does not mend itself.",
        "RestartPreventExitStatus=2 3",
        "# Large data is read and hashed before it serves.",
        "TimeoutStartSec=300",
        "WatchdogSec=30",
        "KillMode=mixed",
        "StateDirectory=pi-daemon",
        "# Members of the group may let consoles pair, and read nothing.",
        "StateDirectoryMode=0710",
        "UMask=0077",
        "",
        "# What it may use. When memory runs out the trainer goes, and the daemon starts another.",
        "MemoryMax=90%",
        "OOMPolicy=continue",
        "CPUWeight=50",
        "TasksMax=512",
        "",
        "# What it may see and do.",
        *(f"{key}={value}" for key, value in _HARDENING),
        f"ProtectHome={'tmpfs' if homely else 'yes'}",
        *_devices(place),
        *_paths(place.read, "ReadOnlyPaths", "BindReadOnlyPaths"),
        *_paths(place.write, "ReadWritePaths", "BindPaths"),
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "\n".join(lines) + "\n"


# Left out on purpose: MemoryDenyWriteExecute, under which torch cannot run a convolution or an LSTM
# (oneDNN makes machine code: "could not create a primitive"), and ProcSubset, which hides how much
# memory there is. tests/loopback/test_confined.py trains under the system calls that are left.
_HARDENING: Final = (
    ("NoNewPrivileges", "yes"),
    ("CapabilityBoundingSet", ""),
    ("AmbientCapabilities", ""),
    ("ProtectSystem", "strict"),
    ("PrivateTmp", "yes"),
    ("PrivateMounts", "yes"),
    ("PrivateUsers", "yes"),
    ("ProtectProc", "invisible"),
    ("ProtectClock", "yes"),
    ("ProtectHostname", "yes"),
    ("ProtectKernelLogs", "yes"),
    ("ProtectKernelModules", "yes"),
    ("ProtectKernelTunables", "yes"),
    ("ProtectControlGroups", "yes"),
    ("RestrictNamespaces", "yes"),
    ("RestrictRealtime", "yes"),
    ("RestrictSUIDSGID", "yes"),
    ("LockPersonality", "yes"),
    ("RemoveIPC", "yes"),
    ("KeyringMode", "private"),
    # Netlink, by which mDNS asks for the machine's addresses.
    ("RestrictAddressFamilies", "AF_INET AF_INET6 AF_UNIX AF_NETLINK"),
    ("SystemCallArchitectures", "native"),
    ("SystemCallFilter", "@system-service"),
    ("SystemCallFilter", "~@privileged @resources"),
    ("SystemCallErrorNumber", "EPERM"),
)


def _devices(place: Place) -> list[str]:
    if place.uses_gpu:
        return ["PrivateDevices=no"]
    lines = ["PrivateDevices=yes", "DevicePolicy=closed"]
    if place.has_firmware:
        lines += ["DeviceAllow=/dev/vcio rw", "BindPaths=-/dev/vcio", "SupplementaryGroups=video"]
    return lines


def _paths(paths: Sequence[str], plain: str, bound: str) -> list[str]:
    """A home is hidden whole, and what is needed of it is shown. A path that is missing is for the
    daemon to complain of: its words say more."""
    return [f"{bound if in_home(path) else plain}=-{_word(path)}" for path in paths]


def _command(*words: str) -> str:
    # Of paths alone a dollar sign is one.
    return " ".join(_word(word).replace("$", "$$") for word in words)


def _word(path: str) -> str:
    """As one word of a unit file."""
    if not path.isprintable():
        raise ValueError(f"{path!r} has a character that no line of a unit can have")
    text = path.replace("\\", "\\\\").replace("%", "%%").replace('"', '\\"')
    return f'"{text}"' if set(text) & set(" \"'\\;") else text
