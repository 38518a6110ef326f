"""What the operator typed into the form of a new run, and what is wrong with it. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from fedconsole.config import read_value, task_defaults
from fedconsole.coordinator.plan import NO_WORKERS, Plan, PlanError
from fedconsole.errors import UsageError

DATASETS: Final = {"digits": "digits", "mnist": "mnist", "ecg": "ecg", "ecg-rr": "ecg-rr"}
"""The dataset of each built-in task. Of a file only the engine knows it."""


class Field(NamedTuple):
    """One line of the form; `name` is the plan's."""

    name: str
    label: str
    """English."""
    hint: str
    """Shown while nothing is typed: the default, or what may be typed."""
    choices: tuple[str, ...] = ()
    is_more: bool = False
    """Stands in the part that is folded away."""


FIELDS: Final = (
    Field("task", "task", "digits; or mnist, ecg, ecg-rr, FILE.py"),
    Field("rounds", "rounds", "or epochs"),
    Field("epochs", "epochs", "2"),
    Field("federate_after_n_batches", "batches a round", "50"),
    Field("local_epochs", "or local epochs", "-"),
    Field("batch_size", "batch size", "64"),
    Field("lr", "learning rate", "0.01"),
    Field("optimizer", "optimizer", "sgd", ("sgd", "adam", "adamw")),
    Field("momentum", "momentum", "0"),
    Field("seed", "seed", "1"),
    Field("virtual", "simulate workers", "0"),
    Field("min_updates", "min. updates", "all", is_more=True),
    Field("cohort_size", "workers a round", "all", is_more=True),
    Field("round_timeout_s", "round deadline, s", "600", is_more=True),
    Field("quorum_timeout_s", "quorum wait, s", "600", is_more=True),
    Field("on_quorum_loss", "too few workers", "wait", ("wait", "fewer", "fail"), is_more=True),
    Field("weighting", "weighting", "examples", ("examples", "uniform"), is_more=True),
    Field("epoch_end", "epoch ends with", "all", ("all", "first"), is_more=True),
    Field("eval_every", "test every", "round, epoch or a number", is_more=True),
    Field("stop_at", "stop at", "accuracy=0.95", is_more=True),
    Field("holdout", "holdout", "0", is_more=True),
    Field("weight_decay", "weight decay", "0", is_more=True),
    Field("test_batch_size", "test batch size", "1000", is_more=True),
    Field("init_from", "start from", "model.safetensors", is_more=True),
    Field("save_model", "save model to", "model.safetensors", is_more=True),
    Field("data_dir", "data folder", "-", is_more=True),
)
_NAMES: Final = tuple(item.name for item in FIELDS)
_OWN_WORDS: Final = {
    NO_WORKERS: "there are no workers: choose some on the right, or say how many to simulate"
}
"""Where the plan's are those of the command line."""
_UNSHOWN: Final = ("nesterov", "cuda")


@dataclass(slots=True)
class FormState:
    """Texts as typed, by field; the workers chosen. Nothing typed is ever thrown away."""

    texts: dict[str, str] = field(default_factory=dict)
    workers: tuple[str, ...] = ()
    """Addresses."""
    others: dict[str, Any] = field(default_factory=dict)
    """Values of the plan that have no field here."""

    def fill(self, plan: Plan) -> None:
        """Show a plan. What has its default is left empty."""
        default = Plan(virtual=1)
        values = {name: getattr(plan, name) for name in (*_NAMES, *_UNSHOWN)}
        # What a task sets by itself is said, as its absence would mean the task's.
        own = task_defaults(plan.task)
        self.fill_values(
            {n: value for n, value in values.items() if n in own or value != getattr(default, n)}
            | {"task": plan.task, "workers": plan.workers, "virtual": plan.virtual or None}
        )

    def fill_values(self, values: Mapping[str, Any]) -> None:
        """Show some of a plan's values, by its fields; all else is left empty."""
        self.workers = tuple(values.get("workers") or ())
        self.texts = {
            name: _text(value) for name in _NAMES if (value := values.get(name)) is not None
        }
        self.others = {name: values[name] for name in _UNSHOWN if name in values}

    def read(self) -> tuple[Plan | None, dict[str, str]]:
        """The plan, or None; and what is wrong, by field. "" is what concerns no field alone."""
        values: dict[str, Any] = dict(self.others)
        problems: dict[str, str] = {}
        for name, text in self.texts.items():
            if not (typed := text.strip()):
                continue
            try:
                values[name] = read_value(name.removesuffix("_s"), typed)
            except UsageError as error:
                problems[name] = str(error)
        if "task" in values and (problem := _task_problem(str(values["task"]))):
            problems["task"] = problem
        if "optimizer" not in values and "optimizer" not in problems:
            values = dict(task_defaults(values.get("task", ""))) | values
        values["workers"] = self.workers
        try:
            plan = Plan(**values)
        except PlanError as error:
            for problem in error.problems:
                problem = _OWN_WORDS.get(problem, problem)
                problems.setdefault(_field_of(problem), problem)
            return None, problems
        return (None if problems else plan), problems


def _task_problem(task: str) -> str | None:
    if task in DATASETS or task.endswith(".py"):
        return None
    return f"there is no task {task!r}; there are {', '.join(DATASETS)}, or FILE.py"


def _field_of(problem: str) -> str:
    """The field that a sentence of the plan begins with."""
    first = problem.split(" ", 1)[0]
    return first if first in _NAMES else ""


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return f"{value[0]}={value[1]}"
    if isinstance(value, float) and float(short := f"{value:g}") == value:
        return short
    return str(value)


def estimate(plan: Plan, trials: Iterable[Mapping[str, Any]]) -> str | None:
    """How long training will take, from the `preflight` lines of the workers; None: nobody can say.

    Sending, averaging and tests are not counted. The slowest worker counts.
    """
    slowest = 0.0
    num_examples = 0
    for trial in trials:
        slowest = max(slowest, trial.get("batch_seconds") or 0.0)
        num_examples = max(num_examples, trial.get("num_examples") or 0)
    if not slowest or not num_examples:
        return None
    an_epoch = math.ceil(num_examples / plan.batch_size)
    if plan.rounds is not None:
        in_round = plan.federate_after_n_batches or an_epoch * (plan.local_epochs or 1)
        batches = plan.rounds * in_round
    else:
        batches = (plan.epochs or 1) * an_epoch
    return _span(batches * slowest)


def _span(seconds: float) -> str:
    from fedconsole.tui.formats import span

    return span(max(1.0, seconds))
