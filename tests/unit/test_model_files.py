from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fedconsole.learning.contents import WrittenModel
from fedconsole.learning.model_files import ModelFile, pieces, spec_of, write_model
from pi_daemon.protocol.errors import TensorError
from pi_daemon.protocol.tensors import model_id, read_table

TENSORS = {
    "b": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "a.long": torch.tensor([1, -2]),
    "empty": torch.zeros(0, 4),
    "half": torch.tensor([1.5], dtype=torch.bfloat16),
    "scalar": torch.tensor(7),
    "flag": torch.tensor([True, False, True]),
}


def write(path: Path) -> WrittenModel:
    specs = {name: spec_of(tensor) for name, tensor in TENSORS.items()}
    return write_model(path, specs, lambda name: [TENSORS[name]])


def test_the_library_reads_what_we_write(tmp_path: Path) -> None:
    written = write(tmp_path / "model")
    loaded = load_file(tmp_path / "model")
    assert loaded.keys() == TENSORS.keys()
    assert all(torch.equal(loaded[name], TENSORS[name]) for name in TENSORS)
    content = (tmp_path / "model").read_bytes()
    assert (written.sha256, written.size) == (hashlib.sha256(content).hexdigest(), len(content))


def test_we_read_what_the_library_writes(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "model", metadata={"made": "elsewhere"})
    tensors = ModelFile.open(tmp_path / "model").tensors()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def test_tensors_that_are_not_aligned_are_read(tmp_path: Path) -> None:
    header = json.dumps({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    header += b" " * (-len(header) % 8 + 3)
    body = torch.tensor([1.0, 2.0]).numpy().tobytes()
    (tmp_path / "m").write_bytes(len(header).to_bytes(8, "little") + header + body)
    assert torch.equal(ModelFile.open(tmp_path / "m").tensor("x"), torch.tensor([1.0, 2.0]))


def test_the_model_id_does_not_depend_on_who_wrote_the_file(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "theirs", metadata={"made": "elsewhere"})
    theirs = (tmp_path / "theirs").read_bytes()
    assert write(tmp_path / "ours").model_id == model_id(theirs, read_table(theirs))


def test_a_tensor_may_be_written_and_read_in_pieces(tmp_path: Path) -> None:
    x = torch.arange(300_000, dtype=torch.float32)
    whole = write_model(tmp_path / "a", {"x": spec_of(x)}, lambda name: [x])
    assert write_model(tmp_path / "b", {"x": spec_of(x)}, lambda name: x.split(70_001)) == whole
    file = ModelFile.open(tmp_path / "b")
    read = [file.piece("x", begin, end) for begin, end in pieces(len(x))]
    assert len(read) > 1
    assert torch.equal(torch.cat(read), x)


def test_a_file_that_becomes_shorter_is_noticed(tmp_path: Path) -> None:
    write(tmp_path / "model")
    file = ModelFile.open(tmp_path / "model")
    os.truncate(tmp_path / "model", file.table.offsets["b"][1] - 1)
    with pytest.raises(TensorError, match="has become shorter"):
        file.tensor("b")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model"
    write(path)
    before = path.read_bytes()
    expected = {"x": spec_of(torch.zeros(3))}
    with pytest.raises(ValueError, match="x has 16 bytes, not the 12 of"):
        write_model(path, expected, lambda name: [torch.zeros(4)])
    with pytest.raises(ValueError, match=r"x has values of torch.int64, not of F32"):
        write_model(path, expected, lambda name: [torch.zeros(3, dtype=torch.int64)])
    assert path.read_bytes() == before


def test_a_file_that_is_no_tensor_file_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\x80\x04]q\x00." * 9)
    with pytest.raises(TensorError, match="tensor header of"):
        ModelFile.open(tmp_path / "x")
