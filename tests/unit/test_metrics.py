from __future__ import annotations

import pytest

from fedconsole.learning.metrics import ClassMetrics, class_metrics


def test_metrics_of_a_small_matrix_worked_out_by_hand() -> None:
    # Class 0: recall 3/4, precision 3/4, F1 3/4. Class 1: recall 1/2, precision 1/2, F1 1/2.
    metrics = class_metrics([[3, 1], [1, 1]])
    assert metrics == ClassMetrics(
        accuracy=pytest.approx(4 / 6),
        macro_f1=pytest.approx((3 / 4 + 1 / 2) / 2),
        recall=(pytest.approx(3 / 4), pytest.approx(1 / 2)),
    )


def test_a_class_without_examples_has_no_recall_and_does_not_count_for_f1() -> None:
    metrics = class_metrics([[5, 0, 0], [0, 5, 0], [0, 0, 0]])
    assert metrics == ClassMetrics(1.0, 1.0, (1.0, 1.0, None))


def test_no_examples_give_no_metrics() -> None:
    assert class_metrics([[0, 0], [0, 0]]) is None
