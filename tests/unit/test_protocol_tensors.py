from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import safetensors.numpy

from pi_daemon.protocol.errors import TensorError
from pi_daemon.protocol.tensors import TensorSpec, model_id, read_table, require_specs

CONTENT = safetensors.numpy.save(
    {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(3, dtype=np.int64)}
)
SPECS = {"w": TensorSpec("F32", (2, 3)), "n": TensorSpec("I64", ())}


def file_of(header: object, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(begin: int, end: int, dtype: str = "U8", shape: tuple[int, ...] | None = None) -> object:
    size = (end - begin,) if shape is None else shape
    return {"dtype": dtype, "shape": size, "data_offsets": [begin, end]}


def test_a_table_says_what_lies_where() -> None:
    table = read_table(CONTENT)
    assert table.specs == SPECS
    begin, end = table.offsets["w"]
    assert CONTENT[begin:end] == np.arange(6, dtype="<f4").tobytes()


def test_a_model_is_named_by_names_shapes_dtypes_and_bytes() -> None:
    by_hand = hashlib.sha256(
        b"n\0I64\0[]\0" + np.array(3, "<i8").tobytes() + b"\0"
        b"w\0F32\0[2,3]\0" + np.arange(6, dtype="<f4").tobytes() + b"\0"
    ).hexdigest()
    assert model_id(CONTENT, read_table(CONTENT)) == by_hand


def test_a_models_name_does_not_depend_on_the_order_in_the_file() -> None:
    one = file_of({"a": entry(0, 1), "b": entry(1, 2)}, b"xy")
    other = file_of({"b": entry(0, 1), "a": entry(1, 2)}, b"yx")
    assert model_id(one, read_table(one)) == model_id(other, read_table(other))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 7,
        (1 << 63).to_bytes(8, "little"),
        CONTENT[:-1],
        CONTENT + b"\0",
        file_of(b"{", b""),
        file_of(b"[" * 10_000, b""),
        file_of([1], b""),
        file_of({"a": 1}, b""),
        file_of({"a": entry(0, 2), "b": entry(1, 3)}, b"xyz"),
        file_of({"a": entry(1, 3)}, b"xyz"),
        file_of({"a": entry(0, 1), "b": entry(2, 3)}, b"xyz"),
        file_of({"a": entry(0, 3, shape=(-1, -3))}, b"xyz"),
        file_of({"a": entry(0, 3, dtype="C64")}, b"xyz"),
        file_of({"a": entry(0, 3, dtype="F32", shape=(1,))}, b"xyz"),
        file_of({"a": entry(0, 1, shape=(1,) * 13)}, b"x"),
        b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    ],
    ids=range(17),
)
def test_a_malformed_file_is_refused(content: bytes) -> None:
    with pytest.raises(TensorError):
        read_table(content)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ({"w": SPECS["w"]}, r"tensor 'n' is missing \(1 in all\)"),
        ({**SPECS, "x": SPECS["w"]}, r"tensor 'x' does not belong to the model \(1 in all\)"),
        (
            {**SPECS, "w": TensorSpec("F32", (3, 2))},
            r"tensor 'w' is F32 \[3, 2\], expected F32 \[2, 3\]",
        ),
        ({**SPECS, "w": TensorSpec("F16", (2, 3))}, "tensor 'w' is F16"),
    ],
)
def test_a_difference_is_named(found: dict[str, TensorSpec], reason: str) -> None:
    with pytest.raises(TensorError, match=reason):
        require_specs(found, SPECS)


def test_equal_tables_fit() -> None:
    require_specs(dict(SPECS), SPECS)
