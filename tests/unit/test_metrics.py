from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedconsole.learning.metrics import ClassMetrics, class_metrics


def approximately(value: float) -> Any:
    return pytest.approx(value)


def test_metrics_of_a_small_matrix_worked_out_by_hand() -> None:
    # Class 0: 3 of 4 are found, 3 of 5 predictions are right. Class 1: 2 of 4, and 2 of 3.
    metrics = class_metrics([[3, 1], [2, 2]])
    assert metrics == ClassMetrics(
        accuracy=5 / 8,
        macro_f1=approximately((6 / 9 + 4 / 7) / 2),
        recall=(3 / 4, 2 / 4),
        precision=(3 / 5, 2 / 3),
        f1=(6 / 9, 4 / 7),
    )


def test_a_class_that_never_occurs_has_no_metrics_and_does_not_count_for_macro_f1() -> None:
    metrics = class_metrics([[5, 0, 0], [0, 5, 0], [0, 0, 0]])
    every = (1.0, 1.0, None)
    assert metrics == ClassMetrics(1.0, 1.0, recall=every, precision=every, f1=every)


def test_a_class_that_is_only_predicted_or_never_predicted_has_an_f1_of_zero() -> None:
    metrics = class_metrics([[4, 0, 1], [5, 0, 0], [0, 0, 0]])
    assert metrics == ClassMetrics(
        accuracy=4 / 10,
        macro_f1=approximately(8 / 14 / 3),
        recall=(4 / 5, 0.0, None),
        precision=(4 / 9, None, 0.0),
        f1=(8 / 14, 0.0, 0.0),
    )


def test_only_scored_classes_count_for_macro_f1() -> None:
    confusion = [[5, 0, 0], [0, 5, 0], [0, 2, 0]]
    found = [class_metrics(confusion, scored) for scored in ((0, 1), (0, 2), (2,))]
    assert [m and m.macro_f1 for m in found] == [pytest.approx((1 + 10 / 12) / 2), 0.5, 0.0]
    lacking = class_metrics([[1, 0], [0, 0]], scored=[1])
    assert (lacking and lacking.accuracy, lacking and lacking.macro_f1) == (1.0, None)


def test_the_metrics_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import precision_recall_fscore_support

    counts = np.random.default_rng(1).integers(0, 50, (5, 5))
    true, predicted = np.indices(counts.shape)
    precision, recall, f1, _ = precision_recall_fscore_support(
        true.ravel(), predicted.ravel(), sample_weight=counts.ravel()
    )
    metrics = class_metrics(counts.tolist())
    assert metrics is not None
    assert (metrics.recall, metrics.precision, metrics.f1) == (
        pytest.approx(tuple(recall)),
        pytest.approx(tuple(precision)),
        pytest.approx(tuple(f1)),
    )


def test_no_examples_give_no_metrics() -> None:
    assert class_metrics([[0, 0], [0, 0]]) is None
