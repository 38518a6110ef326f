"""What some faults need of the machine; a test that lacks it is skipped, and says what is missing."""

from __future__ import annotations

import os
import shutil

import pytest


def require_root(what_for: str) -> None:
    if os.geteuid() != 0:
        pytest.skip(f"needs root: {what_for}")


def require_program(name: str, package: str) -> str:
    """Where a program is; `package` is Debian's name for what it comes with."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"needs {name} (Debian package {package})")
    return path
