"""The model of a stored run is handed out only if it is the one that the journal names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from fedconsole import paths
from fedconsole.errors import RefusedError, StorageError
from fedconsole.stored_models import find_whole
from pi_daemon.protocol.tensors import model_id, read_table
from tests.support.places import redirect, write_journal

RUN = "20261122-aaaa"
FIRST = {"w": np.zeros(3, np.float32), "b": np.ones(1, np.float32)}
SECOND = {"w": np.ones(3, np.float32), "b": np.ones(1, np.float32)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That of a run of two rounds, with both checkpoints."""
    redirect(tmp_path, monkeypatch)
    models = [safetensors.numpy.save(model) for model in (FIRST, SECOND)]
    ids = [model_id(model, read_table(model)) for model in models]
    lines = [
        {"type": "round.finished", "round": number, "model_id": found}
        for number, found in enumerate(ids, start=1)
    ]
    write_journal(RUN, [{"type": "run.created", "task": "digits", "plan": {}}, *lines])
    run = paths.runs_dir() / RUN
    for number, model in enumerate(models, start=1):
        checkpoint(run, number).write_bytes(model)
    publish(run, SECOND)
    return run


def checkpoint(run: Path, number: int) -> Path:
    return run / "checkpoints" / f"round-{number:06d}.safetensors"


def publish(run: Path, model: Mapping[str, np.ndarray]) -> None:
    safetensors.numpy.save_file(dict(model), run / "model.safetensors")


def damage(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def test_a_model_is_whole_also_under_the_names_of_the_tasks_own_module(folder: Path) -> None:
    assert find_whole(RUN) == folder / "model.safetensors"
    publish(folder, {"net.w": SECOND["w"], "net.b": SECOND["b"], "net.tied": SECOND["b"]})
    assert find_whole(RUN) == folder / "model.safetensors"


def test_of_a_damaged_model_the_newest_whole_one_is_named(folder: Path) -> None:
    damage(folder / "model.safetensors")
    with pytest.raises(
        StorageError,
        match=r"model\.safetensors is damaged: it does not hold the model that the journal names for "
        rf"round 2; the newest model that is whole is that of round 2: {checkpoint(folder, 2)}",
    ):
        find_whole(RUN)
    damage(checkpoint(folder, 2))
    with pytest.raises(StorageError, match=rf"of round 1: {checkpoint(folder, 1)}"):
        find_whole(RUN)
    checkpoint(folder, 1).write_bytes(b"no model")
    with pytest.raises(StorageError, match="no checkpoint of the run is whole, either"):
        find_whole(RUN)


def test_a_model_that_is_another_rounds_is_not_handed_out(folder: Path) -> None:
    publish(folder, FIRST)
    with pytest.raises(StorageError, match="is damaged"):
        find_whole(RUN)


def test_a_model_that_is_gone_is_said_to_be(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(StorageError, match=r"model\.safetensors is gone; .* is whole"):
        find_whole(RUN)


def test_a_run_without_a_complete_round_has_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redirect(tmp_path, monkeypatch)
    write_journal(RUN, [{"type": "run.created", "task": "digits", "plan": {}}])
    with pytest.raises(RefusedError, match="only a run with a finished round has one"):
        find_whole(RUN)
