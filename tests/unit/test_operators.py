from __future__ import annotations

import hashlib
import re

import pytest
import torch

from pi_daemon.protocol.operators import BUILTINS, INPLACE, OPERATORS, OPERATORS_DIGEST

ATEN = sorted(OPERATORS - BUILTINS)


def overload(name: str) -> torch._ops.OpOverload:
    namespace, packet, variant = name.split(".")
    return getattr(getattr(getattr(torch.ops, namespace), packet), variant)


def test_every_operator_exists_in_this_torch() -> None:
    assert [str(overload(name)) for name in ATEN] == ATEN


def test_only_in_place_operators_write_and_only_their_first_argument() -> None:
    written = {
        name: [
            position
            for position, argument in enumerate(overload(name)._schema.arguments)
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
        for name in ATEN
    }
    assert {name: positions for name, positions in written.items() if positions} == {
        name: [0] for name in INPLACE
    }


def test_no_operator_takes_anything_but_tensors_numbers_and_words() -> None:
    allowed = {"Tensor", "number", "int", "float", "bool", "str", "Device", "Layout", "ScalarType"}
    kinds = {
        str(argument.type)
        for name in ATEN
        for argument in overload(name)._schema.arguments
        if argument.name != "generator"
    }
    plain = {kind.replace("Optional[", "").replace("List[", "").rstrip("]") for kind in kinds}
    assert plain - allowed - {"SymInt", "MemoryFormat"} == set()


@pytest.mark.parametrize(
    "pattern",
    [
        r"(from_file|_print|_assert.*|record_stream|.*pin.*memory.*|is_pinned)\..*",
        r"(set_|_set|_?resize|_storage|swap_|lift\b|lift_fresh\b).*",
        r"(.*empty|.*as_strided|_reshape_alias|_unsafe|data|view_as_(real|complex)).*",
        r".*\.(out|.*_out|from|source.*|names?.*|dimname.*|generator.*)",
        r"view\.dtype",
        r"(item|_local_scalar_dense|nonzero|masked_select|unique|equal|is_nonzero|allclose).*",
        r"(copy_|fill_|zero_|index_put|put_|scatter_?_\b|random_|normal_|uniform_|bernoulli_).*",
        r".*(renorm|rng|cudnn|native|mkldnn|miopen|quantize|sparse|nested|_cuda).*",
        r"(grid_sampler|_?embedding_bag|native_).*",
        r".*(searchsorted|bucketize|ctc_loss|bincount|segment_reduce|unpool|_backward|_foreach).*",
    ],
)
def test_dangerous_operators_stay_out(pattern: str) -> None:
    assert [name for name in ATEN if re.fullmatch(pattern, name.removeprefix("aten."))] == []


def test_the_digest_is_that_of_the_sorted_list() -> None:
    expected = hashlib.sha256("\n".join(sorted(OPERATORS)).encode()).hexdigest()
    assert expected == OPERATORS_DIGEST
