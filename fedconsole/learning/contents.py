"""What a model file holds, and what that is called. Without torch: the command line asks, too."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fedconsole.errors import DamagedModelError, StorageError
from fedconsole.paths import require_regular
from pi_daemon.protocol.errors import TensorError
from pi_daemon.protocol.limits import MAX_TENSOR_HEADER_BYTES
from pi_daemon.protocol.tensors import TensorSpec, TensorTable, id_prefix, read_table


@dataclass(frozen=True, slots=True)
class WrittenModel:
    """What a file's content is called."""

    model_id: str
    sha256: str
    """Of the file."""
    size: int
    """Of the file, in bytes."""


def read_head(file: BinaryIO) -> tuple[bytes, TensorTable]:
    """The bytes before the tensors of a safetensors file, and what they say.

    Raises:
        TensorError: it is no such file, or malformed.
        OSError: it cannot be read.
    """
    size = os.fstat(file.fileno()).st_size
    head = file.read(8)
    head += file.read(min(int.from_bytes(head, "little"), MAX_TENSOR_HEADER_BYTES))
    return head, read_table(head, size)


def tensors_of(path: Path) -> Iterator[tuple[str, TensorSpec, bytes]]:
    """Each tensor's name, form and bytes, sorted by name; raises as `read_head`."""
    require_regular(path)
    with path.open("rb") as file:
        _, table = read_head(file)
        for name, spec in sorted(table.specs.items()):
            file.seek(table.offsets[name][0])
            raw = file.read(spec.num_bytes)
            if len(raw) != spec.num_bytes:
                raise TensorError(f"{path} has become shorter")
            yield name, spec, raw


def read_model(path: Path) -> WrittenModel:
    """What a file's content is called, from the content; raises as `read_head`."""
    require_regular(path)
    with path.open("rb") as file:
        head, _ = read_head(file)
    whole, content = hashlib.sha256(head), hashlib.sha256()
    for name, spec, raw in tensors_of(path):
        whole.update(raw)
        content.update(id_prefix(name, spec))
        content.update(raw)
        content.update(b"\0")
    return WrittenModel(content.hexdigest(), whole.hexdigest(), path.stat().st_size)


def read_whole(path: Path, model_id: str) -> WrittenModel:
    """What a file's content is called, if that is as it should be.

    Raises:
        DamagedModelError: it is not there, or not as it was written.
        StorageError: it cannot be read.
    """
    try:
        found = read_model(path)
    except FileNotFoundError as error:
        raise DamagedModelError(f"{path.name}: {error.strerror}") from error
    except TensorError as error:
        raise DamagedModelError(f"{path.name}: {error}") from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    if found.model_id != model_id:
        raise DamagedModelError(
            f"{path.name} holds model {found.model_id[:12]}, the journal says {model_id[:12]}"
        )
    return found
