"""What a confusion matrix says: accuracy, macro F1, and recall, precision and F1 of each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClassMetrics:
    accuracy: float
    macro_f1: float | None
    """Mean over the scored classes that have an F1; None if none has."""
    recall: tuple[float | None, ...]
    """By class; None for one without examples."""
    precision: tuple[float | None, ...]
    """By class; None for one that was never predicted."""
    f1: tuple[float | None, ...]
    """By class; None for one that occurs neither as true nor as predicted."""


def class_metrics(
    confusion: Sequence[Sequence[int]], scored: Sequence[int] | None = None
) -> ClassMetrics | None:
    """Metrics of a classification; None for a matrix without examples.

    Args:
        confusion: row: true class, column: predicted class.
        scored: the classes that count for macro F1; None: all.
    """
    correct = [row[c] for c, row in enumerate(confusion)]
    true = [sum(row) for row in confusion]
    predicted = [sum(column) for column in zip(*confusion, strict=True)]
    if not any(true):
        return None
    f1 = tuple(_share(2 * c, t + p) for c, t, p in zip(correct, true, predicted, strict=True))
    counted = [f1[c] for c in (range(len(f1)) if scored is None else scored)]
    occurring = [value for value in counted if value is not None]
    return ClassMetrics(
        accuracy=sum(correct) / sum(true),
        macro_f1=sum(occurring) / len(occurring) if occurring else None,
        recall=tuple(map(_share, correct, true)),
        precision=tuple(map(_share, correct, predicted)),
        f1=f1,
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
