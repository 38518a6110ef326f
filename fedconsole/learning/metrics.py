"""Accuracy, macro F1 and recall per class from a confusion matrix, through scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class ClassMetrics:
    accuracy: float
    macro_f1: float
    """Mean over the classes that occur, as true or as predicted."""
    recall: tuple[float | None, ...]
    """By class; None for one without examples."""


def class_metrics(confusion: Sequence[Sequence[int]]) -> ClassMetrics | None:
    """Metrics of a classification; None for a matrix without examples.

    Args:
        confusion: row: true class, column: predicted class.
    """
    # Half a second of import, and only the engine at its first evaluation needs it.
    from sklearn.metrics import accuracy_score, f1_score, recall_score

    counts = np.asarray(confusion, dtype=np.int64)
    if counts.sum() == 0:
        return None
    true, predicted = np.indices(counts.shape)
    pairs = {
        "y_true": true.ravel(),
        "y_pred": predicted.ravel(),
        "sample_weight": counts.ravel(),
    }
    occurring = [c for c in range(len(counts)) if counts[c].any() or counts[:, c].any()]
    recall = recall_score(**pairs, labels=range(len(counts)), average=None, zero_division=0.0)
    return ClassMetrics(
        accuracy=float(accuracy_score(**pairs)),
        macro_f1=float(f1_score(**pairs, labels=occurring, average="macro", zero_division=0.0)),
        recall=tuple(float(r) if counts[c].any() else None for c, r in enumerate(recall)),
    )
