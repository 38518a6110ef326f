"""What a trainer holds ready for its workers: data, compiled graphs, and what they were found to need."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from pi_daemon.learning.batch_limit import BatchLimit
from pi_daemon.learning.datasets import SAMPLE_DTYPES, Arrays, DatasetError, content_hash, cut, load
from pi_daemon.learning.files import Model, read_model
from pi_daemon.learning.graph import TORCH_DTYPES, CompiledGraph
from pi_daemon.learning.local_training import Examples, LocalTraining, split_holdout
from pi_daemon.learning.trial import Needs, Refusal, Trials
from pi_daemon.protocol.batching import batches_per_epoch
from pi_daemon.protocol.graphs import (
    GraphError,
    ModelGraphs,
    NamedTensor,
    OptimizerSpec,
    decode_graphs,
)
from pi_daemon.protocol.messages import Cursor, RefusalCode
from pi_daemon.trainer.pipe import WorkerSpec


@dataclass(frozen=True, slots=True)
class Programs:
    """A model's graphs, compiled once for all workers that train it."""

    sha256: str
    graphs: ModelGraphs
    returned: tuple[NamedTensor, ...]
    """What an update holds."""
    training: CompiledGraph
    evaluation: CompiledGraph


Effort = tuple[str, OptimizerSpec, frozenset[int]]
"""What the time and memory of a step depend on: the graphs' hash, the optimizer, the batches' sizes."""


@dataclass(frozen=True, slots=True)
class PreparedWorker:
    """A worker that can train and evaluate at once."""

    spec: WorkerSpec
    programs: Programs
    training: Examples
    holdout: Examples
    needs: Needs

    @property
    def effort(self) -> Effort:
        return _effort(self.spec, len(self.training.rows))

    def begin(
        self, model: Model, cursor: Cursor, torch_seed: int, device: torch.device
    ) -> LocalTraining:
        return LocalTraining(
            self.programs.training,
            model.parameters,
            model.buffers,
            self.training,
            batch_size=self.spec.batch_size,
            optimizer=self.spec.optimizer,
            order_seed=self.spec.order_seed,
            torch_seed=torch_seed,
            cursor=cursor,
            device=device,
        )

    def time_batch(self, device: torch.device, limit: BatchLimit) -> float:
        """Train two batches from zeros and time the second: the first one loads libraries.

        The examples are zeros, too: no operation can fail, or take long, for what is in the data.
        """

        def zeros(specs: tuple[NamedTensor, ...]) -> dict[str, Tensor]:
            return {s.name: torch.zeros(s.shape, dtype=TORCH_DTYPES[s.dtype]) for s in specs}

        graphs = self.programs.graphs
        model = Model(zeros(graphs.parameters), zeros(graphs.buffers))
        trial = replace(self, training=self.training.zeros(self.spec.batch_size)).begin(
            model, Cursor(0, 0), 0, device
        )
        with limit:
            trial.step()
        start_s = time.monotonic()
        with limit:
            trial.step()
        return time.monotonic() - start_s


@dataclass(slots=True)
class _Shared:
    """What the workers of one trainer have in common."""

    sources: dict[str, Arrays] = field(default_factory=dict)
    programs: dict[str, Programs] = field(default_factory=dict)
    """By the graphs' hash."""
    needs: dict[tuple[Effort, int], Needs] = field(default_factory=dict)
    """By the effort of training and the number of examples held out."""
    batch_seconds: dict[Effort, float] = field(default_factory=dict)
    model: tuple[tuple[str, str], Model] | None = None
    """The newest one, after its id and its graphs' hash."""


class Workshop:
    """Reads, compiles and tries each thing once, however many workers share it."""

    def __init__(
        self, trials: Trials, device: torch.device, max_memory_bytes: int, limit: BatchLimit
    ) -> None:
        self._trials = trials
        self.device = device
        self.limit = limit
        self._max_memory_bytes = max_memory_bytes
        self._workers: dict[str, PreparedWorker] = {}
        self._shared = _Shared()
        """Given up with the last worker."""

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

    def batch_seconds(self, worker: PreparedWorker) -> float:
        """How long a batch takes; measured for the first of the workers with equal efforts."""
        found = self._shared.batch_seconds
        if worker.effort not in found:
            found[worker.effort] = worker.time_batch(self.device, self.limit)
        return found[worker.effort]

    def model(self, worker: PreparedWorker, path: str, model_id: str) -> Model:
        """A global model; read and verified for the first of the workers that ask for it.

        Raises:
            Refusal: as `read_model`.
        """
        key = model_id, worker.programs.sha256
        if self._shared.model is None or self._shared.model[0] != key:
            self._shared.model = None  # first, so that two models are never held at a time
            self._shared.model = key, read_model(path, model_id, worker.programs.graphs)
        return self._shared.model[1]

    def forget(self, worker_id: str) -> None:
        self._workers.pop(worker_id, None)
        if not self._workers:
            self._shared = _Shared()

    def _prepare(self, spec: WorkerSpec) -> PreparedWorker:
        shard = self._shard(spec)
        programs = self._programs(spec)
        _require_fit(spec, programs.graphs, shard)
        # The hash decides what is held out, and is as long as the data: for nothing it is not made.
        sha256 = content_hash(shard) if spec.holdout else ""
        training_rows, holdout_rows = split_holdout(sha256, len(shard.x), spec.holdout)
        if batches_per_epoch(len(training_rows), spec.batch_size) == 0:
            raise Refusal(
                RefusalCode.DATASET_MISMATCH,
                f"dataset {spec.dataset} leaves {len(training_rows)} examples for training, "
                "at least 2 are needed",
            )
        x, y = torch.from_numpy(shard.x), torch.from_numpy(shard.y)
        training = Examples(x, y, training_rows)
        effort = _effort(spec, len(training_rows))
        needs = self._needs(programs.graphs, effort, len(holdout_rows))
        return PreparedWorker(spec, programs, training, Examples(x, y, holdout_rows), needs)

    def _shard(self, spec: WorkerSpec) -> Arrays:
        try:
            sources = self._shared.sources
            if spec.source not in sources:
                sources[spec.source] = load(spec.source)
            return cut(sources[spec.source], spec.shard)
        except DatasetError as error:
            raise Refusal(RefusalCode.NO_DATASET, str(error)) from error

    def _programs(self, spec: WorkerSpec) -> Programs:
        if (known := self._shared.programs.get(spec.graphs_sha256)) is not None:
            return known
        content = Path(spec.graphs_path).read_bytes()
        if hashlib.sha256(content).hexdigest() != spec.graphs_sha256:
            raise Refusal(RefusalCode.BAD_GRAPH, "the graphs' file has been changed")
        try:
            graphs = decode_graphs(content)
            programs = Programs(
                spec.graphs_sha256,
                graphs,
                graphs.returned,
                CompiledGraph(graphs.training, self.device),
                CompiledGraph(graphs.evaluation, self.device),
            )
        except GraphError as error:
            raise Refusal(RefusalCode.BAD_GRAPH, str(error)) from error
        self._shared.programs[spec.graphs_sha256] = programs
        return programs

    def _needs(self, graphs: ModelGraphs, effort: Effort, num_holdout: int) -> Needs:
        needs = self._shared.needs.get((effort, num_holdout))
        if needs is None:
            _, optimizer, sizes = effort
            needs = self._trials.run(graphs, optimizer, sizes, num_holdout, self._max_memory_bytes)
            self._shared.needs[effort, num_holdout] = needs
        return needs


def _effort(spec: WorkerSpec, num_examples: int) -> Effort:
    sizes = {min(spec.batch_size, num_examples)}
    if (rest := num_examples % spec.batch_size) > 1:
        sizes.add(rest)
    return spec.graphs_sha256, spec.optimizer, frozenset(sizes)


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
