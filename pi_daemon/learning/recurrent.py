"""Recurrent operators, called only with tensors whose shapes belong together.

Torch does not look: it broadcasts what does not fit, and the kernels of a CPU then read and write beyond
the ends of the tensors. This looks at each call, at the very tensors that the operator then gets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from torch import Tensor

_GATES: Final = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
_LAYERS: Final = {f"aten.{name}.input": gates for name, gates in _GATES.items()}
_CELLS: Final = {f"aten.{name}_cell.default": gates for name, gates in _GATES.items()}


def checked(operator: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The operator's function; of a recurrent one, one that raises ValueError before shapes do harm."""
    if operator in _LAYERS:
        return _layers(_LAYERS[operator], function)
    if operator in _CELLS:
        return _cell(_CELLS[operator], function)
    return function


def _layers(gates: int, function: Callable[..., Any]) -> Callable[..., Any]:
    def run(
        x: Tensor,
        hx: Any,
        params: list[Tensor],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> Any:
        if not all(type(flag) is bool for flag in (has_biases, train, bidirectional, batch_first)):
            raise ValueError("a flag is neither true nor false")
        if type(num_layers) is not int or not 0 < num_layers <= len(params):
            raise ValueError("the number of layers is not that of the weights")
        h, c = _states(gates, hx)
        _, batch, width = (x.transpose(0, 1) if batch_first else x).shape
        directions = 1 + bidirectional
        # Those of an LSTM differ when it projects what it returns.
        returned, hidden = h.shape[-1], c.shape[-1]
        weights: list[tuple[int, ...]] = []
        for layer in range(num_layers):
            taken = directions * returned if layer else width
            one: list[tuple[int, ...]] = [(gates * hidden, taken), (gates * hidden, returned)]
            one += [(gates * hidden,)] * 2 * has_biases
            one += [(returned, hidden)] * (returned != hidden)
            weights += one * directions
        count = num_layers * directions
        _require(
            (x, h, c, *params),
            [x.shape, (count, batch, returned), (count, batch, hidden), *weights],
        )
        return function(
            x, hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first
        )

    return run


def _cell(gates: int, function: Callable[..., Any]) -> Callable[..., Any]:
    def run(
        x: Tensor,
        hx: Any,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor | None = None,
        b_hh: Tensor | None = None,
    ) -> Any:
        h, c = _states(gates, hx)
        batch, width = x.shape
        hidden = c.shape[-1]
        rows = gates * hidden
        biases = [bias for bias in (b_ih, b_hh) if bias is not None]
        _require(
            (x, h, c, w_ih, w_hh, *biases),
            [
                x.shape,
                *[(batch, hidden)] * 2,
                (rows, width),
                (rows, hidden),
                *[(rows,)] * len(biases),
            ],
        )
        return function(x, hx, w_ih, w_hh, b_ih, b_hh)

    return run


def _states(gates: int, hx: Any) -> tuple[Tensor, Tensor]:
    """What a layer remembers; all but an LSTM remember one tensor."""
    if gates != 4:
        return hx, hx
    h, c = hx
    return h, c


def _require(tensors: Iterable[Tensor], shapes: list[tuple[int, ...]]) -> None:
    tensors = tuple(tensors)
    if len(tensors) != len(shapes):
        raise ValueError(f"has {len(tensors)} tensors, expected {len(shapes)}")
    for tensor, shape in zip(tensors, shapes, strict=True):
        if tensor.shape != shape:
            raise ValueError(f"has the shape {tuple(tensor.shape)}, expected {tuple(shape)}")
        if 0 in shape:
            raise ValueError("takes no empty tensors")
        if (tensor.dtype, tensor.device) != (tensors[0].dtype, tensors[0].device):
            raise ValueError("takes tensors of one dtype, on one device")
