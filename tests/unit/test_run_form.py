"""The form of a new run: what is typed makes a plan, what is wrong is named, and a plan can be shown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import fields

from fedconsole import paths
from fedconsole.config import load, read_value
from fedconsole.coordinator.plan import EpochEnd, OnQuorumLoss, Optimizer, Plan, Weighting
from fedconsole.tui import lang
from fedconsole.tui.run_form import DATASETS, FIELDS, FormState, estimate
from tests.support.places import redirect

ADDRESSES = ("pi:10002", "10.0.0.2:9", "[fe80::1%eth0]:10002")
UNSHOWN = {"workers", "nesterov", "cuda"}
"""Options that are chosen elsewhere or have no line in the form."""
NEVER_WRONG = {"task", "init_from", "save_model", "data_dir"}
"""Only the engine can say what is wrong with them."""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(paths, "SYSTEM_CONFIG", tmp_path / "etc.toml")
    return redirect(tmp_path, monkeypatch)


def state(workers: tuple[str, ...] = (), **texts: str) -> FormState:
    return FormState(texts, workers)


# What plans there are

paths_ = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda text: text == text.strip()
)
positive = st.floats(1e-12, 1e6)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    workers = tuple(draw(st.lists(st.sampled_from(ADDRESSES), unique=True)))
    virtual = draw(st.integers(0 if workers else 1, 9))
    cohort_size = draw(st.none() | st.integers(1, len(workers) + virtual))
    most = cohort_size or len(workers) + virtual
    task = draw(st.sampled_from(["digits", "mnist", "ecg", "ecg-rr", "own task.py"]))
    # Of these tasks sgd is not shown, as it is the plan's default.
    of_task = [Optimizer.ADAM, Optimizer.ADAMW] if task in ("ecg", "ecg-rr") else list(Optimizer)
    optimizer = draw(st.sampled_from(of_task))
    takes_momentum = optimizer is Optimizer.SGD
    momentum = draw(st.floats(0, 1, exclude_max=True)) if takes_momentum else 0.0
    count = st.integers(1, 10_000)
    return Plan(
        task=task,
        workers=workers,
        virtual=virtual,
        **{draw(st.sampled_from(["rounds", "epochs"])): draw(count)},
        **{draw(st.sampled_from(["federate_after_n_batches", "local_epochs"])): draw(count)},
        batch_size=draw(count),
        test_batch_size=draw(count),
        lr=draw(positive),
        optimizer=optimizer,
        momentum=momentum,
        weight_decay=draw(st.floats(0, 1e3)),
        nesterov=momentum > 0 and draw(st.booleans()),
        holdout=draw(st.floats(0, 1, exclude_max=True)),
        weighting=draw(st.sampled_from(Weighting)),
        epoch_end=draw(st.sampled_from(EpochEnd)),
        cohort_size=cohort_size,
        min_updates=draw(st.none() | st.integers(1, most)),
        round_timeout_s=draw(positive),
        on_quorum_loss=draw(st.sampled_from(OnQuorumLoss)),
        quorum_timeout_s=draw(positive),
        eval_every=draw(st.one_of(st.sampled_from(["round", "epoch"]), count)),
        stop_at=draw(
            st.none() | st.tuples(st.sampled_from(["accuracy", "loss"]), st.floats(-1e300, 1e300)),
        ),
        init_from=draw(st.none() | paths_),
        save_model=draw(st.none() | paths_),
        seed=draw(st.integers(0, 2**63 - 1)),
        cuda=draw(st.booleans()),
        data_dir=draw(st.none() | paths_),
    )


# From texts to a plan and back


def test_an_empty_form_with_a_worker_is_the_default_plan() -> None:
    assert state(ADDRESSES).read() == (Plan(workers=ADDRESSES), {})
    assert state(virtual=" 3 ", rounds="", lr="  ").read() == (Plan(virtual=3), {})


def test_what_is_typed_is_planned() -> None:
    typed = state(
        ("pi:10002",),
        task=" own.py",
        rounds="5",
        local_epochs="1",
        lr="1e-3",
        optimizer="adamw",
        round_timeout_s="30",
        eval_every="2",
        stop_at="accuracy=0.95",
        on_quorum_loss="fail",
    )
    plan = Plan(
        task="own.py",
        workers=("pi:10002",),
        rounds=5,
        local_epochs=1,
        lr=0.001,
        optimizer=Optimizer.ADAMW,
        round_timeout_s=30.0,
        eval_every=2,
        stop_at=("accuracy", 0.95),
        on_quorum_loss=OnQuorumLoss.FAIL,
    )
    assert typed.read() == (plan, {})


def test_a_task_brings_its_optimizer_and_learning_rate_unless_one_is_typed() -> None:
    assert state(task="ecg", virtual="1").read()[0] == load({"task": "ecg", "virtual": 1}).plan()
    lr, own = state(task="ecg", virtual="1", lr="0.5"), state(task="ecg", virtual="1")
    own.texts["optimizer"] = "sgd"
    assert lr.read()[0] == Plan(task="ecg", virtual=1, optimizer=Optimizer.ADAM, lr=0.5)
    assert own.read()[0] == Plan(task="ecg", virtual=1)


@given(plans())
@settings(max_examples=60, deadline=None)
def test_a_plan_that_is_shown_is_read_as_the_same_plan(plan: Plan) -> None:
    form = FormState({"rounds": "left over", "lr": "x"}, ("old:1",))
    form.fill(plan)
    assert form.read() == (plan, {})


def test_a_plan_is_shown_without_its_defaults() -> None:
    form = FormState()
    form.fill(Plan(workers=ADDRESSES, rounds=10, lr=0.001, stop_at=("loss", 0.5)))
    texts = {"task": "digits", "rounds": "10", "lr": "0.001", "stop_at": "loss=0.5"}
    assert form == FormState(texts, ADDRESSES)


def test_values_from_files_are_shown_and_what_the_form_has_no_line_for_is_kept() -> None:
    form = state(lr="1")
    form.fill_values({"virtual": 2, "cuda": True, "momentum": 0.9, "nesterov": True})
    assert form.texts == {"virtual": "2", "momentum": "0.9"}
    assert form.read() == (Plan(virtual=2, cuda=True, momentum=0.9, nesterov=True), {})


# What is wrong

WRONG = [
    ("rounds", "many", "rounds is 'many': "),
    ("rounds", "0", "rounds is 0: expected 1 or more"),
    ("epochs", "1.5", "epochs is '1.5': "),
    ("epochs", "9" * 23, f"epochs is {'9' * 23}: expected at most 1000000000"),
    ("federate_after_n_batches", "-1", "federate_after_n_batches is -1: expected 1 or more"),
    ("local_epochs", "0", "local_epochs is 0: expected 1 or more"),
    ("batch_size", "0", "batch_size is 0: a batch has at least 1 example"),
    ("lr", "fast", "lr is 'fast': "),
    ("lr", "0", "lr is 0.0: expected a finite learning rate above 0"),
    ("lr", "inf", "lr is inf: expected a finite learning rate above 0"),
    ("optimizer", "sgdd", "optimizer is 'sgdd': "),
    ("momentum", "1", "momentum is 1.0: expected 0 or more, and below 1"),
    ("seed", "-1", "seed is -1: expected 0 to 2**63 - 1"),
    ("virtual", "10001", "virtual is 10001: expected 0 to 10000"),
    ("min_updates", "3", "min_updates is 3: no round could reach it"),
    ("cohort_size", "3", "cohort_size is 3: expected 1 to 2"),
    ("round_timeout_s", "0", "round_timeout_s is 0.0: a run must end"),
    ("round_timeout_s", "soon", "round_timeout is 'soon': "),
    ("quorum_timeout_s", "nan", "quorum_timeout_s is nan: a run must end"),
    ("on_quorum_loss", "cry", "on_quorum_loss is 'cry': "),
    ("weighting", "mean", "weighting is 'mean': "),
    ("epoch_end", "last", "epoch_end is 'last': "),
    ("eval_every", "never", "eval_every is 'never': expected round, epoch or a number of rounds"),
    ("eval_every", "0", "eval_every is 0: expected 'round', 'epoch' or a number of rounds"),
    ("stop_at", "accuracy", "stop_at is 'accuracy': expected METRIC=VALUE"),
    ("stop_at", "=1", "stop_at is '=1': expected METRIC=VALUE"),
    ("stop_at", "loss=nan", "stop_at loss is nan: expected a finite value"),
    ("holdout", "1", "holdout is 1.0: expected a share of the examples"),
    ("weight_decay", "-1", "weight_decay is -1.0: expected a finite value, 0 or more"),
    ("test_batch_size", "0", "test_batch_size is 0: a batch has at least 1 example"),
]


@pytest.mark.parametrize(("name", "text", "problem"), WRONG)
def test_each_wrong_value_names_its_field_and_stays(name: str, text: str, problem: str) -> None:
    texts = {"virtual": "2", "data_dir": "here"} | {name: text}
    form = state((), **texts)
    plan, problems = form.read()
    assert (plan, list(problems)) == (None, [name])
    assert problems[name].startswith(problem)
    assert form == FormState(texts)


NO_FIELD_ALONE = [
    FormState(),
    state(("pi:1", "pi:1")),
    state(("pi:1",), rounds="1", epochs="1"),
    state(("pi:1",), rounds="1e999"),
    state(("pi:1",), momentum="0.5", optimizer="adam"),
    state(("pi:1",), task="nope"),
    FormState({}, ("pi:1",), {"nesterov": True}),
]


@pytest.mark.parametrize(
    "form",
    [*NO_FIELD_ALONE, *(state((), **{"virtual": "2", name: text}) for name, text, _ in WRONG)],
)
def test_every_problem_is_told_in_korean(form: FormState) -> None:
    _plan, problems = form.read()
    assert problems
    lang.use("ko")
    try:
        told = {problem: lang.retold(problem) for problem in problems.values()}
    finally:
        lang.use("en")
    assert all(re.search("[가-힣]", korean) for korean in told.values()), told
    assert not any("expected" in korean or " is " in korean for korean in told.values()), told
    assert all(lang.retold(problem) == problem for problem in told)


def test_every_field_that_can_be_wrong_was_tried() -> None:
    assert {name for name, _, _ in WRONG} == {spec.name for spec in FIELDS} - NEVER_WRONG


def test_all_wrong_values_are_named_at_once() -> None:
    form = state(("pi:1", "pi:1"), rounds="0", epochs="2", lr="x", momentum="2", optimizer="adam")
    plan, problems = form.read()
    assert plan is None
    assert problems.keys() == {"rounds", "lr", "momentum", ""}
    assert problems["rounds"] == "rounds is 0 and epochs is 2: give one of them"
    assert problems[""] == "workers named twice: pi:1; name each once"


def test_without_workers_no_field_alone_is_wrong() -> None:
    plan, problems = FormState().read()
    assert (plan, list(problems)) == (None, [""])
    assert problems[""].startswith("there are no workers")


# The form itself


def test_every_option_of_a_plan_has_a_line_or_is_known_to_have_none() -> None:
    names = [spec.name for spec in FIELDS]
    assert sorted([*names, *UNSHOWN]) == sorted(field.name for field in fields(Plan))


def test_a_hint_that_could_be_typed_is_the_default() -> None:
    default = Plan(virtual=1)
    hints = {spec.name: spec.hint for spec in FIELDS if spec.hint.isalnum() or "." in spec.hint}
    words = ("min_updates", "cohort_size", "rounds", "virtual", *NEVER_WRONG, "stop_at")
    for name in hints.keys() - set(words):
        assert (name, read_value(name.removesuffix("_s"), hints[name])) == (
            name,
            getattr(default, name),
        )
    assert hints.keys() >= {"epochs", "lr", "optimizer", "quorum_timeout_s", "epoch_end", "seed"}


@pytest.mark.parametrize("spec", [spec for spec in FIELDS if spec.choices], ids=lambda s: s.name)
def test_all_choices_of_a_field_are_offered_its_default_first(spec: Any) -> None:
    chosen = [state((), virtual="1", **{spec.name: choice}).read()[0] for choice in spec.choices]
    values = [getattr(plan, spec.name) for plan in chosen]
    kind: Any = type(values[0])
    assert values == list(kind)
    assert values[0] == getattr(Plan(virtual=1), spec.name)


def test_the_datasets_of_the_built_in_tasks_are_those_that_the_engine_knows() -> None:
    # torch, which tasks import, takes seconds.
    from fedconsole.learning.tasks.loading import BUILT_IN, load_task

    assert {name: load_task(name).dataset for name in BUILT_IN} == DATASETS


# How long it will take

TRIALS: Final[list[dict[str, Any]]] = [
    {"worker": "alice", "batch_seconds": 0.5, "num_examples": 100},
    {"worker": "bob", "batch_seconds": 2.0, "num_examples": 640},
    {"worker": "charlie", "reason": "no dataset"},
    {"worker": "dave", "batch_seconds": None, "num_examples": None},
]


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        ({"rounds": 3}, "05:00"),
        ({"rounds": 3, "federate_after_n_batches": 10}, "01:00"),
        ({"rounds": 3, "local_epochs": 2}, "02:00"),
        ({"epochs": 6}, "02:00"),
        ({}, "00:40"),
        ({"epochs": 6, "local_epochs": 2}, "02:00"),
        ({"epochs": 1, "batch_size": 600}, "00:04"),
    ],
)
def test_training_takes_as_long_as_the_slowest_worker(
    length: dict[str, Any], expected: str
) -> None:
    assert estimate(Plan(virtual=4, **length), TRIALS) == expected


def test_less_than_a_second_is_told_as_one() -> None:
    quick = {"batch_seconds": 1e-6, "num_examples": 1}
    assert estimate(Plan(virtual=1, rounds=1), [quick]) == "00:01"


@pytest.mark.parametrize("trials", [[], TRIALS[2:], [{"batch_seconds": 1.0}]])
def test_without_a_trial_nobody_knows_how_long_it_takes(trials: list[dict[str, Any]]) -> None:
    assert estimate(Plan(virtual=1), trials) is None
