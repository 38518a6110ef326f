"""Operators whose kernels trust their arguments, called with such as deserve it.

What they would do otherwise was found by `tests.fuzz.operators`: read and write beyond the ends of tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from torch import Tensor
from torch.nn.functional import pad

from pi_daemon.protocol.operators import BATCH_NORM

Numbers = int | Sequence[int]

_MAX_POOLS: Final = {
    f"aten.max_pool{count}d{suffix}.default": count
    for count in (1, 2, 3)
    for suffix in ("", "_with_indices")
}
_CONVOLUTIONS: Final = {f"aten.conv{count}d.default": count for count in (1, 2, 3)}


def checked(operator: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The operator's function; of one that trusts, one that gives it what it expects or raises ValueError."""
    if operator in _MAX_POOLS:
        return _max_pool(_MAX_POOLS[operator], function)
    if operator in _CONVOLUTIONS:
        return _convolution(_CONVOLUTIONS[operator], function)
    if operator == BATCH_NORM:
        return _batch_norm(function)
    if operator == "aten.median.dim":
        # It takes the elements of an expanded tensor for neighbours.
        return lambda x, *others, **named: function(x.contiguous(), *others, **named)
    if operator == "aten.pad.default":
        return _pad(function)
    return function


def _max_pool(count: int, function: Callable[..., Any]) -> Callable[..., Any]:
    def run(
        x: Tensor,
        kernel_size: Any,
        stride: Any = (),
        padding: Any = 0,
        dilation: Numbers = 1,
        ceil_mode: bool = False,
    ) -> Any:
        # A longer step leads from the padding in front of the values past all of them: the largest of no
        # values is then said to lie beyond the end, and its gradient is written there.
        for size, step in zip(x.shape[-count:], _each(dilation, count), strict=True):
            if step > size:
                raise ValueError(f"has a dilation of {step}, which is more than {size} values")
        return function(x, kernel_size, stride, padding, dilation, ceil_mode)

    return run


def _convolution(count: int, function: Callable[..., Any]) -> Callable[..., Any]:
    def run(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Numbers = 1,
        padding: Numbers = 0,
        dilation: Numbers = 1,
        groups: int = 1,
    ) -> Any:
        pads, steps = _each(padding, count), _each(dilation, count)
        sizes = weight.shape[2:]
        # In channels-last order a kernel that lies in the padding alone reads far from the values.
        if any(p > step * (size - 1) for p, step, size in zip(pads, steps, sizes, strict=True)):
            x = pad(x, [p for p in reversed(pads) for _ in range(2)])
            pads = [0] * count
        return function(x, weight, bias, _each(stride, count), pads, steps, groups)

    return run


def _each(numbers: Numbers, count: int) -> Sequence[int]:
    """One number for each dimension, as torch takes them: one for all, or so many."""
    several = [numbers] if isinstance(numbers, int) else numbers
    if len(several) not in (1, count):
        raise ValueError(f"has {len(several)} numbers for {count} dimensions")
    return several if len(several) == count else [several[0]] * count


def _batch_norm(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(x: Tensor, weight: Tensor | None, bias: Tensor | None, *others: Any) -> Any:
        # Its gradient in channels-last order takes a view's elements for neighbours. The statistics are buffers.
        weight, bias = (None if t is None else t.contiguous() for t in (weight, bias))
        return function(x, weight, bias, *others)

    return run


def _pad(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(x: Tensor, pads: Sequence[int], mode: str = "constant", value: Any = None) -> Any:
        # What a negative padding leaves out of a circle nobody writes.
        if mode == "circular" and any(p < 0 for p in pads):
            raise ValueError("has a negative padding, which goes with no circle")
        return function(x, pads, mode, value)

    return run
