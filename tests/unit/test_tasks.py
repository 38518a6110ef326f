from __future__ import annotations

import gzip
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fedconsole.learning.capture import capture
from fedconsole.learning.tasks import digits, ecg, mnist
from fedconsole.learning.tasks.loading import load_task
from fedconsole.learning.tasks.task import Task, TaskError
from pi_daemon.learning.digits import load_digits_split
from pi_daemon.learning.graph import CompiledGraph
from pi_daemon.learning.idx import IdxError, read_idx, read_idx_pair
from pi_daemon.learning.optimizers import make_optimizer
from pi_daemon.protocol.graphs import OptimizerSpec

torch.set_num_threads(1)

DATA = Path(os.environ.get("FEDCONSOLE_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_mnist = pytest.mark.skipif(not (DATA / "mnist").is_dir(), reason=f"no MNIST in {DATA}")

TASK_FILE = """
from torch import nn
import torch.nn.functional as F
from fedconsole.learning.tasks.task import Task

task = Task(
    name="beats",
    dataset="beats",
    sample_shape=(187,),
    sample_dtype="uint8",
    num_classes=5,
    build=lambda: nn.Linear(187, 5),
    prepare=lambda x: x / 255,
    loss=F.cross_entropy,
)
"""


def test_the_built_in_tasks_load_by_name() -> None:
    found = [load_task(name) for name in ("digits", "mnist", "ecg", "ecg-rr")]
    assert found == [digits.task, mnist.task, ecg.task, ecg.task_with_intervals]


def test_a_file_of_the_operators_own_can_be_captured(tmp_path: Path) -> None:
    (tmp_path / "beats.py").write_text(TASK_FILE)
    task = load_task(str(tmp_path / "beats.py"))
    assert (task.name, task.test_data(None)) == ("beats", None)
    assert capture(task, batch_size=4).graphs.sample.shape == (187,)


def test_a_file_may_use_dataclasses_and_a_helper_beside_it(tmp_path: Path) -> None:
    (tmp_path / "a_helper_of_the_beats.py").write_text("NUM_CLASSES = 5")
    lines = [
        "from __future__ import annotations",
        "from dataclasses import dataclass",
        "from a_helper_of_the_beats import NUM_CLASSES",
        "@dataclass",
        "class Plan:",
        "    size: int = NUM_CLASSES",
    ]
    (tmp_path / "task.py").write_text("\n".join(lines) + TASK_FILE)
    assert load_task(str(tmp_path / "task.py")).num_classes == 5


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("task = 1 / 0", "{} failed: ZeroDivisionError: division by zero; {}:1: task = 1 / 0"),
        ("x = 1\ntask = (", "{} failed: SyntaxError: '(' was never closed; {}:2: task = ("),
        ("import torhc", "{} failed: ModuleNotFoundError: No module named 'torhc'; {}:1: import torhc"),
        ("raise SystemExit('no')", "{} failed: SystemExit: no; {}:1: raise SystemExit('no')"),
        ("x = 1", "{} defines nothing called `task`, expected `task = Task(...)` at its end"),
        ("task = 5", "{} defines a int called `task`, expected `task = Task(...)` at its end"),
        (
            TASK_FILE.replace('"uint8"', '"unit8"'),
            "{} failed: TaskError: sample_dtype is 'unit8', expected one of bool, float16, float32, "
            "float64, int16, int32, int64, int8, uint8; {}:6: task = Task(",
        ),
    ],
)  # fmt: skip
def test_a_file_that_fails_is_described_with_its_own_line(
    tmp_path: Path, content: str, reason: str
) -> None:
    path = tmp_path / "broken.py"
    path.write_text(content)
    with pytest.raises(TaskError) as caught:
        load_task(str(path))
    assert str(caught.value) == reason.replace("{}", str(path))


def test_an_unknown_task_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(TaskError, match=r"^there is no task 'digit': did you mean digits\?"):
        load_task("digit")
    with pytest.raises(
        TaskError, match=r"^there is no task 'x': built in are digits, mnist, ecg, ecg-rr;"
    ):
        load_task("x")
    with pytest.raises(TaskError, match=r"^missing\.py is not there: expected a Python file"):
        load_task("missing.py")


def test_a_task_that_contradicts_itself_is_refused() -> None:
    def make(**changes: object) -> Task:
        fields = {name: getattr(digits.task, name) for name in Task.__dataclass_fields__}
        return Task(**(fields | changes))

    assert make() == digits.task
    for changes, reason in (
        ({"num_classes": 1}, "num_classes is 1, expected 2 or more, or None"),
        ({"class_names": ("a",)}, "1 class_names for num_classes=10"),
        ({"scored_classes": ("1", "x")}, "scored_classes has 'x', which is not among class_names"),
        ({"sample_shape": (8, 0)}, "sample_shape is (8, 0), expected sizes of 1 or more"),
    ):
        with pytest.raises(TaskError) as caught:
            make(**changes)
        assert str(caught.value) == reason


def test_every_fifth_digit_is_a_test_image() -> None:
    split = load_digits_split()
    assert [(a.dtype.name, a.shape) for a in split] == [
        ("uint8", (1437, 8, 8)),
        ("int64", (1437,)),
        ("uint8", (360, 8, 8)),
        ("int64", (360,)),
    ]
    assert (split.x_train.max(), split.y_test[:5].tolist()) == (16, [0, 5, 0, 5, 0])


_DIGITS = """
import sys
import numpy as np
from pi_daemon.learning.digits import load_digits_split
x_train, y_train, x_test, y_test = load_digits_split()
assert "sklearn" not in sys.modules
from sklearn.datasets import load_digits
digits = load_digits()
is_test = np.arange(len(digits.target)) % 5 == 0
assert (x_train == digits.images[~is_test]).all() and (x_test == digits.images[is_test]).all()
assert (y_train == digits.target[~is_test]).all() and (y_test == digits.target[is_test]).all()
"""


def test_the_digits_are_scikit_learns_and_cost_none_of_its_imports() -> None:
    subprocess.run([sys.executable, "-c", _DIGITS], check=True)


def test_three_workers_learn_the_digits_to_95_percent_in_a_few_rounds() -> None:
    captured = capture(digits.task, batch_size=64)
    split = load_digits_split()
    x, y = torch.from_numpy(split.x_train), torch.from_numpy(split.y_train)
    test = torch.from_numpy(split.x_test), torch.from_numpy(split.y_test)
    training, evaluation = map(
        CompiledGraph, (captured.graphs.training, captured.graphs.evaluation)
    )
    state = captured.state
    for _ in range(6):
        models = []
        for worker in range(3):
            model = {name: tensor.clone().requires_grad_() for name, tensor in state.items()}
            optimizer = make_optimizer(OptimizerSpec("sgd", lr=0.01), model.values())
            for step in range(24):
                batch = slice(64 * (step % 7), 64 * (step % 7 + 1))
                loss, _ = training.run(model, {}, x[worker::3][batch], y[worker::3][batch])
                loss.backward()
                optimizer.step()
            models.append(model)
        with torch.no_grad():
            state = {name: torch.stack([m[name] for m in models]).mean(0) for name in state}
            _, output = evaluation.run(state, {}, *test)
    assert (output.argmax(1) == test[1]).float().mean() >= 0.95


@needs_mnist
def test_mnists_test_set_is_read_from_the_data_folder() -> None:
    examples = mnist.task.test_data(DATA)
    assert examples is not None
    images, labels = examples
    assert (images.shape, images.dtype.name) == ((10_000, 28, 28), "uint8")
    assert (labels[:5].tolist(), labels.dtype.name) == ([7, 2, 1, 0, 4], "int64")


def test_mnist_is_prepared_as_the_seed_did() -> None:
    images = torch.arange(256, dtype=torch.uint8).repeat(49).reshape(16, 28, 28)
    as_tensor = images.unsqueeze(1).to(torch.float32).div(255)
    mean, deviation = torch.tensor([0.1307]), torch.tensor([0.3081])
    expected = as_tensor.sub_(mean.view(-1, 1, 1)).div_(deviation.view(-1, 1, 1))
    assert torch.equal(mnist.prepare(images), expected)


def test_missing_mnist_says_where_the_files_belong(tmp_path: Path) -> None:
    assert mnist.task.test_data(None) is None
    with pytest.raises(TaskError) as caught:
        mnist.task.test_data(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} has neither t10k-images-idx3-ubyte nor t10k-images-idx3-ubyte.gz. "
        "Put MNIST's four files there, or name their folder with --data-dir"
    )


def idx(*shape: int, dtype: int = 8, content: bytes = b"") -> bytes:
    return bytes([0, 0, dtype, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + content


def test_idx_files_are_read_gzipped_or_not_in_the_machines_byte_order(tmp_path: Path) -> None:
    content = idx(2, 3, dtype=0x0B, content=np.arange(6, dtype=">i2").tobytes())
    (tmp_path / "plain").write_bytes(content)
    (tmp_path / "packed.gz").write_bytes(gzip.compress(content))
    for name in ("plain", "packed.gz"):
        array = read_idx(tmp_path / name)
        assert (array.dtype, array.tolist()) == (np.dtype("=i2"), [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize("name", ["file", "file.gz"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is no IDX file: it starts with nothing"),
        (b"PK\3\4....", "is no IDX file: it starts with 50 4b 03 04"),
        (idx(4)[:-1], "ends within its header"),
        (idx(1 << 31, 1 << 31), "claims 4611686018427387904 bytes of elements"),
        (idx(4, content=b"abcde"), r"has more bytes of elements, expected 4 for \(4,\)"),
    ],
)
def test_damaged_idx_files_are_refused(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(IdxError, match=reason):
        read_idx(path)


def test_a_cut_off_gzip_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(idx(4, content=b"abcd"))[:-9])
    with pytest.raises(IdxError, match="cannot be read"):
        read_idx(path)


def test_images_without_their_labels_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(1, 2, 2, content=b"abcd"))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(2, content=b"ab"))
    with pytest.raises(IdxError, match=r"train images uint8\(1, 2, 2\) and labels \(2,\)"):
        read_idx_pair(tmp_path, "train")
