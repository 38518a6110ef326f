from __future__ import annotations

import math

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from pi_daemon.learning.evaluation import Evaluation, evaluate
from pi_daemon.learning.graph import CompiledGraph
from pi_daemon.learning.local_training import Examples, LocalTraining, order, split_holdout
from pi_daemon.protocol.graphs import OptimizerSpec, decode_graphs
from pi_daemon.protocol.messages import Cursor
from tests.support.rounds import tiny_model

torch.set_num_threads(1)

GRAPHS = decode_graphs(tiny_model().graphs)
START = Cursor(0, 0)
PARAMETER_NAMES = {spec.name for spec in GRAPHS.parameters}


def state() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    tensors = safetensors.torch.load(tiny_model().content)
    return (
        {name: tensor for name, tensor in tensors.items() if name in PARAMETER_NAMES},
        {name: tensor for name, tensor in tensors.items() if name not in PARAMETER_NAMES},
    )


def examples(num_examples: int = 50) -> Examples:
    generator = np.random.default_rng(1)
    x = torch.from_numpy(generator.integers(0, 17, (num_examples, 8, 8), dtype=np.uint8))
    return Examples(x, torch.arange(num_examples) % 10, torch.arange(num_examples))


def begin(
    data: Examples | None = None, cursor: Cursor = START, torch_seed: int = 5
) -> LocalTraining:
    return LocalTraining(
        CompiledGraph(GRAPHS.training),
        *state(),
        data or examples(),
        batch_size=16,
        optimizer=OptimizerSpec("sgd", 0.05, momentum=0.9),
        order_seed=7,
        torch_seed=torch_seed,
        cursor=cursor,
    )


def tensors_of(training: LocalTraining) -> dict[str, bytes]:
    both = training.parameters | training.buffers
    return {name: tensor.detach().numpy().tobytes() for name, tensor in both.items()}


def test_each_epoch_has_an_order_of_its_own_with_every_example_once() -> None:
    first = order(7, 0, 50)
    assert torch.equal(first, order(7, 0, 50))
    assert sorted(first.tolist()) == list(range(50))
    assert not torch.equal(first, order(7, 1, 50))
    assert not torch.equal(first, order(8, 0, 50))


def test_an_order_does_not_touch_the_generator_of_dropout() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    order(7, 0, 50)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_held_out_depends_on_the_data_alone() -> None:
    training, held_out = split_holdout("a" * 64, 100, 0.25)
    assert sorted(training.tolist() + held_out.tolist()) == list(range(100))
    assert len(held_out) == 25
    assert torch.equal(held_out, split_holdout("a" * 64, 100, 0.25)[1])
    assert not torch.equal(held_out, split_holdout("b" * 64, 100, 0.25)[1])
    assert len(split_holdout("a" * 64, 100, 0)[1]) == 0


def test_the_cursor_runs_on_over_the_end_of_an_epoch() -> None:
    training = begin(cursor=Cursor(0, 2))
    for _ in range(3):
        training.step()
    # 50 examples: three batches of 16 and one of 2.
    assert training.num_examples == 16 + 2 + 16
    assert training.cursor == Cursor(1, 1)


def test_a_last_batch_of_one_example_is_dropped() -> None:
    training = begin(examples(33))
    for _ in range(2):
        training.step()
    assert (training.num_examples, training.cursor) == (32, Cursor(1, 0))


def test_a_cursor_beyond_the_data_is_refused() -> None:
    with pytest.raises(ValueError, match="cursor at batch 4, but 50 examples make 4 batches of 16"):
        begin(cursor=Cursor(0, 4))


def test_equal_seeds_give_equal_models_and_others_do_not() -> None:
    found = []
    for torch_seed in (5, 5, 6):
        training = begin(torch_seed=torch_seed)
        for _ in range(5):
            training.step()
        found.append(tensors_of(training))
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_a_suspended_round_does_not_notice_what_others_draw() -> None:
    straight = begin()
    for _ in range(6):
        straight.step()
    suspended = begin()
    for _ in range(3):
        suspended.step()
    suspended.suspend()
    torch.rand(100)
    suspended.proceed()
    for _ in range(3):
        suspended.step()
    assert tensors_of(suspended) == tensors_of(straight)


def test_training_leaves_the_given_tensors_alone() -> None:
    parameters, buffers = state()
    before = {name: tensor.clone() for name, tensor in (parameters | buffers).items()}
    training = LocalTraining(
        CompiledGraph(GRAPHS.training),
        parameters,
        buffers,
        examples(),
        batch_size=16,
        optimizer=OptimizerSpec("sgd", 0.05),
        order_seed=7,
        torch_seed=5,
        cursor=START,
    )
    training.step()
    assert all(torch.equal(tensor, before[n]) for n, tensor in (parameters | buffers).items())


def test_a_loss_that_is_not_finite_is_none_and_training_goes_on() -> None:
    training = begin()
    with torch.no_grad():
        next(iter(training.parameters.values())).fill_(math.nan)
    assert [training.step(), training.step()] == [None, None]


def test_an_evaluation_counts_every_example_in_batches_of_any_size() -> None:
    data = examples(33)
    program = CompiledGraph(GRAPHS.evaluation)
    found = [
        evaluate(program, *state(), data.x, data.y, batch_size=size, num_classes=10)
        for size in (33, 16)
    ]
    assert [evaluation.num_examples for evaluation in found] == [33, 33]
    assert found[0].confusion == found[1].confusion
    assert found[0].loss == pytest.approx(found[1].loss)
    assert found[0].confusion is not None
    assert [sum(row) for row in found[0].confusion] == [4, 4, 4, 3, 3, 3, 3, 3, 3, 3]


def test_an_evaluation_of_nothing_has_no_loss() -> None:
    data = examples(1)
    nothing = evaluate(
        CompiledGraph(GRAPHS.evaluation),
        *state(),
        data.x[:0],
        data.y[:0],
        batch_size=16,
        num_classes=None,
    )
    assert nothing == Evaluation(None, 0, None)


def test_an_output_of_other_classes_is_refused() -> None:
    data = examples(4)
    with pytest.raises(ValueError, match=r"the output has the shape \(4, 10\), expected \(4, 3\)"):
        evaluate(
            CompiledGraph(GRAPHS.evaluation),
            *state(),
            data.x,
            data.y % 3,
            batch_size=16,
            num_classes=3,
        )
