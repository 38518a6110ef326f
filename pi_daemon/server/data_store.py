"""The folder of datasets that were dealt into this device: `NAME.safetensors`, and parts of others.

A part is a hidden file with the hash of what it will be. It gets its name when it is whole and was
found to be a dataset; until then nobody uses it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pi_daemon.device.receiving import Room
from pi_daemon.durable import put_in_place
from pi_daemon.protocol.messages import DatasetCard, OfferData, RefusalCode
from pi_daemon.protocol.values import DATASET_NAME
from pi_daemon.server.describing import UnusableDataError, describe

KEEP_PART_S: Final = 24 * 3600.0
_SUFFIX: Final = ".safetensors"


class DataStoreError(Exception):
    """The folder cannot be used; the message says why and how to mend that."""


class DataStore:
    def __init__(self, folder: Path, shares_labels: bool) -> None:
        self._folder = folder
        self._shares_labels = shares_labels

    def path_of(self, name: str) -> Path:
        return self._folder / f"{name}{_SUFFIX}"

    def part_of(self, sha256: str) -> Path:
        return self._folder / f".{sha256}{_SUFFIX}"

    def cards(self) -> tuple[DatasetCard, ...]:
        """Of every dataset in the folder, those that its owner put there included.

        Raises:
            DataStoreError: a file has a name that no dataset may have, or holds none.
        """
        names = sorted(path.stem for path in self._files() if not path.name.startswith("."))
        for name in names:
            if not re.search(DATASET_NAME, name):
                raise DataStoreError(
                    f"{self.path_of(name)}: a dataset's name has 1 to 64 letters, digits, dots, "
                    "dashes and underscores, and begins with no dot: rename it"
                )
        sources = {name: str(self.path_of(name)) for name in names}
        try:
            return describe(sources, None, self._shares_labels)
        except UnusableDataError as error:
            raise DataStoreError(f"{error}; mend it or move it away") from error

    def find_room(self, offer: OfferData) -> Room | tuple[RefusalCode, str]:
        """What the folder holds; takes as long as a file of the offered name and size is read."""
        try:
            self.drop_old_parts()
            path, part = self.path_of(offer.name), self.part_of(offer.sha256)
            sizes = {file: file.stat().st_size for file in self._files()}
            disk = os.statvfs(self._folder)
            return Room(
                is_name_taken=path in sizes,
                is_here=sizes.get(path) == offer.size and _sha256(path) == offer.sha256,
                part_bytes=sizes.pop(part, 0),
                used_bytes=sum(sizes.values()),
                free_bytes=disk.f_bavail * disk.f_frsize,
            )
        except OSError as error:
            return _unwritable(error)

    def store(self, offer: OfferData) -> DatasetCard | tuple[RefusalCode, str]:
        """Check a part that is whole, and put it in its place; a bad one is deleted."""
        part = self.part_of(offer.sha256)
        try:
            if part.stat().st_size != offer.size or _sha256(part) != offer.sha256:
                part.unlink()
                return RefusalCode.BAD_DATA, "not the bytes that were offered: deal it again"
            (card,) = describe({offer.name: str(part)}, None, self._shares_labels)
            put_in_place(part, self.path_of(offer.name))
        except UnusableDataError as error:
            part.unlink(missing_ok=True)
            return RefusalCode.BAD_DATA, str(error).replace(str(part), offer.name)
        except OSError as error:
            return _unwritable(error)
        return card

    def drop_old_parts(self) -> None:
        """Nobody goes on with a transfer that was cut a day ago."""
        oldest_s = time.time() - KEEP_PART_S
        for path in self._files():
            if path.name.startswith(".") and path.stat().st_mtime < oldest_s:
                path.unlink()

    def _files(self) -> list[Path]:
        """Datasets and parts."""
        return [path for path in self._folder.glob(f"*{_SUFFIX}") if path.is_file()]


@contextmanager
def open_data_store(folder: Path, shares_labels: bool) -> Iterator[DataStore]:
    """Use a folder alone; it is made if there is none.

    Raises:
        DataStoreError: it cannot be made or written, or another daemon uses it.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise DataStoreError(f"{folder} cannot be used ({error.strerror})") from error
    try:
        # The lock ends with the process, however that ends.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise DataStoreError(f"{folder} cannot be written: choose another, or change its mode")
        store = DataStore(folder, shares_labels)
        store.drop_old_parts()
        yield store
    except BlockingIOError:
        raise DataStoreError(
            f"another pi-daemon takes data into {folder}: give this one a folder of its own"
        ) from None
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unwritable(error: OSError) -> tuple[RefusalCode, str]:
    return RefusalCode.NO_ROOM, f"the device cannot store this: {error.strerror}"
