"""One honest call of every operator: what `tests.fuzz.operators` changes until it is hostile.

A tensor stands as its dtype and shape: `F(2, 3)` are floats, `C(2, 3)` too, but without a gradient, `I(4)` are
indices, `B(3)` is a mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

from pi_daemon.protocol.graphs import Argument, Device, DType, Scalar


@dataclass(frozen=True, slots=True)
class Given:
    """A tensor that the model brings along."""

    dtype: str
    shape: tuple[int, ...]
    is_constant: bool = False


Call = tuple[Argument | Given | tuple[Scalar | Given, ...], ...]
"""The arguments of an operator, by position."""


def F(*shape: int) -> Given:
    return Given("F32", shape)


def C(*shape: int) -> Given:
    return Given("F32", shape, is_constant=True)


def I(*shape: int) -> Given:  # noqa: E743
    return Given("I64", shape)


def B(*shape: int) -> Given:
    return Given("BOOL", shape)


def _each(names: str, *call: Argument | Given | tuple[Scalar | Given, ...]) -> dict[str, Call]:
    return dict.fromkeys(names.split(), call)


SIGNAL, IMAGE, VOLUME = F(2, 4, 9), F(2, 4, 6, 7), F(1, 2, 4, 5, 6)
M = F(3, 4)

_LAYERS: dict[str, Call] = {
    "linear.default": (M, F(5, 4), F(5)),
    "bilinear.default": (F(3, 4), F(3, 5), F(2, 4, 5), F(2)),
    "addmm.default": (F(3, 5), F(3, 4), F(4, 5)),
    "mm.default": (F(3, 4), F(4, 5)),
    "bmm.default": (F(2, 3, 4), F(2, 4, 5)),
    "baddbmm.default": (F(2, 3, 5), F(2, 3, 4), F(2, 4, 5)),
    "matmul.default": (F(2, 3, 4), F(4, 5)),
    "mv.default": (F(3, 4), F(4)),
    "dot.default": (F(4), F(4)),
    "outer.default": (F(3), F(4)),
    "einsum.default": ("bij,bjk->bik", (F(2, 3, 4), F(2, 4, 5))),
    "conv1d.default": (SIGNAL, F(6, 2, 3), F(6), (1,), (1,), (1,), 2),
    "conv1d.padding": (SIGNAL, F(6, 2, 3), F(6), (1,), "same", (1,), 2),
    "conv2d.default": (IMAGE, F(6, 2, 3, 2), F(6), (2, 1), (1, 0), (1, 1), 2),
    "conv2d.padding": (IMAGE, F(6, 2, 3, 2), F(6), (1, 1), "valid", (2, 1), 2),
    "conv3d.default": (VOLUME, F(4, 1, 2, 3, 2), F(4), (1, 2, 1), (1, 0, 0), (1, 1, 2), 2),
    "conv3d.padding": (VOLUME, F(4, 1, 2, 3, 2), F(4), (1, 1, 1), "same", (1, 1, 1), 2),
    "conv_transpose1d.default": (SIGNAL, F(4, 3, 3), F(6), (2,), (1,), (1,), 2, (1,)),
    "conv_transpose2d.input": (IMAGE, F(4, 3, 3, 2), F(6), (2, 1), (1, 0), (1, 0), 2, (1, 2)),
    "conv_transpose3d.input": (
        *(VOLUME, F(2, 2, 2, 3, 2), F(4)),
        *((2, 1, 1), (1, 0, 0), (1, 0, 0), 2, (1, 1, 1)),
    ),
    "lstm.input": (
        *(F(2, 5, 3), (F(1, 2, 6), F(1, 2, 6)), (F(24, 3), F(24, 6), F(24), F(24))),
        *(True, 1, 0.0, True, False, True),
    ),
    "gru.input": (
        *(F(2, 5, 3), F(1, 2, 6), (F(18, 3), F(18, 6), F(18), F(18))),
        *(True, 1, 0.0, True, False, True),
    ),
    **_each(
        "rnn_tanh.input rnn_relu.input",
        *(F(2, 5, 3), F(1, 2, 6), (F(6, 3), F(6, 6), F(6), F(6))),
        *(True, 1, 0.0, True, False, True),
    ),
    "lstm_cell.default": (F(2, 3), (F(2, 6), F(2, 6)), F(24, 3), F(24, 6), F(24), F(24)),
    "gru_cell.default": (F(2, 3), F(2, 6), F(18, 3), F(18, 6), F(18), F(18)),
    **_each(
        "rnn_tanh_cell.default rnn_relu_cell.default",
        *(F(2, 3), F(2, 6), F(6, 3), F(6, 6), F(6), F(6)),
    ),
    "embedding.default": (F(6, 4), I(2, 3), 1, True, False),
    "scaled_dot_product_attention.default": (
        *(F(2, 2, 5, 4), F(2, 2, 7, 4), F(2, 2, 7, 4), F(2, 2, 5, 7)),
        *(0.0, False),
    ),
    **_each(
        "dropout.default feature_dropout.default alpha_dropout.default feature_alpha_dropout.default",
        *(SIGNAL, 0.5, True),
    ),
    "batch_norm.default": (IMAGE, F(4), F(4), F(4), F(4), True, 0.1, 1e-5, True),
    "instance_norm.default": (SIGNAL, F(4), F(4), None, None, True, 0.1, 1e-5, True),
    "layer_norm.default": (F(2, 3, 4), (3, 4), F(3, 4), F(3, 4), 1e-5, True),
    "group_norm.default": (SIGNAL, 2, F(4), F(4), 1e-5, True),
    "rms_norm.default": (F(2, 3, 4), (4,), F(4), 1e-5),
    "pixel_shuffle.default": (F(1, 4, 2, 3), 2),
    "pixel_unshuffle.default": (F(1, 2, 4, 6), 2),
    "channel_shuffle.default": (IMAGE, 2),
    "pairwise_distance.default": (M, M, 2.0, 1e-6, True),
    "cosine_similarity.default": (M, M, 1, 1e-8),
    "cdist.default": (F(2, 3, 4), F(2, 5, 4), 2.0, 2),
    "im2col.default": (IMAGE, (3, 2), (1, 1), (1, 0), (1, 2)),
    "col2im.default": (F(2, 24, 15), (4, 6), (2, 3), (1, 1), (1, 1), (1, 2)),
    **_each("upsample_nearest1d.vec", SIGNAL, (12,), None),
    **_each("upsample_nearest2d.vec", IMAGE, None, (1.5, 2.0)),
    **_each("upsample_nearest3d.vec", VOLUME, None, (1.5, 2.0, 0.5)),
    **_each("upsample_linear1d.vec", SIGNAL, None, False, (1.5,)),
    **_each("upsample_bilinear2d.vec upsample_bicubic2d.vec", IMAGE, (8, 5), True, None),
    **_each("upsample_trilinear3d.vec", VOLUME, None, False, (1.5, 2.0, 0.5)),
}

_POOLING: dict[str, Call] = {
    **_each(
        "max_pool1d.default max_pool1d_with_indices.default",
        *(SIGNAL, (3,), (2,), (1,), (1,), True),
    ),
    **_each(
        "max_pool2d.default max_pool2d_with_indices.default",
        *(IMAGE, (3, 2), (2, 1), (1, 0), (1, 2), True),
    ),
    **_each(
        "max_pool3d.default max_pool3d_with_indices.default",
        *(VOLUME, (2, 3, 2), (2, 1, 1), (1, 0, 1), (1, 1, 2), True),
    ),
    "avg_pool1d.default": (SIGNAL, (3,), (2,), (1,), True, False),
    "avg_pool2d.default": (IMAGE, (3, 2), (2, 1), (1, 0), True, False, 3),
    "avg_pool3d.default": (VOLUME, (2, 3, 2), (2, 1, 1), (1, 0, 1), True, False, 3),
    **_each("adaptive_avg_pool1d.default adaptive_max_pool1d.default", SIGNAL, (4,)),
    **_each("adaptive_avg_pool2d.default adaptive_max_pool2d.default", IMAGE, (4, 3)),
    **_each("adaptive_avg_pool3d.default adaptive_max_pool3d.default", VOLUME, (3, 2, 4)),
}

_ACTIVATIONS: dict[str, Call] = {
    **_each("leaky_relu.default", M, 0.01),
    "prelu.default": (SIGNAL, F(4)),
    "rrelu.default": (M, 0.1, 0.3, True),
    "elu.default": (M, 1.0, 1.0, 1.0),
    "celu.default": (M, 1.0),
    "gelu.default": (M,),
    "hardtanh.default": (M, -1.0, 1.0),
    **_each("hardshrink.default softshrink.default", M, 0.5),
    "softplus.default": (M, 1.0, 20.0),
    "threshold.default": (M, 0.5, 0.1),
    "glu.default": (M, 1),
    **_each("softmax.int log_softmax.int logsumexp.default", M, 1),
}

_LOSSES: dict[str, Call] = {
    "cross_entropy_loss.default": (F(3, 4), I(3), C(4), 1, -100, 0.1),
    "nll_loss.default": (F(3, 4), I(3), C(4), 1, -100),
    "nll_loss_nd.default": (IMAGE, I(2, 6, 7), C(4), 1, -100),
    "nll_loss2d.default": (IMAGE, I(2, 6, 7), C(4), 1, -100),
    **_each(
        "binary_cross_entropy.default",
        *(M, M, C(4), 1),
    ),
    "binary_cross_entropy_with_logits.default": (M, M, C(4), C(4), 1),
    **_each("mse_loss.default l1_loss.default", M, M, 1),
    "soft_margin_loss.default": (M, C(3, 4), 1),
    **_each("smooth_l1_loss.default huber_loss.default", M, M, 1, 0.5),
    "kl_div.default": (M, M, 1),
    "poisson_nll_loss.default": (M, M, True, False, 1e-8, 1),
    "margin_ranking_loss.default": (M, M, M, 0.5, 1),
    "hinge_embedding_loss.default": (M, M, 1.0, 1),
    "cosine_embedding_loss.default": (M, M, F(3), 0.0, 1),
    "triplet_margin_loss.default": (M, M, M, 1.0, 2.0, 1e-6, True, 1),
    "multi_margin_loss.default": (C(3, 4), I(3), 1, 1.0, C(4), 1),
    "multilabel_margin_loss.default": (C(3, 4), I(3, 4), 1),
}

_ARITHMETIC: dict[str, Call] = {
    **_each("div.Tensor_mode", M, F(4)),
    **_each("pow.Scalar", 2.0, M),
    "floor_divide.default": (C(3, 4), C(4)),
    "floor_divide.Scalar": (C(3, 4), 0.5),
    "lerp.Tensor": (M, M, M),
    "lerp.Scalar": (M, M, 0.5),
    **_each("addcmul.default addcdiv.default", M, M, F(4)),
    **_each("clamp.default clamp_.default", M, 0.1, 0.9),
    **_each("clamp.Tensor", M, M, F(4)),
    "nan_to_num.default": (M, 0.0, 1.0, -1.0),
    **_each("bitwise_and.Tensor bitwise_or.Tensor bitwise_xor.Tensor", I(3, 4), I(4)),
    "bitwise_not.default": (I(3, 4),),
    "where.self": (B(3, 4), M, F(4)),
    "where.ScalarOther": (B(3, 4), M, 0.5),
    "where.ScalarSelf": (B(3, 4), 0.5, M),
    "where.Scalar": (B(3, 4), 0.5, 1.5),
    **_each("masked_fill.Scalar masked_fill_.Scalar", M, B(3, 4), 0.5),
    **_each("masked_fill.Tensor masked_fill_.Tensor", M, B(3, 4), F()),
}

_REDUCTIONS: dict[str, Call] = {
    **_each("sum.dim_IntList mean.dim var.dim std.dim amax.default amin.default", F(2, 3, 4), (1,)),
    **_each("var.correction std.correction var_mean.correction std_mean.correction", M, (1,)),
    **_each("prod.dim_int max.dim min.dim argmax.default argmin.default", F(2, 3, 4), 1, True),
    **_each("all.dim any.dim median.dim", F(2, 3, 4), 1, True),
    **_each("cumsum.default cumprod.default", F(2, 3, 4), 1),
    **_each("max.other min.other", M, F(4)),
    "norm.Scalar": (M, 3.0),
    "norm.ScalarOpt_dim": (F(2, 3, 4), 3.0, (1,), True),
    "linalg_vector_norm.default": (F(2, 3, 4), 3.0, (1,), True),
    "frobenius_norm.dim": (F(2, 3, 4), (1, 2), True),
    "topk.default": (F(2, 5), 3, 1, True, True),
    **_each("sort.default argsort.default", F(2, 5), 1, True),
}

_SHAPES: dict[str, Call] = {
    **_each("view.default reshape.default", M, (2, -1)),
    **_each("view_as.default reshape_as.default", M, F(2, 6)),
    **_each("expand_as.default type_as.default", M, M),
    "flatten.using_ints": (F(2, 3, 4), 1, 2),
    "unflatten.int": (M, 1, (2, 2)),
    "squeeze.dim": (F(2, 1, 3), 1),
    "squeeze.dims": (F(2, 1, 1, 3), (1, 2)),
    **_each("unsqueeze.default", M, 1),
    **_each("transpose.int swapaxes.default movedim.int", F(2, 3, 4), 0, 2),
    "permute.default": (F(2, 3, 4), (2, 0, 1)),
    "movedim.intlist": (F(2, 3, 4), (0, 1), (2, 0)),
    **_each("expand.default broadcast_to.default", F(3, 1), (2, 3, 4)),
    "broadcast_tensors.default": ((F(3, 1), F(4)),),
    **_each("repeat.default tile.default", M, (2, 1, 3)),
    "repeat_interleave.self_int": (M, 3, 1),
    **_each("cat.default concat.default stack.default", (M, M), 1),
    **_each("hstack.default vstack.default", (M, M)),
    **_each("split.Tensor chunk.default tensor_split.sections", F(5, 4), 2, 0),
    **_each("split.sizes split_with_sizes.default", F(5, 4), (2, 3), 0),
    "unbind.int": (M, 0),
    "narrow.default": (F(5, 4), 0, 1, 2),
    "select.int": (F(5, 4), 0, 1),
    "slice.Tensor": (F(5, 4), 0, 1, 4, 2),
    "index.Tensor": (F(2, 3, 4), (I(5), None, I(5))),
    "index_select.default": (F(3, 4), 1, I(5)),
    "gather.default": (F(3, 4), 1, I(3, 5)),
    "take_along_dim.default": (F(3, 4), I(3, 5), 1),
    **_each("scatter.src scatter_add.default", F(3, 4), 1, I(3, 2), F(3, 2)),
    "scatter.value": (F(3, 4), 1, I(3, 2), 0.5),
    "index_add.default": (F(3, 4), 1, I(2), F(3, 2)),
    "one_hot.default": (I(3, 2), 5),
    "flip.default": (M, (0, 1)),
    "roll.default": (M, (1, -2), (0, 1)),
    "rot90.default": (M, 1, (0, 1)),
    "diagonal.default": (F(2, 3, 4), 1, 1, 2),
    "diag_embed.default": (M, 1, 0, 2),
    **_each("tril.default triu.default", M, 1),
    "pad.default": (IMAGE, (1, 2, 0, 1), "reflect"),
    "constant_pad_nd.default": (M, (1, -1, 0, 2), 0.5),
    "unfold.default": (F(2, 7), 1, 3, 2),
    "meshgrid.indexing": ((F(3), F(4)),),
    "to.dtype": (M, DType("BF16"), False, True),
    "to.device": (M, Device(), DType("F64"), False, True),
    "to.other": (M, I(2), False, True),
    "sym_size.int": (M, 1),
}

_CREATION: dict[str, Call] = {
    **_each("zeros.default ones.default rand.default randn.default", (3, 4)),
    "full.default": ((3, 4), 0.5),
    "scalar_tensor.default": (0.5,),
    "eye.default": (4,),
    "eye.m": (4, 3),
    "arange.default": (5,),
    "arange.start": (1, 5),
    "arange.start_step": (1, 9, 2),
    "linspace.default": (0.0, 1.0, 5),
    "full_like.default": (M, 0.5),
    **_each("new_zeros.default new_ones.default", M, (2, 3)),
    "new_full.default": (M, (2, 3), 0.5),
    "bernoulli.default": (C(3, 4),),
    "bernoulli.p": (C(3, 4), 0.5),
}

_INPLACE: dict[str, Call] = {
    **_each("leaky_relu_.default", M, 0.01),
    "elu_.default": (M, 1.0, 1.0, 1.0),
    "celu_.default": (M, 1.0),
    "hardtanh_.default": (M, -1.0, 1.0),
    "threshold_.default": (M, 0.5, 0.1),
    **_each("dropout_.default feature_dropout_.default alpha_dropout_.default", SIGNAL, 0.5, True),
}

_OTHERS: Final = (
    *(_LAYERS, _POOLING, _ACTIVATIONS, _LOSSES, _ARITHMETIC, _REDUCTIONS, _SHAPES),
    *(_CREATION, _INPLACE),
)


def honest_call(operator: str, schema: torch.FunctionSchema) -> Call:
    """A call that torch carries out: of an operator without a row above, what its schema cannot do without."""
    name = operator.removeprefix("aten.")
    for calls in _OTHERS:
        if name in calls:
            return calls[name]
    values: dict[str, Argument | Given] = {"Tensor": M, "number": 0.5, "float": 0.5}
    needed = [a for a in schema.arguments if not (a.has_default_value() or a.kwarg_only)]
    return tuple(values[str(argument.real_type)] for argument in needed)
