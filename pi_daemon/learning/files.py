"""The files between a trainer and its owner: the global model comes in, the update goes out."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pi_daemon.learning.trial import Refusal
from pi_daemon.protocol import tensors
from pi_daemon.protocol.graphs import ModelGraphs, NamedTensor
from pi_daemon.protocol.messages import RefusalCode


@dataclass(frozen=True, slots=True)
class Model:
    """A global model. Its tensors are the pages of its file: nobody writes to them."""

    parameters: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]


def read_model(path: str, model_id: str, graphs: ModelGraphs) -> Model:
    """Read a safetensors file.

    Raises:
        Refusal: the file is malformed, holds another model, or fits other graphs.
    """
    specs = {tensor.name: tensor.spec for tensor in graphs.parameters + graphs.buffers}
    try:
        with Path(path).open("rb") as file:
            # Not closed by hand: the error that is raised below may still hold a part of it.
            view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        table = tensors.read_table(view)
        tensors.require_specs(table.specs, specs)
        found = tensors.model_id(view, table)
    except (ValueError, OSError) as error:
        raise Refusal(RefusalCode.BAD_MODEL, f"model: {error}") from error
    if found != model_id:
        raise Refusal(
            RefusalCode.BAD_MODEL, f"the model is {found[:12]}..., expected {model_id[:12]}..."
        )
    try:
        loaded = load_file(path)
    except SafetensorError as error:
        raise Refusal(RefusalCode.BAD_MODEL, f"model: {error}") from error
    parameters = {spec.name: loaded.pop(spec.name) for spec in graphs.parameters}
    return Model(parameters, loaded)


def write_update(
    path: str, returned: Sequence[NamedTensor], state: Mapping[str, Tensor]
) -> tuple[int, str]:
    """Write the tensors that go back as a safetensors file; gives its size and SHA-256."""
    digest = hashlib.sha256()
    with Path(path).open("wb") as file:

        def write(part: bytes | memoryview) -> None:
            file.write(part)
            digest.update(part)

        write(tensors.write_header({tensor.name: tensor.spec for tensor in returned}))
        for tensor in returned:
            values = state[tensor.name].detach().cpu().contiguous()
            write(values.reshape(-1).view(torch.uint8).numpy().data)
        return file.tell(), digest.hexdigest()
