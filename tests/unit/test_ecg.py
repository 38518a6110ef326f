from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from fedconsole.coordinator import events
from fedconsole.coordinator.plan import Plan
from fedconsole.engine.store import RunStore
from fedconsole.engine.work import Work
from fedconsole.errors import RefusedError
from fedconsole.learning.capture import capture
from fedconsole.learning.tasks import ecg
from fedconsole.learning.tasks.task import Task, TaskError
from pi_daemon.ecg.beats import NUM_SAMPLES
from pi_daemon.learning.evaluation import Evaluation
from pi_daemon.learning.graph import CompiledGraph
from pi_daemon.learning.optimizers import make_optimizer
from pi_daemon.protocol.graphs import OptimizerSpec

torch.set_num_threads(1)

DATA = Path(os.environ.get("FEDCONSOLE_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_beats = pytest.mark.skipif(
    not (DATA / "mitbih_beats.npz").exists(), reason=f"no mitbih_beats.npz in {DATA}"
)
TASKS = pytest.mark.parametrize("task", [ecg.task, ecg.task_with_intervals], ids=lambda t: t.name)


@TASKS
def test_a_captured_task_trains_to_the_last_bit_as_its_module_does(task: Task) -> None:
    captured = capture(task, batch_size=4, seed=3)
    torch.manual_seed(3)
    net = task.build()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.001)
    names = [parameter.name for parameter in captured.graphs.parameters]
    state = {name: captured.state[name].clone().requires_grad_() for name in names}
    constants = {name: t for name, t in captured.state.items() if name not in state}
    ours = make_optimizer(OptimizerSpec("adam", lr=0.001), state.values())
    program = CompiledGraph(captured.graphs.training)
    generator = torch.Generator().manual_seed(1)
    for size in (16, 7):
        x = torch.randint(256, (size, *task.sample_shape), generator=generator, dtype=torch.uint8)
        y = torch.randint(5, (size,), generator=generator)
        optimizer.zero_grad()
        expected = task.loss(net(task.prepare(x)), y)
        expected.backward()
        optimizer.step()
        loss, _ = program.run(state, constants, x, y)
        loss.backward()
        ours.step()
        assert torch.equal(loss, expected)
    by_key = {key: state[name] for key, name in captured.state_names.items()}
    assert by_key.keys() == net.state_dict().keys()
    assert all(torch.equal(by_key[key], tensor) for key, tensor in net.state_dict().items())


def test_a_rare_class_weighs_the_root_of_its_rarity() -> None:
    roots = [(51_021 / count) ** 0.5 for count in (45_866, 944, 3_788, 415, 8)]
    assert ecg.CLASS_WEIGHTS.tolist() == pytest.approx(roots)


def test_intervals_become_logarithms_of_their_ratio_to_the_mean() -> None:
    beat = [255, 51] + [0] * 185
    samples = torch.tensor([[*beat, 40, 120, 80], [*beat, 0, 0, 0]], dtype=torch.uint8)
    prepared = ecg.prepare_with_intervals(samples)
    shape = [1.0, 0.2] + [0.0] * 185
    assert prepared.tolist() == [
        pytest.approx([*shape, 10 * np.log(1 / 2), 10 * np.log(3 / 2)]),
        pytest.approx([*shape, 0.0, 0.0]),
    ]


def write_beats(path: Path) -> None:
    """Three beats of each of four records, one second apart: `x` says which record and beat."""
    records = np.repeat(np.array([101, 100, 202, 234], np.int16), 3)
    beats = np.zeros((12, NUM_SAMPLES), np.uint8)
    beats[:, 0], beats[:, 1] = records % 256, np.tile([1, 2, 3], 4)
    sample = np.tile(np.array([360, 720, 1080], np.int32), 4)
    y = np.tile(np.array([0, 1, 2], np.uint8), 4)
    np.savez(path, x=beats, y=y, record=records, sample=sample)


def test_the_test_set_is_the_beats_of_the_test_records_without_202(tmp_path: Path) -> None:
    write_beats(tmp_path / "mitbih_beats.npz")
    expected = [[100, 1], [100, 2], [100, 3], [234, 1], [234, 2], [234, 3]]
    for task, end in ((ecg.task, []), (ecg.task_with_intervals, [100, 100, 100])):
        examples = task.test_data(tmp_path)
        assert examples is not None
        x, y = examples
        assert (x.dtype.name, x.shape[1:]) == (task.sample_dtype, task.sample_shape)
        assert x[:, [0, 1, *range(NUM_SAMPLES, x.shape[1])]].tolist() == [
            row + end for row in expected
        ]
        assert (y.dtype.name, y.tolist()) == ("int64", [0, 1, 2, 0, 1, 2])


def test_a_test_set_of_ones_own_goes_before(tmp_path: Path) -> None:
    write_beats(tmp_path / "mitbih_beats.npz")
    np.savez(tmp_path / "ecg-test.npz", x=np.ones((2, 187), np.uint8), y=np.array([4, 0], np.uint8))
    examples = ecg.task.test_data(tmp_path)
    assert examples is not None
    assert (examples[0].tolist(), examples[1].tolist()) == ([[1] * 187] * 2, [4, 0])


def test_without_a_file_there_is_no_test_set_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    assert ecg.task.test_data(None) is None
    assert ecg.task.test_data(tmp_path) is None
    np.savez(tmp_path / "ecg-test.npz", x=np.ones((2, 187), np.uint8))
    with pytest.raises(
        TaskError, match=r"ecg-test\.npz cannot be read: .*expected arrays x and y$"
    ):
        ecg.task.test_data(tmp_path)
    (tmp_path / "ecg-rr-test.npz").write_bytes(b"PK\3\4 no archive")
    with pytest.raises(TaskError, match=r"ecg-rr-test\.npz cannot be read: "):
        ecg.task_with_intervals.test_data(tmp_path)


@needs_beats
def test_the_constants_are_those_of_the_database() -> None:
    _, y = ecg.beats_of(DATA / "mitbih_beats.npz", ecg.TRAINING_RECORDS, with_intervals=False)
    assert tuple(np.bincount(y).tolist()) == ecg.TRAINING_COUNTS
    examples = ecg.task_with_intervals.test_data(DATA)
    assert examples is not None
    assert np.bincount(examples[1]).tolist() == [42_198, 1_782, 3_202, 387, 7]


def test_an_evaluation_has_every_metric_by_class_and_leaves_q_out_of_macro_f1(
    tmp_path: Path,
) -> None:
    store = RunStore(tmp_path / "run")
    try:
        work = Work(Plan(task="ecg", virtual=1), store)
        found = work.assess(
            7,
            Evaluation(
                loss=0.5,
                num_examples=14,
                confusion=(
                    *((6, 1, 1, 0, 0), (1, 1, 0, 0, 0), (0, 0, 2, 0, 0)),
                    *((0, 0, 0, 1, 0), (1, 0, 0, 0, 0)),
                ),
            ),
        )
    finally:
        store.close()
    f1 = {"N": 12 / 16, "S": 2 / 4, "V": 4 / 5, "F": 1.0}
    recall, precision = (6 / 8, 1 / 2, 1.0, 1.0, 0.0), (6 / 8, 1 / 2, 2 / 3, 1.0, None)
    assert found == events.Evaluated(
        round=7,
        num_examples=14,
        metrics={"loss": 0.5, "accuracy": 10 / 14, "macro_f1": sum(f1.values()) / 4}
        | {f"recall_{name}": value for name, value in zip("NSVFQ", recall, strict=True)}
        | {f"precision_{name}": value for name, value in zip("NSVFQ", precision, strict=True)}
        | {f"f1_{name}": value for name, value in (f1 | {"Q": 0.0}).items()},
        confusion={
            "N": (6, 1, 1, 0, 0),
            "S": (1, 1, 0, 0, 0),
            "V": (0, 0, 2, 0, 0),
            "F": (0, 0, 0, 1, 0),
            "Q": (1, 0, 0, 0, 0),
        },
    )


def test_a_run_may_stop_at_any_metric_of_a_class_and_at_no_other(tmp_path: Path) -> None:
    write_beats(tmp_path / "mitbih_beats.npz")
    store = RunStore(tmp_path / "run")
    plan = Plan(task="ecg", virtual=1, data_dir=str(tmp_path), stop_at=("f1_X", 0.4))
    with pytest.raises(RefusedError) as caught:
        Work(plan, store)
    store.close()
    assert str(caught.value) == (
        "--stop-at names 'f1_X'; this run has loss, accuracy, macro_f1, "
        "recall_N, recall_S, recall_V, recall_F, recall_Q, "
        "precision_N, precision_S, precision_V, precision_F, precision_Q, "
        "f1_N, f1_S, f1_V, f1_F, f1_Q"
    )


def test_the_test_set_of_the_other_task_is_refused_before_a_round(tmp_path: Path) -> None:
    np.savez(tmp_path / "ecg-test.npz", x=np.zeros((6, 190), np.uint8), y=np.arange(6) % 5)
    plan = Plan(task="ecg", virtual=1, data_dir=str(tmp_path))
    store = RunStore(tmp_path / "run")
    try:
        with pytest.raises(RefusedError, match=r"shape \(190,\), the task ecg takes \(187,\)"):
            Work(plan, store)
    finally:
        store.close()
