"""How examples fall into batches: the one rule that console and daemon must count by alike."""

from __future__ import annotations


def batches_per_epoch(num_examples: int, batch_size: int) -> int:
    """Batches in one pass over the examples.

    A last batch of one example is dropped unless all have one: batch norm cannot train on it.
    """
    full, rest = divmod(num_examples, batch_size)
    return full + (rest > 1)
