"""Disks that are soon full, that fail, or that are only to be read."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.tools import require_program, require_root


@contextmanager
def small_disk(folder: Path, num_bytes: int) -> Iterator[Path]:
    """A disk of its own in `folder`; without root the test is skipped."""
    require_root("a small tmpfs")
    folder.mkdir(exist_ok=True)
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={num_bytes},mode=0700", "tmpfs", str(folder)]
    if subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("needs mount: a small tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Meanwhile there is no room on it."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def ext4_disk(folder: Path, num_bytes: int) -> Iterator[Path]:
    """A disk of its own with a real file system, in `folder`; without root the test is skipped.

    After an error it is only to be read, as the disks of most machines are.
    """
    require_root("a disk in a file")
    mkfs = require_program("mkfs.ext4", "e2fsprogs")
    with _image(folder).open("wb") as file:
        file.truncate(num_bytes)
    making = [mkfs, "-q", "-e", "remount-ro", str(_image(folder))]
    subprocess.run(making, check=True, capture_output=True)
    folder.mkdir(exist_ok=True)
    if _mount_image(folder).returncode:
        pytest.skip("needs mount: a disk in a file")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _image(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.ext4")


def _mount_image(folder: Path) -> subprocess.CompletedProcess[bytes]:
    mounting = ["mount", "-t", "ext4", "-o", "loop", str(_image(folder)), str(folder)]
    return subprocess.run(mounting, capture_output=True, check=False)


def mend_disk(disk: Path) -> None:
    """Let a disk that failed be written again; nobody may use it meanwhile.

    Raises:
        CalledProcessError: somebody does.
    """
    subprocess.run(["umount", str(disk)], check=True, capture_output=True)
    _mount_image(disk).check_returncode()


def fail_disk(disk: Path) -> None:
    """Let the kernel take an `ext4_disk` for broken: whatever is open, it is only to be read now."""
    device = disk.stat().st_dev
    block = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
    trigger = Path(f"/sys/fs/ext4/{block}/trigger_fs_error")
    try:
        trigger.write_text("a test\n")
    except OSError as error:
        pytest.skip(f"needs {trigger}: {error.strerror}")


def make_read_only(disk: Path, is_read_only: bool = True) -> None:
    """Remount a small disk on which no file is open for writing.

    Raises:
        CalledProcessError: one is.
    """
    how = "remount,ro" if is_read_only else "remount,rw"
    subprocess.run(["mount", "-o", how, str(disk)], check=True, capture_output=True)
