"""Models that a console would send who means harm: graphs by hand, on digits of 8x8."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import psutil
import safetensors.torch
import torch

from pi_daemon.audit.log import read_log
from pi_daemon.learning.graph import TORCH_DTYPES
from pi_daemon.protocol.graphs import (
    Argument,
    DType,
    Graph,
    InputRef,
    ModelGraphs,
    NamedTensor,
    Node,
    NodeRef,
    StateRef,
)
from pi_daemon.protocol.messages import Answer, Ok, Prepared, RefusalCode, Refused
from pi_daemon.protocol.tensors import model_id, read_table
from pi_daemon.protocol.text import clean
from tests.support.daemons import DaemonProcess
from tests.support.links import RawLink
from tests.support.rounds import TinyModel, prepare_command, start_command

X, Y, W = InputRef("x"), InputRef("y"), StateRef("w")
BATCH = 16
MEMORY = 1 << 30
"""What the daemon's owner gives the trainer."""
LIBRARIES = 700 << 20
"""Torch and the rest, whose pages are files': no limit on data memory counts them."""
DAEMON_BYTES = 200 << 20
AUDIT_S = 10.0
WEIGHT = NamedTensor("w", "F32", (64, 10))


def aten(name: str, operator: str, *args: Argument, **kwargs: Argument) -> Node:
    return Node(name, f"aten.{operator}", args, kwargs)


def ref(name: str) -> NodeRef:
    return NodeRef(name)


HONEST = (
    aten("flat", "flatten.using_ints", X, 1),
    aten("floats", "to.dtype", ref("flat"), DType("F32")),
    aten("output", "mm.default", ref("floats"), W),
    aten("loss", "cross_entropy_loss.default", ref("output"), Y),
)
"""A linear model; `loss` and `output` are what a graph returns."""


def with_loss(*nodes: Node, of: str) -> tuple[Node, ...]:
    """The honest nodes, these, and a loss into which the mean of `of` goes as well."""
    return (
        *HONEST[:3],
        *nodes,
        aten("mean", "mean.default", ref(of)),
        aten("honest", "cross_entropy_loss.default", ref("output"), Y),
        aten("loss", "add.Tensor", ref("honest"), ref("mean")),
    )


def hostile_model(
    *nodes: Node,
    evaluation: Sequence[Node] = HONEST,
    parameters: tuple[NamedTensor, ...] = (WEIGHT,),
    buffers: tuple[NamedTensor, ...] = (),
) -> TinyModel:
    """These nodes for training, and a file of zeros; nothing is checked."""
    graphs = ModelGraphs(
        training=Graph(nodes, "loss", "output"),
        evaluation=Graph(tuple(evaluation), "loss", "output"),
        parameters=parameters,
        buffers=buffers,
        sample=NamedTensor("x", "U8", (8, 8)),
        target=NamedTensor("y", "I64", ()),
    )
    return with_graphs(msgspec.json.encode(graphs), parameters + buffers)


def with_graphs(graphs: bytes, tensors: tuple[NamedTensor, ...] = (WEIGHT,)) -> TinyModel:
    """Any bytes in the place of graphs."""
    zeros = {
        spec.name: torch.zeros(spec.shape, dtype=TORCH_DTYPES[spec.dtype])
        for spec in tensors
        if math.prod(spec.shape) < 1 << 20
    }
    content = safetensors.torch.save(zeros)
    return TinyModel(graphs, content, model_id(content, read_table(content)))


def changed(path: Sequence[str | int], value: Any) -> TinyModel:
    """The honest model's JSON with one value replaced."""
    document = msgspec.json.decode(hostile_model(*HONEST).graphs)
    holder = document
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return with_graphs(msgspec.json.encode(document))


def flood(num_nodes: int) -> TinyModel:
    """Graphs with so many nodes, written as short as can be."""
    text = hostile_model(*HONEST).graphs.decode()
    nodes = ",".join(['{"name":"a","operator":"b"}'] * num_nodes)
    return with_graphs(text.replace('"nodes":[', f'"nodes":[{nodes},', 1).encode())


def endless() -> TinyModel:
    """Passes its trial in a second, and would train for hours."""
    product = (aten(f"n{i}", "mm.default", ref("big"), ref("big")) for i in range(15_000))
    return hostile_model(*with_loss(aten("big", "ones.default", (1000, 1000)), *product, of="n0"))


def slow_on_trial() -> TinyModel:
    """Takes its trial a minute, and no memory to speak of."""
    parts = (aten(f"n{i}", "unbind.int", ref("many"), 0) for i in range(1000))
    return hostile_model(
        *with_loss(
            aten("one", "zeros.default", (1,)),
            aten("many", "expand.default", ref("one"), (100_000,)),
            *parts,
            Node("n", "getitem", (ref("n0"), 0)),
            of="n",
        )
    )


async def train_well(link: RawLink) -> None:
    """What any console may, whatever this one did before."""
    good = hostile_model(*HONEST)
    assert isinstance(await prepare(link, good), Prepared)
    start = start_command(link, good, num_batches=3)
    assert await link.ask(start, good.content) == Ok(start.cmd_id)
    update, _ = await link.update()
    assert update.num_batches == 3
    assert update.loss is not None


async def prepare(link: RawLink, model: TinyModel, batch_size: int = BATCH) -> Answer:
    return await link.ask(prepare_command(link, model, batch_size=batch_size), model.graphs)


async def assert_refused(
    running: DaemonProcess, link: RawLink, answer: Answer, code: RefusalCode, reason: str
) -> None:
    """The console is told why, and the device's owner reads the same in the audit log."""
    assert isinstance(answer, Refused), answer
    assert (answer.code, re.search(reason, answer.reason) is not None) == (code, True), answer
    told = ("refused", link.run, str(code), clean(answer.reason))
    async with asyncio.timeout(AUDIT_S):
        # A thread writes it, in a moment. Read as `pi-daemon audit` does, which takes a process.
        while told not in await asyncio.to_thread(_refusals, running.state_dir):
            pass


def _refusals(state_dir: Path) -> list[tuple[Any, ...]]:
    keys = ("what", "run", "code", "reason")
    return [tuple(entry.get(key) for key in keys) for entry in read_log(state_dir)]


def assert_memory_is_bounded(running: DaemonProcess) -> None:
    """Neither the daemon nor its trainer, which must run, has ever taken more than it may."""
    assert peak_bytes(running.pid) < DAEMON_BYTES
    for process in (*running.trainers(), *trials(running)):
        assert peak_bytes(process.pid) < MEMORY + LIBRARIES


def trials(running: DaemonProcess) -> list[psutil.Process]:
    """The processes that try graphs."""
    return [child for trainer in running.trainers() for child in trainer.children(recursive=True)]


def peak_bytes(pid: int) -> int:
    """The most memory that a process has ever held."""
    [kilobytes] = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(kilobytes) << 10
