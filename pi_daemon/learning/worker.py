"""What a trainer holds ready for its workers: data, compiled graphs, and what they were found to need."""

from __future__ import annotations

import hashlib
import mmap
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from pi_daemon.learning.datasets import SAMPLE_DTYPES, Arrays, DatasetError, content_hash, cut, load
from pi_daemon.learning.graph import TORCH_DTYPES, CompiledGraph
from pi_daemon.learning.local_training import Examples, LocalTraining, split_holdout
from pi_daemon.learning.trial import Needs, Refusal, Trials
from pi_daemon.protocol import tensors
from pi_daemon.protocol.batching import batches_per_epoch
from pi_daemon.protocol.graphs import (
    GraphError,
    ModelGraphs,
    NamedTensor,
    decode_graphs,
)
from pi_daemon.protocol.messages import Cursor, RefusalCode
from pi_daemon.trainer_pipe import WorkerSpec


@dataclass(frozen=True, slots=True)
class Programs:
    """A model's graphs, compiled once for all workers that train it."""

    sha256: str
    graphs: ModelGraphs
    training: CompiledGraph
    evaluation: CompiledGraph


@dataclass(frozen=True, slots=True)
class PreparedWorker:
    """A worker that can train and evaluate at once."""

    spec: WorkerSpec
    programs: Programs
    training: Examples
    holdout: Examples
    needs: Needs

    def begin(
        self,
        parameters: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        cursor: Cursor,
        torch_seed: int,
        device: torch.device,
    ) -> LocalTraining:
        return LocalTraining(
            self.programs.training,
            parameters,
            buffers,
            self.training,
            batch_size=self.spec.batch_size,
            optimizer=self.spec.optimizer,
            order_seed=self.spec.order_seed,
            torch_seed=torch_seed,
            cursor=cursor,
            device=device,
        )

    def time_batch(self, device: torch.device) -> float:
        """Train two batches from zeros and time the second: the first one loads libraries."""

        def zeros(specs: tuple[NamedTensor, ...]) -> dict[str, Tensor]:
            return {s.name: torch.zeros(s.shape, dtype=TORCH_DTYPES[s.dtype]) for s in specs}

        graphs = self.programs.graphs
        trial = self.begin(zeros(graphs.parameters), zeros(graphs.buffers), Cursor(0, 0), 0, device)
        trial.step()
        start_s = time.monotonic()
        trial.step()
        return time.monotonic() - start_s


class Workshop:
    """Loads each source and each model once, however many workers use it."""

    def __init__(self, trials: Trials, device: torch.device, max_memory_bytes: int) -> None:
        self._trials = trials
        self.device = device
        self._max_memory_bytes = max_memory_bytes
        self._workers: dict[str, PreparedWorker] = {}
        self._sources: dict[str, Arrays] = {}

    def worker(self, spec: WorkerSpec) -> PreparedWorker:
        """The worker made ready; takes time only when something about it is new.

        Raises:
            Refusal: it does not fit its data, its graphs are not run here, or memory is too small.
        """
        worker = self._workers.get(spec.worker_id)
        if worker is None or worker.spec != spec:
            self.forget(spec.worker_id)
            worker = self._workers[spec.worker_id] = self._prepare(spec)
        return worker

    def forget(self, worker_id: str) -> None:
        self._workers.pop(worker_id, None)
        used = {worker.spec.source for worker in self._workers.values()}
        self._sources = {s: arrays for s, arrays in self._sources.items() if s in used}

    def _prepare(self, spec: WorkerSpec) -> PreparedWorker:
        shard = self._shard(spec)
        programs = self._programs(spec)
        _require_fit(spec, programs.graphs, shard)
        training_rows, holdout_rows = split_holdout(content_hash(shard), len(shard.x), spec.holdout)
        if batches_per_epoch(len(training_rows), spec.batch_size) == 0:
            raise Refusal(
                RefusalCode.DATASET_MISMATCH,
                f"dataset {spec.dataset} leaves {len(training_rows)} examples for training, "
                "at least 2 are needed",
            )
        x, y = torch.from_numpy(shard.x), torch.from_numpy(shard.y)
        training = Examples(x, y, training_rows)
        needs = self._needs(spec, programs.graphs, len(training_rows), len(holdout_rows))
        return PreparedWorker(spec, programs, training, Examples(x, y, holdout_rows), needs)

    def _shard(self, spec: WorkerSpec) -> Arrays:
        try:
            if spec.source not in self._sources:
                self._sources[spec.source] = load(spec.source)
            return cut(self._sources[spec.source], spec.shard)
        except DatasetError as error:
            raise Refusal(RefusalCode.NO_DATASET, str(error)) from error

    def _programs(self, spec: WorkerSpec) -> Programs:
        for worker in self._workers.values():
            if worker.programs.sha256 == spec.graphs_sha256:
                return worker.programs
        content = Path(spec.graphs_path).read_bytes()
        if hashlib.sha256(content).hexdigest() != spec.graphs_sha256:
            raise Refusal(RefusalCode.BAD_GRAPH, "the graphs' file has been changed")
        try:
            graphs = decode_graphs(content)
            return Programs(
                spec.graphs_sha256,
                graphs,
                CompiledGraph(graphs.training, self.device),
                CompiledGraph(graphs.evaluation, self.device),
            )
        except GraphError as error:
            raise Refusal(RefusalCode.BAD_GRAPH, str(error)) from error

    def _needs(
        self, spec: WorkerSpec, graphs: ModelGraphs, num_training: int, num_holdout: int
    ) -> Needs:
        for worker in self._workers.values():
            other = worker.spec
            if (other.graphs_sha256, other.batch_size, other.optimizer) == (
                spec.graphs_sha256,
                spec.batch_size,
                spec.optimizer,
            ) and len(worker.training.rows) == num_training:
                return worker.needs
        sizes = {min(spec.batch_size, num_training)}
        if (rest := num_training % spec.batch_size) > 1:
            sizes.add(rest)
        return self._trials.run(graphs, spec.optimizer, sizes, self._max_memory_bytes)


def read_model(
    path: str, model_id: str, graphs: ModelGraphs
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Parameters and buffers of a safetensors file.

    Raises:
        Refusal: the file is malformed, holds another model, or fits other graphs.
    """
    specs = {tensor.name: tensor.spec for tensor in graphs.parameters + graphs.buffers}
    try:
        with Path(path).open("rb") as file:
            # Not closed by hand: the error that is raised below may still hold a part of it.
            view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        table = tensors.read_table(view)
        tensors.require_specs(table.specs, specs)
        found = tensors.model_id(view, table)
    except (ValueError, OSError) as error:
        raise Refusal(RefusalCode.BAD_MODEL, f"model: {error}") from error
    if found != model_id:
        raise Refusal(
            RefusalCode.BAD_MODEL, f"the model is {found[:12]}..., expected {model_id[:12]}..."
        )
    loaded = load_file(path)
    names = [spec.name for spec in graphs.parameters]
    parameters = {name: loaded.pop(name) for name in names}
    return parameters, loaded


def _require_fit(spec: WorkerSpec, graphs: ModelGraphs, shard: Arrays) -> None:
    """Check that run, graphs and data mean the same samples and targets."""
    wanted = spec.sample_shape, SAMPLE_DTYPES.get(spec.sample_dtype)
    if (graphs.sample.shape, graphs.sample.dtype) != wanted:
        raise Refusal(
            RefusalCode.BAD_GRAPH,
            f"the graphs take samples {graphs.sample.dtype} {graphs.sample.shape}, "
            f"the run says {spec.sample_dtype} {spec.sample_shape}",
        )
    found = (
        shard.x.shape[1:],
        SAMPLE_DTYPES[shard.x.dtype.name],
        shard.y.shape[1:],
        SAMPLE_DTYPES[shard.y.dtype.name],
    )
    expected = (*wanted, graphs.target.shape, graphs.target.dtype)
    if found != expected:
        raise Refusal(
            RefusalCode.DATASET_MISMATCH,
            f"dataset {spec.dataset} holds samples {found[1]} {found[0]} with targets "
            f"{found[3]} {found[2]}, the model takes {expected[1]} {expected[0]} with "
            f"{expected[3]} {expected[2]}",
        )
    if (shard.num_classes or 0) > (spec.num_classes or 0):
        raise Refusal(
            RefusalCode.DATASET_MISMATCH,
            f"dataset {spec.dataset} has {shard.num_classes} classes, the model {spec.num_classes}",
        )
