"""Models and rounds of a console that means harm: each is refused by name or ends by itself, and the same
console can train a good model afterwards."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from msgspec.structs import replace

from pi_daemon.protocol.graphs import DType, NamedTensor, OptimizerSpec, StateRef
from pi_daemon.protocol.limits import MAX_BATCHES
from pi_daemon.protocol.messages import Abort, Ok, Prepared, RefusalCode, RoundFailed
from pi_daemon.protocol.tensors import model_id, read_table
from tests.support.daemons import DaemonProcess
from tests.support.hostile import (
    BATCH,
    HONEST,
    WEIGHT,
    X,
    assert_memory_is_bounded,
    assert_refused,
    aten,
    hostile_model,
    prepare,
    ref,
    train_well,
    with_loss,
)
from tests.support.links import RawLink
from tests.support.rounds import TinyModel, prepare_command, start_command

pytestmark = pytest.mark.asyncio(loop_scope="module")


def tensor_file(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(begin: int, end: int, shape: tuple[int, ...] = (64, 10), dtype: str = "F32") -> object:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


SIZE = 64 * 10 * 4
MODELS: dict[str, tuple[bytes, str]] = {
    "a header longer than the file": (struct.pack("<Q", 1 << 63) + b"{}", "tensor header of"),
    "a header that is no JSON": (tensor_file(b"[" * 1_000), "tensor header is malformed"),
    "offsets beyond the end": (tensor_file({"w": entry(0, SIZE)}), "tensor file of"),
    "overlapping offsets": (
        tensor_file({"w": entry(0, SIZE), "v": entry(8, SIZE + 8)}, bytes(SIZE + 8)),
        "lies at bytes 8 to",
    ),
    "negative offsets": (tensor_file({"w": entry(-8, SIZE - 8)}, bytes(SIZE)), "lies at bytes -8"),
    "a shape of 2**126 values": (
        tensor_file({"w": entry(0, SIZE, (1 << 63, 1 << 63))}, bytes(SIZE)),
        "lies at bytes 0",
    ),
    "a pickle": (b"\x80\x04cos\nsystem\n(S'id'\ntR.", "tensor header of"),
    "another dtype": (
        tensor_file({"w": entry(0, SIZE, (64, 20), "F16")}, bytes(SIZE)),
        r"tensor 'w' is F16 \[64, 20\], expected F32",
    ),
    "another shape": (
        tensor_file({"w": entry(0, SIZE, (10, 64))}, bytes(SIZE)),
        r"tensor 'w' is F32 \[10, 64\], expected F32 \[64, 10\]",
    ),
    "another name": (tensor_file({"v": entry(0, SIZE)}, bytes(SIZE)), "tensor 'w' is missing"),
    "a dtype that does not travel": (
        tensor_file({"w": entry(0, SIZE, (64, 5), "C64")}, bytes(SIZE)),
        "dtype 'C64', which does not travel",
    ),
    "bytes after the end": (
        tensor_file({"w": entry(0, SIZE)}, bytes(SIZE + 1)),
        "tensor file of",
    ),
    "metadata that is no text": (
        tensor_file({"__metadata__": {"a": 1}, "w": entry(0, SIZE)}, bytes(SIZE)),
        "",
    ),
}


async def test_a_model_file_is_refused_by_what_is_wrong_with_it(
    alice: DaemonProcess, link: RawLink
) -> None:
    good = hostile_model(*HONEST)
    assert isinstance(await prepare(link, good), Prepared)
    for name, (content, reason) in MODELS.items():
        start = replace(start_command(link, good), model=link.blob(content))
        answer = await link.ask(start, content)
        try:
            await assert_refused(alice, link, answer, RefusalCode.BAD_MODEL, reason)
        except AssertionError as error:
            error.add_note(name)
            raise
    await train_well(link)


async def test_a_model_of_nan_is_trained_and_its_losses_are_told_as_none(link: RawLink) -> None:
    good = hostile_model(*HONEST)
    assert isinstance(await prepare(link, good), Prepared)
    content = safetensors.numpy.save({"w": np.full((64, 10), np.nan, np.float32)})
    bad = replace_content(good, content, model_id(content, read_table(content)))
    start = start_command(link, bad, num_batches=2)
    assert await link.ask(start, bad.content) == Ok(start.cmd_id)
    update, _ = await link.update()
    assert update.loss is None
    await train_well(link)


def replace_content(model: TinyModel, content: bytes, model_id: str) -> TinyModel:
    return TinyModel(model.graphs, content, model_id)


async def test_a_round_that_never_ends_is_refused_and_a_long_one_can_be_broken_off(
    alice: DaemonProcess,
    link: RawLink,
) -> None:
    good = hostile_model(*HONEST)
    assert isinstance(await prepare(link, good), Prepared)
    endless = start_command(link, good, num_batches=2**53 - 1)
    answer = await link.ask(endless, good.content)
    await assert_refused(alice, link, answer, RefusalCode.NOT_ALLOWED, f"allows {MAX_BATCHES}")
    longest = start_command(link, good, num_batches=MAX_BATCHES)
    assert await link.ask(longest, good.content) == Ok(longest.cmd_id)
    abort = Abort(cmd_id=link.new_cmd_id(), run=link.run, fence=link.fence, round=1)
    assert await link.ask(abort) == Ok(abort.cmd_id)
    await train_well(link)


async def test_a_model_that_kills_the_trainer_in_mid_round_fails_that_round_only(
    alice: DaemonProcess, link: RawLink
) -> None:
    good = hostile_model(*HONEST)
    assert isinstance(await prepare(link, good), Prepared)
    start = start_command(link, good, num_batches=MAX_BATCHES)
    assert await link.ask(start, good.content) == Ok(start.cmd_id)
    [trainer] = alice.trainers()
    trainer.kill()
    failed = await link.expect(RoundFailed)
    assert "the trainer was killed" in failed.reason
    await train_well(link)


async def test_an_operation_that_fails_on_examples_tells_nothing_of_them(link: RawLink) -> None:
    # The index that torch's error quotes is made of a batch.
    quoting = hostile_model(
        *with_loss(
            aten("ints", "to.dtype", X, DType("I64")),
            aten("sum", "sum.dim_IntList", ref("ints"), (0,)),
            aten("one", "zeros.default", (1,)),
            aten("picked", "index.Tensor", ref("one"), (ref("sum"),)),
            aten("n", "sum.default", ref("picked")),
            of="n",
        )
    )
    # To make it ready no example is computed with.
    assert isinstance(await prepare(link, quoting), Prepared)
    start = start_command(link, quoting, num_batches=1)
    assert await link.ask(start, quoting.content) == Ok(start.cmd_id)
    failed = await link.expect(RoundFailed)
    assert failed.reason == (
        "node picked (aten.index.Tensor): IndexError on this device's examples; the device's own log "
        "says more"
    )
    await train_well(link)


async def test_an_update_can_be_the_batch_itself_as_the_documentation_says(
    link: RawLink, data: Path
) -> None:
    copy = NamedTensor("copy", "F32", (BATCH, 8, 8))
    nodes = (
        aten("floats", "to.dtype", X, DType("F32")),
        aten("product", "mul.Tensor", StateRef("copy"), ref("floats")),
        aten("loss", "sum.default", ref("product")),
        aten("output", "flatten.using_ints", ref("floats"), 1),
    )
    thief = hostile_model(*nodes, parameters=(copy, WEIGHT))
    command = prepare_command(
        link, thief, holdout=0.0, batch_size=BATCH, optimizer=OptimizerSpec("sgd", lr=1.0)
    )
    assert isinstance(await link.ask(command, thief.graphs), Prepared)
    start = start_command(link, thief, num_batches=1)
    assert await link.ask(start, thief.content) == Ok(start.cmd_id)
    _, content = await link.update()
    stolen = -safetensors.numpy.load(content)["copy"]
    owned = {image.tobytes() for image in np.load(data)["x"]}
    assert {image.astype(np.uint8).tobytes() for image in stolen} <= owned


async def test_neither_the_daemon_nor_its_trainer_took_more_memory_than_they_may(
    alice: DaemonProcess, link: RawLink
) -> None:
    """Last: after all of the above."""
    assert isinstance(await prepare(link, hostile_model(*HONEST)), Prepared)
    assert_memory_is_bounded(alice)
