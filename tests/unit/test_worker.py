from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import safetensors.torch
import torch

from pi_daemon.learning.batch_limit import BatchLimit
from pi_daemon.learning.files import read_model, write_update
from pi_daemon.learning.graph import TORCH_DTYPES
from pi_daemon.learning.trial import Refusal, start_trials
from pi_daemon.learning.worker import Workshop
from pi_daemon.protocol.graphs import OptimizerSpec, decode_graphs
from pi_daemon.protocol.messages import Cursor, RefusalCode
from pi_daemon.trainer.pipe import WorkerSpec
from tests.support.rounds import tiny_model, worker_spec

torch.set_num_threads(1)


@pytest.fixture
def spec(tmp_path: Path) -> WorkerSpec:
    return worker_spec(tmp_path)


[TRIALS] = start_trials(1)
"""Forked when pytest collects, before any test has trained in this process."""


def workshop(max_memory_bytes: int = sys.maxsize) -> Workshop:
    return Workshop(TRIALS, torch.device("cpu"), max_memory_bytes, BatchLimit(600.0))


def change(spec: WorkerSpec, **changes: Any) -> WorkerSpec:
    return msgspec.structs.replace(spec, **changes)


def test_workers_of_one_model_share_its_programs_and_their_source(spec: WorkerSpec) -> None:
    shop = workshop()
    alice = shop.worker(change(spec, shard="1/2"))
    bob = shop.worker(change(spec, worker_id="bob", shard="2/2"))
    assert alice.programs is bob.programs
    assert alice.training.x.untyped_storage().data_ptr() < bob.training.x.data_ptr()
    assert bob.training.x.data_ptr() - alice.training.x.data_ptr() == alice.training.x.nbytes
    assert (len(alice.training.rows), len(alice.holdout.rows)) == (192, 48)


def test_a_worker_is_prepared_once_and_anew_when_its_spec_changes(spec: WorkerSpec) -> None:
    shop = workshop()
    worker = shop.worker(spec)
    assert shop.worker(spec) is worker
    assert shop.worker(change(spec, batch_size=8)) is not worker
    shop.forget(spec.worker_id)
    assert shop.worker(spec) is not worker


def test_a_trial_batch_takes_time_and_serves_all_workers_of_one_effort(spec: WorkerSpec) -> None:
    shop = workshop()
    alice = shop.worker(change(spec, shard="1/2"))
    bob = shop.worker(change(spec, worker_id="bob", shard="2/2"))
    carol = shop.worker(change(spec, worker_id="carol", batch_size=8))
    seconds = shop.batch_seconds(alice)
    assert 0 < seconds < 60
    assert shop.batch_seconds(bob) == seconds != shop.batch_seconds(carol)
    assert alice.needs is bob.needs is not carol.needs


def test_a_model_is_read_once_for_all_workers_and_given_up_with_the_last(
    spec: WorkerSpec,
) -> None:
    shop = workshop()
    alice, bob = shop.worker(spec), shop.worker(change(spec, worker_id="bob"))
    path, model_id = Path(spec.graphs_path).parent / "model", tiny_model().model_id
    model = shop.model(alice, str(path), model_id)
    assert shop.model(bob, str(path), model_id) is model
    with pytest.raises(Refusal, match="expected 000000000000"):
        shop.model(alice, str(path), "0" * 64)
    again = shop.model(alice, str(path), model_id)
    assert again is not model
    shop.forget("alice")
    assert shop.model(bob, str(path), model_id) is again
    shop.forget("bob")
    assert shop.model(shop.worker(spec), str(path), model_id) is not again


def test_rounds_of_workers_leave_the_model_that_they_share_as_it_was(spec: WorkerSpec) -> None:
    shop = workshop()
    alice = shop.worker(spec)
    path = Path(spec.graphs_path).parent / "model"
    model = shop.model(alice, str(path), tiny_model().model_id)
    training = alice.begin(model, Cursor(0, 0), 5, shop.device)
    for _ in range(3):
        training.step()
    fresh = read_model(str(path), tiny_model().model_id, alice.programs.graphs)
    assert all(map(torch.equal, model.parameters.values(), fresh.parameters.values()))
    assert all(map(torch.equal, model.buffers.values(), fresh.buffers.values()))


def test_an_update_is_a_safetensors_file_of_what_training_changes(
    tmp_path: Path, spec: WorkerSpec
) -> None:
    worker = workshop().worker(spec)
    path = tmp_path / "update"
    generator = torch.Generator().manual_seed(1)
    state = {
        tensor.name: torch.rand(tensor.shape, generator=generator).to(TORCH_DTYPES[tensor.dtype])
        for tensor in worker.programs.graphs.parameters + worker.programs.graphs.buffers
    }
    size, sha256 = write_update(str(path), worker.programs.returned, state)
    content = path.read_bytes()
    assert (size, sha256) == (len(content), hashlib.sha256(content).hexdigest())
    update = safetensors.torch.load(content)
    assert update.keys() == {tensor.name for tensor in worker.programs.graphs.returned}
    assert all(torch.equal(tensor, state[name]) for name, tensor in update.items())


@pytest.mark.parametrize(
    ("changes", "code", "reason"),
    [
        ({"sample_shape": (64,)}, RefusalCode.BAD_GRAPH, "the graphs take samples U8"),
        ({"num_classes": 9}, RefusalCode.DATASET_MISMATCH, "has 10 classes, the model 9"),
        ({"num_classes": None}, RefusalCode.DATASET_MISMATCH, "has 10 classes, the model None"),
        ({"holdout": 0.999}, RefusalCode.DATASET_MISMATCH, "leaves 0 examples for training"),
        ({"source": "/gone.npz"}, RefusalCode.NO_DATASET, "/gone.npz"),
        ({"shard": "0/1"}, RefusalCode.NO_DATASET, "expected INDEX/COUNT"),
        ({"graphs_sha256": "0" * 64}, RefusalCode.BAD_GRAPH, "has been changed"),
    ],
    ids=range(7),
)
def test_a_worker_that_does_not_fit_is_refused(
    spec: WorkerSpec, changes: dict[str, Any], code: RefusalCode, reason: str
) -> None:
    with pytest.raises(Refusal, match=reason) as refusal:
        workshop().worker(change(spec, **changes))
    assert refusal.value.code is code


def test_a_model_over_the_memory_is_refused_before_anything_is_allocated(spec: WorkerSpec) -> None:
    with pytest.raises(Refusal, match="take a smaller batch or a smaller model") as refusal:
        workshop(max_memory_bytes=10_000).worker(spec)
    assert refusal.value.code is RefusalCode.TOO_LARGE


def test_a_worker_with_little_memory_evaluates_in_smaller_batches(spec: WorkerSpec) -> None:
    needs = workshop().worker(spec).needs
    small = workshop(needs.memory_bytes).worker(spec).needs
    assert (needs.evaluation_batch_size, small.evaluation_batch_size < 1000) == (1000, True)


def test_an_optimizer_with_more_state_needs_more_memory(spec: WorkerSpec) -> None:
    adam = change(spec, optimizer=OptimizerSpec("adam", 0.01))
    sgd = change(spec, optimizer=OptimizerSpec("sgd", 0.01))
    assert workshop().worker(adam).needs.memory_bytes > workshop().worker(sgd).needs.memory_bytes


def test_only_the_model_that_was_announced_is_read(tmp_path: Path) -> None:
    graphs = decode_graphs(tiny_model().graphs)
    path = tmp_path / "model"
    path.write_bytes(tiny_model().content)
    model = read_model(str(path), tiny_model().model_id, graphs)
    assert list(model.parameters) == [spec.name for spec in graphs.parameters]
    assert model.buffers.keys() == {spec.name for spec in graphs.buffers}
    with pytest.raises(Refusal, match=r"the model is .*, expected 000000000000\.\.\."):
        read_model(str(path), "0" * 64, graphs)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04cos\nsystem\n(S'true'\ntR.",
        tiny_model().content[:-1],
        safetensors.torch.save({"x": torch.zeros(1)}),
    ],
    ids=["empty", "a pickle", "truncated", "another table"],
)
def test_a_file_that_is_no_such_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model"
    path.write_bytes(content)
    with pytest.raises(Refusal) as refusal:
        read_model(str(path), tiny_model().model_id, decode_graphs(tiny_model().graphs))
    assert refusal.value.code is RefusalCode.BAD_MODEL
