"""Whether the model that a run has left is the one that its journal names."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from fedconsole import history
from fedconsole.errors import DamagedModelError, RefusedError, StorageError
from fedconsole.learning.contents import read_whole, tensors_of
from pi_daemon.protocol.errors import TensorError


def find_whole(run: str) -> Path:
    """The file with the model of a run's last complete round.

    Raises:
        RefusedError: no round is complete.
        StorageError: the file is gone or damaged, or it or the journal cannot be read.
    """
    folder = history.folder_of(run)
    rounds = history.lines(run, types=["round.finished"])
    ids: dict[int, str] = {line["round"]: line["model_id"] for line in rounds}
    if not ids:
        raise RefusedError(f"run {run} has no model; only a run with a finished round has one")
    model, last = folder / "model.safetensors", max(ids)
    if not _is_whole(model, _checkpoint(folder, last), ids[last]):
        wrong = (
            f"is damaged: it does not hold the model that the journal names for round {last}"
            if model.exists()
            else "is gone"
        )
        raise StorageError(f"{model} {wrong}; {_what_is_whole(folder, ids)}")
    return model


def _is_whole(model: Path, checkpoint: Path, model_id: str) -> bool:
    """Its tensors may have other names than in the checkpoint: those of the task's own module."""
    if _is_named(model, model_id):
        return True
    if not _is_named(checkpoint, model_id):
        return False
    kept = {(spec, sha256(raw).digest()) for _, spec, raw in tensors_of(checkpoint)}
    try:
        return all((spec, sha256(raw).digest()) in kept for _, spec, raw in tensors_of(model))
    except (OSError, TensorError):
        return False


def _is_named(path: Path, model_id: str) -> bool:
    try:
        read_whole(path, model_id)
    except DamagedModelError:
        return False
    return True


def _what_is_whole(folder: Path, ids: Mapping[int, str]) -> str:
    for number, model_id in sorted(ids.items(), reverse=True):
        if _is_named(path := _checkpoint(folder, number), model_id):
            return f"the newest model that is whole is that of round {number}: {path}"
    return "no checkpoint of the run is whole, either"


def _checkpoint(folder: Path, round_number: int) -> Path:
    return folder / "checkpoints" / f"round-{round_number:06d}.safetensors"
