"""The operators that a device runs for a console, by exact overload.

Written by hand. What is missing here is missing on purpose: nothing that reads files, uninitialised or
foreign memory (`empty`, `as_strided`, `set_`, `resize_`), sizes that depend on data (`nonzero`, `item`),
random states, and kernels that trust their indices (`ctc_loss`) or their modes (`grid_sampler`).
"""

from __future__ import annotations

import hashlib

BATCH_NORM = "aten.batch_norm.default"
INSTANCE_NORM = "aten.instance_norm.default"
COUNT = "aten.add_.Tensor"
"""How batch norm counts its batches; on a temporary, the ordinary `+=`."""

BUILTINS = frozenset(
    {
        "getitem", "add", "sub", "mul", "floordiv", "truediv", "mod", "pow", "neg",
        "sym_max", "sym_min", "sym_float",
    }
)  # fmt: skip
"""Arithmetic on sizes, and the choice of one result of several."""


def _aten(names: str) -> frozenset[str]:
    return frozenset(f"aten.{name}" for name in names.split())


_LAYERS = _aten("""
    linear.default bilinear.default addmm.default mm.default bmm.default baddbmm.default matmul.default
    mv.default dot.default outer.default einsum.default
    conv1d.default conv1d.padding conv2d.default conv2d.padding conv3d.default conv3d.padding
    conv_transpose1d.default conv_transpose2d.input conv_transpose3d.input
    lstm.input gru.input rnn_tanh.input rnn_relu.input lstm_cell.default gru_cell.default
    rnn_tanh_cell.default rnn_relu_cell.default
    embedding.default
    scaled_dot_product_attention.default
    dropout.default feature_dropout.default alpha_dropout.default feature_alpha_dropout.default
    batch_norm.default instance_norm.default layer_norm.default group_norm.default rms_norm.default
    pixel_shuffle.default pixel_unshuffle.default channel_shuffle.default
    pairwise_distance.default cosine_similarity.default cdist.default
    im2col.default col2im.default
    upsample_nearest1d.vec upsample_nearest2d.vec upsample_nearest3d.vec
    upsample_linear1d.vec upsample_bilinear2d.vec upsample_trilinear3d.vec upsample_bicubic2d.vec
""")

_POOLING = _aten("""
    max_pool1d.default max_pool2d.default max_pool3d.default
    max_pool1d_with_indices.default max_pool2d_with_indices.default max_pool3d_with_indices.default
    avg_pool1d.default avg_pool2d.default avg_pool3d.default
    adaptive_avg_pool1d.default adaptive_avg_pool2d.default adaptive_avg_pool3d.default
    adaptive_max_pool1d.default adaptive_max_pool2d.default adaptive_max_pool3d.default
""")

_ACTIVATIONS = _aten("""
    relu.default relu6.default leaky_relu.default prelu.default rrelu.default elu.default selu.default
    celu.default gelu.default silu.default mish.default hardswish.default hardsigmoid.default hardtanh.default
    hardshrink.default softshrink.default softplus.default threshold.default glu.default
    sigmoid.default log_sigmoid.default tanh.default
    softmax.int log_softmax.int logsumexp.default
""")

_LOSSES = _aten("""
    cross_entropy_loss.default nll_loss.default nll_loss_nd.default nll_loss2d.default
    binary_cross_entropy.default binary_cross_entropy_with_logits.default
    mse_loss.default l1_loss.default smooth_l1_loss.default huber_loss.default kl_div.default
    poisson_nll_loss.default soft_margin_loss.default margin_ranking_loss.default
    hinge_embedding_loss.default cosine_embedding_loss.default triplet_margin_loss.default
    multi_margin_loss.default multilabel_margin_loss.default
""")

_ARITHMETIC = _aten("""
    add.Tensor add.Scalar sub.Tensor sub.Scalar rsub.Tensor rsub.Scalar mul.Tensor mul.Scalar
    div.Tensor div.Scalar div.Tensor_mode div.Scalar_mode floor_divide.default floor_divide.Scalar
    remainder.Tensor remainder.Scalar fmod.Tensor fmod.Scalar
    pow.Tensor_Tensor pow.Tensor_Scalar pow.Scalar lerp.Tensor lerp.Scalar addcmul.default addcdiv.default
    neg.default abs.default sign.default exp.default exp2.default expm1.default log.default log2.default
    log10.default log1p.default sqrt.default rsqrt.default square.default reciprocal.default
    sin.default cos.default tan.default asin.default acos.default atan.default atan2.default
    sinh.default cosh.default asinh.default acosh.default atanh.default erf.default erfc.default
    floor.default ceil.default round.default trunc.default frac.default
    maximum.default minimum.default clamp.default clamp.Tensor clamp_min.default clamp_min.Tensor
    clamp_max.default clamp_max.Tensor nan_to_num.default
    eq.Tensor eq.Scalar ne.Tensor ne.Scalar lt.Tensor lt.Scalar le.Tensor le.Scalar
    gt.Tensor gt.Scalar ge.Tensor ge.Scalar isnan.default isinf.default isfinite.default
    logical_and.default logical_or.default logical_not.default logical_xor.default
    bitwise_and.Tensor bitwise_or.Tensor bitwise_xor.Tensor bitwise_not.default
    where.self where.ScalarOther where.ScalarSelf where.Scalar masked_fill.Scalar masked_fill.Tensor
""")

_REDUCTIONS = _aten("""
    sum.default sum.dim_IntList mean.default mean.dim prod.default prod.dim_int
    var.default var.dim var.correction std.default std.dim std.correction
    var_mean.correction std_mean.correction
    amax.default amin.default max.default max.dim max.other min.default min.dim min.other
    argmax.default argmin.default all.default all.dim any.default any.dim
    norm.Scalar norm.ScalarOpt_dim linalg_vector_norm.default frobenius_norm.dim
    cumsum.default cumprod.default topk.default sort.default argsort.default median.default median.dim
""")

_SHAPES = _aten("""
    view.default view_as.default reshape.default reshape_as.default flatten.using_ints unflatten.int
    squeeze.default squeeze.dim squeeze.dims unsqueeze.default
    transpose.int permute.default movedim.int movedim.intlist swapaxes.default t.default numpy_T.default
    mT.default expand.default expand_as.default broadcast_to.default broadcast_tensors.default
    repeat.default repeat_interleave.self_int tile.default
    cat.default concat.default stack.default hstack.default vstack.default
    split.Tensor split.sizes split_with_sizes.default chunk.default unbind.int tensor_split.sections
    narrow.default select.int slice.Tensor index.Tensor index_select.default gather.default
    take_along_dim.default scatter.src scatter.value scatter_add.default index_add.default one_hot.default
    flip.default roll.default rot90.default diagonal.default diag_embed.default tril.default triu.default
    pad.default constant_pad_nd.default unfold.default meshgrid.indexing
    contiguous.default clone.default detach.default alias.default lift_fresh_copy.default
    to.dtype to.device to.other to.dtype_layout type_as.default _to_copy.default
    sym_size.int sym_numel.default
""")

CREATION = _aten("""
    zeros.default ones.default full.default scalar_tensor.default eye.default eye.m
    arange.default arange.start arange.start_step linspace.default rand.default randn.default
""")
"""They make a tensor out of numbers, on the CPU unless they are told where."""

_LIKE = _aten("""
    zeros_like.default ones_like.default full_like.default rand_like.default randn_like.default
    new_zeros.default new_ones.default new_full.default bernoulli.default bernoulli.p
""")

INPLACE = _aten("""
    add_.Tensor add_.Scalar sub_.Tensor sub_.Scalar mul_.Tensor mul_.Scalar div_.Tensor div_.Scalar
    relu_.default relu6_.default leaky_relu_.default elu_.default selu_.default celu_.default gelu_.default
    silu_.default mish_.default hardswish_.default hardsigmoid_.default hardtanh_.default threshold_.default
    sigmoid_.default tanh_.default exp_.default sqrt_.default neg_.default
    clamp_.default clamp_min_.default clamp_max_.default
    masked_fill_.Scalar masked_fill_.Tensor
    dropout_.default feature_dropout_.default alpha_dropout_.default
""")
"""They write their first argument, which must be a temporary of the graph's own."""

OPERATORS = (
    BUILTINS
    | _LAYERS
    | _POOLING
    | _ACTIVATIONS
    | _LOSSES
    | _ARITHMETIC
    | _REDUCTIONS
    | _SHAPES
    | CREATION
    | _LIKE
    | INPLACE
)

OPERATORS_DIGEST = hashlib.sha256("\n".join(sorted(OPERATORS)).encode()).hexdigest()
"""Compared in `hello`: a fleet whose devices run different lists is refused before a round."""
