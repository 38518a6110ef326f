from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from fedconsole.coordinator.plan import Optimizer, Plan, PlanError


def test_the_defaults_are_those_of_the_command_line() -> None:
    assert msgspec.to_builtins(Plan(virtual=3)) == {
        "task": "digits",
        "workers": (),
        "virtual": 3,
        "rounds": None,
        "epochs": 2,
        "federate_after_n_batches": 50,
        "local_epochs": None,
        "batch_size": 64,
        "test_batch_size": 1000,
        "lr": 0.01,
        "optimizer": "sgd",
        "momentum": 0.0,
        "weight_decay": 0.0,
        "nesterov": False,
        "holdout": 0.0,
        "weighting": "examples",
        "epoch_end": "all",
        "cohort_size": None,
        "min_updates": None,
        "round_timeout_s": 600.0,
        "on_quorum_loss": "wait",
        "quorum_timeout_s": 600.0,
        "eval_every": "round",
        "stop_at": None,
        "init_from": None,
        "save_model": None,
        "seed": 1,
        "cuda": False,
        "data_dir": None,
    }


def test_a_length_in_rounds_replaces_the_default_in_epochs() -> None:
    plan = Plan(virtual=1, rounds=3, local_epochs=1)
    assert (plan.rounds, plan.epochs) == (3, None)
    assert (plan.local_epochs, plan.federate_after_n_batches) == (1, None)


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"virtual": 0}, "there are no workers"),
        ({"virtual": -1}, "virtual is -1"),
        ({"workers": ("pi:1", "pi:1")}, "workers named twice: pi:1"),
        ({"rounds": 1, "epochs": 1}, "rounds is 1 and epochs is 1: give one of them"),
        ({"rounds": 0}, "rounds is 0"),
        ({"epochs": 0}, "epochs is 0"),
        ({"local_epochs": 0}, "local_epochs is 0"),
        ({"federate_after_n_batches": 0}, "federate_after_n_batches is 0"),
        ({"local_epochs": 1, "federate_after_n_batches": 9}, "give one of them"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"test_batch_size": 0}, "test_batch_size is 0"),
        ({"lr": 0.0}, "lr is 0.0"),
        ({"lr": math.nan}, "lr is nan"),
        ({"lr": math.inf}, "lr is inf"),
        ({"momentum": 1.0}, "momentum is 1.0"),
        ({"momentum": 0.9, "optimizer": Optimizer.ADAM}, "which adam does not take"),
        ({"nesterov": True}, "nesterov needs sgd with a momentum above 0"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1"),
        ({"holdout": 1.0}, "holdout is 1.0"),
        ({"cohort_size": 4}, "cohort_size is 4: expected 1 to 3"),
        ({"cohort_size": 0}, "cohort_size is 0"),
        ({"min_updates": 4}, "min_updates is 4"),
        ({"min_updates": 3, "cohort_size": 2}, "expected 1 to 2, the size of a cohort"),
        ({"round_timeout_s": 0.0}, "round_timeout_s is 0.0"),
        ({"quorum_timeout_s": math.inf}, "quorum_timeout_s is inf"),
        ({"eval_every": 0}, "eval_every is 0"),
        ({"rounds": 10**9 + 1}, "rounds is 1000000001: expected at most 1000000000"),
        ({"epochs": 10**23}, "expected at most 1000000000"),
        ({"local_epochs": 10**23}, "expected at most 1000000000"),
        ({"federate_after_n_batches": 10**23}, "expected at most 1000000000"),
        ({"batch_size": 10**23}, "expected at most 1000000000"),
        ({"test_batch_size": 10**23}, "expected at most 1000000000"),
        ({"eval_every": 10**23}, "expected at most 1000000000"),
        ({"round_timeout_s": 1e300}, "at most 1000000000"),
        ({"stop_at": ("accuracy", math.nan)}, "stop_at accuracy is nan"),
        ({"seed": -1}, "seed is -1"),
    ],
    ids=str,
)
def test_a_wrong_value_is_named_with_what_was_expected(wrong: dict[str, Any], problem: str) -> None:
    with pytest.raises(PlanError) as caught:
        Plan(**{"virtual": 3, **wrong})
    assert len(caught.value.problems) == 1
    assert problem in caught.value.problems[0]


def test_all_wrong_values_are_named_at_once() -> None:
    with pytest.raises(PlanError) as caught:
        Plan(virtual=1, lr=-1.0, batch_size=0)
    assert str(caught.value) == (
        "batch_size is 0: a batch has at least 1 example; "
        "lr is -1.0: expected a finite learning rate above 0, such as 0.01"
    )


def test_a_plan_from_text_is_checked_as_well() -> None:
    options = {"virtual": "2", "lr": "0.1", "optimizer": "adam", "eval_every": "5"}
    assert msgspec.convert(options, Plan, strict=False) == Plan(
        virtual=2, lr=0.1, optimizer=Optimizer.ADAM, eval_every=5
    )
    with pytest.raises(PlanError, match="lr is -1"):
        msgspec.convert({**options, "lr": "-1"}, Plan, strict=False)


def test_a_plan_survives_json() -> None:
    plan = Plan(workers=("pi:10002",), stop_at=("accuracy", 0.95), eval_every="epoch", rounds=2)
    assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan
