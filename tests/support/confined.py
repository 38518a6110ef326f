"""Runs a program under the system call filter of a systemd unit, without systemd: `... UNIT PROGRAM ...`.

What the filter's lines mean is asked of systemd-analyze; libseccomp makes the filter.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
from pathlib import Path

_ALLOW = 0x7FFF0000
_EPERM = 0x00050001
_EQUAL = 4
_NO_NEW_PRIVS = 38


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


def calls_of(group: str) -> set[str]:
    """The system calls of a group such as @system-service, with those of groups in it."""
    shown = subprocess.run(
        ["systemd-analyze", "syscall-filter", group], capture_output=True, text=True, check=True
    )
    found: set[str] = set()
    for name in shown.stdout.split("\n")[1:]:
        word = name.strip().partition(" ")[0]
        if word.startswith("@"):
            found |= calls_of(word)
        elif word and not word.startswith("#"):
            found.add(word)
    return found


def allowed_calls(unit: str) -> set[str]:
    allowed: set[str] = set()
    for line in (line for line in unit.splitlines() if line.startswith("SystemCallFilter=")):
        words = line.partition("=")[2]
        is_taken_away = words.startswith("~")
        for group in words.removeprefix("~").split():
            allowed = allowed - calls_of(group) if is_taken_away else allowed | calls_of(group)
    # These stay allowed whatever is taken away.
    return allowed | calls_of("@default")


def confine(unit: str) -> None:
    """This process, and all that it starts, can do no more than the unit's processes."""
    seccomp = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(_EPERM))
    for name in allowed_calls(unit) - {"socket"}:
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        # Calls of other machines have negative numbers here.
        if number >= 0 and seccomp.seccomp_rule_add_array(context, _ALLOW, number, 0, None):
            raise OSError(f"no rule for {name}")
    families = next(
        line.partition("=")[2].split()
        for line in unit.splitlines()
        if line.startswith("RestrictAddressFamilies=")
    )
    number = seccomp.seccomp_syscall_resolve_name(b"socket")
    for family in families:
        first = _Comparison(0, _EQUAL, int(getattr(socket, family)), 0)
        seccomp.seccomp_rule_add_array(context, _ALLOW, number, 1, ctypes.byref(first))
    ctypes.CDLL(None).prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    if seccomp.seccomp_load(context):
        raise OSError("the filter was not taken")


if __name__ == "__main__":
    confine(Path(sys.argv[1]).read_text())
    os.execvp(sys.argv[2], sys.argv[2:])
