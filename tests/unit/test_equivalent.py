"""The command line and the file that mean the same as a plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from fedconsole import paths
from fedconsole.config import load
from fedconsole.coordinator.plan import EpochEnd, Optimizer, Plan
from fedconsole.equivalent import command_line, to_toml
from tests.support.command_lines import plan_of
from tests.support.places import redirect
from tests.unit.test_run_form import plans


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(paths, "SYSTEM_CONFIG", tmp_path / "etc.toml")
    return redirect(tmp_path, monkeypatch)


def read(text: str) -> Plan:
    """What `fedconsole run --config` would make of a file."""
    path = Path("run.toml")
    path.write_text(text, encoding="utf-8")
    return load({}, path).plan()


@given(plans())
@settings(max_examples=60, deadline=None)
def test_the_command_line_of_a_plan_makes_the_same_plan(plan: Plan) -> None:
    assert plan_of(command_line(plan)) == plan


@given(plans())
@settings(max_examples=60, deadline=None)
def test_the_file_of_a_plan_makes_the_same_plan(plan: Plan) -> None:
    assert read(to_toml(plan)) == plan


@pytest.mark.parametrize(
    ("plan", "options"),
    [
        (Plan(virtual=3), "--virtual 3"),
        (
            Plan(workers=("pi:1", "[fe80::1%eth0]:9"), rounds=10),
            "--worker pi:1 --worker '[fe80::1%eth0]:9' --rounds 10",
        ),
        (Plan(virtual=1, epochs=2, federate_after_n_batches=50), "--virtual 1"),
        (Plan(virtual=1, local_epochs=3), "--virtual 1 --local-epochs 3"),
        (
            Plan(virtual=1, momentum=0.9, nesterov=True, round_timeout_s=30.0),
            "--virtual 1 --momentum 0.9 --nesterov --round-timeout 30.0",
        ),
        (
            Plan(virtual=1, epoch_end=EpochEnd.FIRST, stop_at=("accuracy", 0.95)),
            "--virtual 1 --epoch-end first --stop-at accuracy=0.95",
        ),
        (
            Plan(task="my task.py", virtual=1, save_model="it's; rm -rf $HOME"),
            """--task 'my task.py' --virtual 1 --save-model 'it'"'"'s; rm -rf $HOME'""",
        ),
        # Without an optimizer these tasks would take their own.
        (Plan(task="ecg", virtual=1), "--task ecg --virtual 1 --optimizer sgd"),
        (
            Plan(task="ecg", virtual=1, lr=0.001, optimizer=Optimizer.ADAM),
            "--task ecg --virtual 1 --lr 0.001 --optimizer adam",
        ),
    ],
)
def test_a_command_line_says_only_what_is_not_the_default(plan: Plan, options: str) -> None:
    assert command_line(plan) == f"fedconsole run {options}"
    assert plan_of(command_line(plan)) == plan


def test_a_file_is_a_table_of_what_is_not_the_default() -> None:
    plan = Plan(
        workers=("pi:1",),
        virtual=2,
        rounds=3,
        lr=1e-9,
        momentum=0.9,
        nesterov=True,
        round_timeout_s=30.0,
        eval_every=2,
        stop_at=("loss", 0.5),
        save_model='a\\b"\n\x7f앨리스.safetensors',
    )
    assert to_toml(plan) == (
        "[run]\n"
        'workers = ["pi:1"]\n'
        "virtual = 2\n"
        "rounds = 3\n"
        "lr = 1e-09\n"
        "momentum = 0.9\n"
        "nesterov = true\n"
        "round-timeout = 30.0\n"
        "eval-every = 2\n"
        'stop-at = "loss=0.5"\n'
        'save-model = "a\\\\b\\"\\n\\u007f앨리스.safetensors"\n'
    )
    assert read(to_toml(plan)) == plan


# Where files or the environment set something, too


@pytest.mark.parametrize(
    ("configured", "plan", "options"),
    [
        # What is set there is said all the same: the line may be typed where it is not set.
        ("virtual = 3\nlr = 0.5", Plan(virtual=3, lr=0.5), "--virtual 3 --lr 0.5"),
        ("data-dir = '/data'", Plan(virtual=1, data_dir="/data"), "--virtual 1 --data-dir /data"),
        ("lr = 0.5", Plan(virtual=1, lr=0.25), "--virtual 1 --lr 0.25"),
        # What is set there and is the default here has to be.
        ("lr = 0.5\nvirtual = 3", Plan(virtual=2), "--virtual 2 --lr 0.01"),
        ("task = 'mnist'", Plan(virtual=1), "--task digits --virtual 1"),
        ("virtual = 3", Plan(workers=("pi:1",)), "--worker pi:1"),
        ("workers = ['pi:1']", Plan(virtual=3), "--virtual 3"),
        ("workers = ['pi:1', 'pj:1']", Plan(workers=("pi:1",)), "--worker pi:1"),
        ("rounds = 3", Plan(virtual=1), "--virtual 1 --epochs 2"),
        ("epochs = 3", Plan(virtual=1, rounds=3), "--virtual 1 --rounds 3"),
        ("local-epochs = 1", Plan(virtual=1), "--virtual 1 --federate-after-n-batches 50"),
        ("rounds = 3\nvirtual = 1", Plan(virtual=1, rounds=3), "--virtual 1 --rounds 3"),
        ("task = 'ecg'", Plan(task="ecg", virtual=1), "--task ecg --virtual 1 --optimizer sgd"),
        (
            "task = 'ecg'",
            Plan(task="ecg", virtual=2, optimizer=Optimizer.ADAM, lr=0.001),
            "--task ecg --virtual 2 --lr 0.001 --optimizer adam",
        ),
        (
            "task = 'ecg'",
            Plan(virtual=2, optimizer=Optimizer.ADAM, lr=0.001),
            "--task digits --virtual 2 --lr 0.001 --optimizer adam",
        ),
        ("virtual = 3", Plan(workers=("a:1",), virtual=3), "--worker a:1 --virtual 3"),
        ("workers = ['a:1']", Plan(workers=("a:1",), virtual=3), "--worker a:1 --virtual 3"),
    ],
)
def test_the_line_makes_the_same_plan_with_and_without_what_is_set_here(
    configured: str, plan: Plan, options: str
) -> None:
    settings = Path("fedconsole.toml")
    settings.write_text(f"[run]\n{configured}\n")
    known: Any = load({}).run_values()
    command = command_line(plan, known)
    assert command == f"fedconsole run {options}".rstrip()
    here = plan_of(command), read(to_toml(plan, known))
    settings.unlink()
    assert (*here, plan_of(command), read(to_toml(plan, known))) == (plan,) * 4


def test_the_line_holds_what_the_environment_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDCONSOLE_DATA_DIR", "/data/of mine")
    settings = load({"virtual": 2})
    command = command_line(settings.plan(), load({}).run_values())
    monkeypatch.delenv("FEDCONSOLE_DATA_DIR")
    assert command == "fedconsole run --virtual 2 --data-dir '/data/of mine'"
    assert plan_of(command) == settings.plan()
