"""The engine's heavy work, on torch: capture, average, evaluate. Blocking; called in threads."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from fedconsole.coordinator import events
from fedconsole.coordinator.commands import CountedUpdate
from fedconsole.coordinator.plan import Plan
from fedconsole.coordinator.state import Confusion, Metric, Update
from fedconsole.engine.store import RunStore
from fedconsole.engine.worker import Captured, ModelOnDisk
from fedconsole.errors import DamagedModelError, RefusedError, StorageError
from fedconsole.learning.aggregation import WeightedUpdate, federated_average, require_fit
from fedconsole.learning.capture import CapturedModel, CaptureError, capture
from fedconsole.learning.contents import WrittenModel, read_whole
from fedconsole.learning.metrics import class_metrics
from fedconsole.learning.model_files import (
    ModelFile,
    spec_of,
    write_model,
)
from fedconsole.learning.tasks.loading import load_task
from fedconsole.learning.tasks.task import Task, TaskError
from fedconsole.paths import data_dir, require_regular
from pi_daemon.durable import put_in_place
from pi_daemon.learning.evaluation import Evaluation, evaluate
from pi_daemon.learning.graph import CompiledGraph
from pi_daemon.protocol.errors import ProtocolError, TensorError
from pi_daemon.protocol.graphs import GraphError, ModelGraphs, decode_graphs, encode_graphs
from pi_daemon.protocol.messages import Evaluated
from pi_daemon.protocol.tensors import require_specs

_CAPTURE_BATCH = 8
"""The graphs take any size from 2 on, so a small one will do whatever the run's is."""
_MAX_CONFUSION_CLASSES = 100
"""More would make a line of the journal that nobody reads."""


class Work:
    """One run's task, captured; and what is computed with it on the desktop."""

    def __init__(self, plan: Plan, store: RunStore) -> None:
        """Load the task and capture it; write its graphs, or compare them with those of an earlier engine.

        Raises:
            RefusedError: the task cannot be used, cannot be captured, has no test set where it
                should have one, or has changed since the run began.
        """
        # One thread, as in the workers: their cores are these, and pools of threads that share
        # cores run many times slower.
        torch.set_num_threads(1)
        try:
            self.task: Task = load_task(plan.task)
            self._model = model = capture(self.task, _CAPTURE_BATCH, plan.seed)
            self._test_set = self.task.test_data(data_dir(plan.data_dir))
        except (TaskError, CaptureError) as error:
            raise RefusedError(str(error)) from error
        self._store = store
        self._plan = plan
        self._require_test_shape()
        self._require_goal()
        if plan.save_model is not None:
            _require_target(plan.save_model)
        self._device = _device(plan)
        self._graphs: ModelGraphs = model.graphs
        self._evaluation = CompiledGraph(model.graphs.evaluation, self._device)
        content = encode_graphs(model.graphs)
        _keep_graphs(store.graphs_path, content, plan.task)
        self.captured = Captured(
            graphs=content,
            graphs_sha256=sha256(content).hexdigest(),
            returned={tensor.name: tensor.spec for tensor in model.graphs.returned},
            parameters=tuple(tensor.name for tensor in model.graphs.parameters),
            dataset=self.task.dataset,
            sample_shape=self.task.sample_shape,
            sample_dtype=self.task.sample_dtype,
            num_classes=self.task.num_classes,
        )

    def write_initial_model(self) -> ModelOnDisk:
        """
        Raises:
            RefusedError: `init_from` does not fit.
        """
        state = self._model.state
        if self._plan.init_from is not None:
            state = state | _initial_state(Path(self._plan.init_from).expanduser(), self._model)
        specs = {name: spec_of(tensor) for name, tensor in self._model.state.items()}
        path = self._store.checkpoint_path(0)
        return _on_disk(path, write_model(path, specs, lambda name: [state[name]]))

    def find_model(self, round_number: int, model_id: str) -> ModelOnDisk:
        """The model of a complete round, as an earlier engine left it; of round 0, the initial one.

        Raises:
            StorageError: it cannot be read; or is not there, or not what it was, and neither is an older one.
        """
        path = self._store.checkpoint_path(round_number)
        try:
            return _on_disk(path, read_whole(path, model_id))
        except DamagedModelError as damage:
            raise StorageError(
                f"cannot go on: no model in {path.parent} is whole ({damage}); bring one back from a "
                "copy, or start a new run"
            ) from damage

    def lost_updates(self, updates: Mapping[str, Update]) -> tuple[str, ...]:
        """The workers whose update files are gone or damaged."""
        lost = []
        for worker, update in updates.items():
            path = self._store.updates / update.file
            try:
                require_fit(path, self.captured.returned, update.sha256)
            except (OSError, ProtocolError):
                lost.append(worker)
        return tuple(lost)

    def _require_test_shape(self) -> None:
        if self._test_set is None:
            return
        found, wanted = self._test_set[0].shape[1:], self.task.sample_shape
        if found != wanted:
            raise RefusedError(
                f"the test set has samples of shape {found}, the task {self.task.name} takes {wanted}: "
                "put the one that belongs to the task into --data-dir"
            )

    def _require_goal(self) -> None:
        """Check that the metric of `stop_at` will be there."""
        if self._plan.stop_at is None:
            return
        names = ["loss"]
        if classes := self._class_names():
            of_class = [f"{kind}_{c}" for kind in ("recall", "precision", "f1") for c in classes]
            names += ["accuracy", "macro_f1", *of_class]
        known = names if self._test_set is not None else []
        known = known + [f"holdout_{name}" for name in names if self._plan.holdout]
        if self._plan.stop_at[0] not in known:
            raise RefusedError(
                f"--stop-at names {self._plan.stop_at[0]!r}; this run has "
                + (", ".join(known) or "no test set: give --holdout for holdout_... metrics")
            )

    def aggregate(
        self, round_number: int, base: ModelOnDisk, updates: Sequence[CountedUpdate]
    ) -> ModelOnDisk:
        """Average the round's updates into its checkpoint file, which is whole on disk then.

        Raises:
            OSError: the disk refuses.
        """
        target = self._store.checkpoint_path(round_number)
        weighted = [
            WeightedUpdate(update.worker, update.weight, self._store.updates / update.file)
            for update in updates
        ]
        return _on_disk(target, federated_average(target, ModelFile.open(base.path), weighted))

    def publish(self, model: ModelOnDisk) -> None:
        """Make a complete round's model the run's `model.safetensors`, under the module's own names.

        Raises:
            OSError: the disk refuses.
        """
        path = self._store.model_path
        names = self._model.state_names
        if names == {name: name for name in self._model.state}:
            # The checkpoint has these very names: one file serves as both.
            temporary = path.with_name(path.name + ".partial")
            temporary.unlink(missing_ok=True)
            try:
                temporary.hardlink_to(model.path)
            except FileNotFoundError:
                raise
            except OSError:
                # Some file systems have no links.
                shutil.copyfile(model.path, temporary)
            put_in_place(temporary, path)
        else:
            _write_state_dict(path, self._state_dict(model))

    def save(self, model: ModelOnDisk) -> Path:
        """Write the model where the plan wants it, if it does.

        Returns:
            Where the model is.

        Raises:
            OSError: the disk refuses.
        """
        if not self._store.model_path.exists():
            self.publish(model)
        if self._plan.save_model is None:
            return self._store.model_path
        path = _target(self._plan.save_model)
        if not _may_be_replaced(path):
            raise OSError(f"{path} is no regular file any more")
        _write_state_dict(path, self._state_dict(model))
        return path

    def _state_dict(self, model: ModelOnDisk) -> dict[str, Tensor]:
        return self._model.state_dict(ModelFile.open(model.path).tensors())

    def evaluate(self, round_number: int, model: ModelOnDisk) -> events.Evaluated:
        """A model on the desktop's test set.

        Without metrics where there is no test set: the workers' holdouts may serve then.
        """
        if self._test_set is None:
            return events.Evaluated(round=round_number, num_examples=0, metrics={})
        x, y = (torch.from_numpy(array) for array in self._test_set)
        state = {
            name: tensor.to(self._device)
            for name, tensor in ModelFile.open(model.path).tensors().items()
        }
        names = {spec.name for spec in self._graphs.parameters}
        found = evaluate(
            self._evaluation,
            {name: tensor for name, tensor in state.items() if name in names},
            {name: tensor for name, tensor in state.items() if name not in names},
            x,
            y,
            batch_size=self._plan.test_batch_size,
            num_classes=self.task.num_classes,
        )
        return self.assess(round_number, found)

    def assess(
        self, round_number: int, found: Evaluation | Evaluated, worker: str | None = None
    ) -> events.Evaluated:
        """What an evaluation says, by name.

        `loss`; with classes `accuracy`, `macro_f1`, and of each class `recall_CLASS`,
        `precision_CLASS` and `f1_CLASS`.
        """
        metrics: dict[str, Metric] = {"loss": found.loss}
        confusion: Confusion | None = None
        if found.confusion is not None:
            names = self._class_names()
            scored = [names.index(name) for name in self.task.scored_classes or names]
            if (m := class_metrics(found.confusion, scored)) is not None:
                metrics |= {"accuracy": m.accuracy, "macro_f1": m.macro_f1}
                for kind, values in (
                    ("recall", m.recall),
                    ("precision", m.precision),
                    ("f1", m.f1),
                ):
                    metrics |= {f"{kind}_{c}": v for c, v in zip(names, values, strict=True)}
            if len(names) <= _MAX_CONFUSION_CLASSES:
                confusion = dict(zip(names, found.confusion, strict=True))
        return events.Evaluated(
            round=round_number,
            num_examples=found.num_examples,
            metrics=metrics,
            confusion=confusion,
            worker=worker,
        )

    def _class_names(self) -> tuple[str, ...]:
        return self.task.class_names or tuple(map(str, range(self.task.num_classes or 0)))


def _keep_graphs(path: Path, content: bytes, task: str) -> None:
    try:
        require_regular(path)
        kept = encode_graphs(decode_graphs(path.read_bytes()))
    except (FileNotFoundError, GraphError):
        # There are none yet, or a disk has damaged them: only whole ones tell a change of the task.
        temporary = path.with_name(path.name + ".partial")
        temporary.write_bytes(content)
        put_in_place(temporary, path)
        return
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    if kept != content:
        raise RefusedError(
            f"the task {task} is not what it was when the run began (or torch is not): its graphs "
            f"differ from {path}; bring it back, or start a new run with --init-from"
        )


def _target(save_model: str) -> Path:
    return Path(save_model).expanduser().absolute()


def _require_target(save_model: str) -> None:
    """Raises RefusedError: no model could be written there."""
    path = _target(save_model)
    if not path.parent.is_dir():
        raise RefusedError(
            f"--save-model names {save_model}, but there is no folder {path.parent}: make it first"
        )
    if not _may_be_replaced(path):
        raise RefusedError(
            f"--save-model names {save_model}, which is no regular file: give the name of a file"
        )


def _may_be_replaced(path: Path) -> bool:
    """A model takes the place of what has its name: that must be no device, and not one's folder."""
    # /dev/stdout is a file where the output goes to one; /dev/shm is for files.
    if path.is_relative_to("/dev") and not path.is_relative_to("/dev/shm"):
        return False
    return path.is_file() or not path.exists()


def _write_state_dict(path: Path, state: Mapping[str, Tensor]) -> None:
    """As the module's `load_state_dict` takes it: safetensors, or pickled by torch for `.pt`."""
    if path.suffix in {".pt", ".pth"}:
        temporary = path.with_name(path.name + ".partial")
        try:
            torch.save(dict(state), temporary)
        except RuntimeError as error:  # what torch makes of a disk that refuses
            raise OSError(str(error)) from error
        put_in_place(temporary, path)
        return
    specs = {key: spec_of(tensor) for key, tensor in state.items()}
    write_model(path, specs, lambda key: [state[key]])


def _on_disk(path: Path, written: WrittenModel) -> ModelOnDisk:
    return ModelOnDisk(path, written.model_id, written.sha256, written.size)


def _initial_state(path: Path, model: CapturedModel) -> dict[str, Tensor]:
    """The tensors of an earlier run's model, by their names in this run's."""
    expected = {key: spec_of(model.state[name]) for key, name in model.state_names.items()}
    try:
        found = ModelFile.open(path)
        require_specs(found.table.specs, expected)
    except (OSError, TensorError) as error:
        raise RefusedError(
            f"cannot start from {path}: {error}; give the model.safetensors of a run of this task"
        ) from error
    return {name: found.tensor(key) for key, name in model.state_names.items()}


def _device(plan: Plan) -> torch.device:
    if plan.cuda and not torch.cuda.is_available():
        raise RefusedError("--cuda was given, but torch finds no CUDA device; leave it out")
    return torch.device("cuda" if plan.cuda else "cpu")
