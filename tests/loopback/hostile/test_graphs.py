"""Graphs of a console that means harm: each is refused with a reason that console and owner are told, and the
same console can train a good model afterwards."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from websockets.exceptions import ConnectionClosed

from pi_daemon.protocol.graphs import MAX_NODES, DType, NamedTensor, Node, StateRef
from pi_daemon.protocol.limits import MAX_GRAPHS_BYTES
from pi_daemon.protocol.messages import Prepared, RefusalCode
from tests.support.daemons import DaemonProcess
from tests.support.hostile import (
    BATCH,
    HONEST,
    WEIGHT,
    W,
    X,
    Y,
    assert_memory_is_bounded,
    assert_refused,
    aten,
    changed,
    flood,
    hostile_model,
    prepare,
    ref,
    train_well,
    with_graphs,
    with_loss,
)
from tests.support.links import RawLink
from tests.support.rounds import TinyModel

pytestmark = pytest.mark.asyncio(loop_scope="module")

TERABYTE = 1 << 40
TABLE = NamedTensor("table", "F32", (BATCH, 64))
COUNTER = NamedTensor("counter", "I64", ())
BAD, LARGE = RefusalCode.BAD_GRAPH, RefusalCode.TOO_LARGE


def scalar(*nodes: Node) -> TinyModel:
    """These nodes, the last of which is called n, in a model that trains otherwise."""
    return hostile_model(*with_loss(*nodes, of="n"))


UNRUN: dict[str, tuple[Callable[[], TinyModel], RefusalCode, str]] = {
    "an operator that reads files": (
        lambda: scalar(aten("n", "from_file.default", "/etc/passwd")),
        BAD,
        r"node n: operator 'aten\.from_file\.default' is not allowed",
    ),
    "a module by its name": (
        lambda: scalar(Node("n", "os.system", ("id",))),
        BAD,
        "operator 'os.system' is not allowed",
    ),
    "a reference to a later node": (
        lambda: scalar(aten("n", "relu.default", ref("loss"))),
        BAD,
        "uses 'loss', which no earlier node computes",
    ),
    "a reference to nothing": (
        lambda: scalar(aten("n", "relu.default", StateRef("other"))),
        BAD,
        "uses 'other', which is no parameter and no buffer",
    ),
    "half a million nodes": (
        lambda: flood(500_000),
        BAD,
        f"nodes, at most {MAX_NODES} are allowed",
    ),
    "a hundred thousand brackets": (
        lambda: with_graphs(b'{"training":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        BAD,
        "the graphs are malformed",
    ),
    "a number of a million digits": (
        lambda: with_graphs(
            hostile_model(*HONEST).graphs.replace(
                b'"shape":[8,8]', b'"shape":[%s]' % (b"9" * 10**6)
            )
        ),
        BAD,
        "the graphs are malformed",
    ),
    "bytes that are no text": (
        lambda: with_graphs(hostile_model(*HONEST).graphs.replace(b"floats", b"\xff\xfe")),
        BAD,
        "the graphs are malformed",
    ),
    "a pickle": (lambda: with_graphs(b"\x80\x04cos\nsystem\n(S'id'\ntR."), BAD, "malformed"),
    "a constant of four million numbers": (
        lambda: scalar(aten("n", "reshape.default", ref("output"), (1,) * 4_000_000)),
        BAD,
        "has a list of 4000000, at most",
    ),
    "a name of ten megabytes": (
        lambda: changed(["training", "nodes", 0, "operator"], "\U0001f600" * 2_500_000),
        BAD,
        "is not allowed|operator",
    ),
    "a dtype by its number": (
        lambda: scalar(aten("n", "zeros.default", (2,), dtype=13)),
        BAD,
        r"node n \(aten.zeros.default\) has a dtype that is none",
    ),
    "a layout by its number": (
        lambda: scalar(aten("n", "zeros.default", (2, 2), layout=1)),
        BAD,
        r"node n \(aten.zeros.default\) has a layout that is none",
    ),
    "a device in words": (
        lambda: scalar(aten("n", "to.device", ref("output"), "cpu", DType("F32"))),
        BAD,
        r"node n \(aten.to.device\) has a device that is none",
    ),
    "uninitialised memory of an embedding bag": (
        lambda: scalar(aten("n", "embedding_bag.default", W, ref("flat"), ref("flat"))),
        BAD,
        "node n: operator 'aten.embedding_bag.default' is not allowed",
    ),
    "examples in a buffer": (
        lambda: hostile_model(
            *with_loss(aten("n", "add_.Tensor", StateRef("table"), ref("floats")), of="n"),
            buffers=(TABLE,),
        ),
        BAD,
        "writes in place to something that is not its own",
    ),
    "examples in a parameter": (
        lambda: scalar(aten("n", "add_.Tensor", W, 1.0)),
        BAD,
        "writes w, which is no buffer of batch norm's|is not its own",
    ),
    "examples in a counter": (
        lambda: hostile_model(
            *with_loss(aten("n", "add_.Tensor", StateRef("counter"), Y), of="n"),
            buffers=(COUNTER,),
        ),
        BAD,
        "writes in place to something that is not its own",
    ),
    "one tensor as parameter and buffer": (
        lambda: hostile_model(*HONEST, buffers=(WEIGHT,)),
        BAD,
        "two tensors are called w",
    ),
}
TRIED: dict[str, tuple[Callable[[], TinyModel], RefusalCode, str]] = {
    "a result out of range": (
        lambda: scalar(
            aten("parts", "split.Tensor", ref("output"), 5, 1),
            Node("n", "getitem", (ref("parts"), 1 << 60)),
        ),
        BAD,
        r"node n \(getitem\): list index out of range",
    ),
    "a terabyte of zeros": (
        lambda: scalar(aten("n", "zeros.default", (TERABYTE // 4,))),
        LARGE,
        "the model needs",
    ),
    "a terabyte that is a view of one number": (
        lambda: scalar(
            aten("one", "zeros.default", (1,)),
            aten("n", "expand.default", ref("one"), (TERABYTE // 4,)),
        ),
        LARGE,
        "the model needs",
    ),
    "a terabyte of parameters": (
        lambda: hostile_model(
            *HONEST, parameters=(WEIGHT, NamedTensor("big", "F32", (TERABYTE // 4,)))
        ),
        LARGE,
        "the model needs",
    ),
    "a hundred million tensors out of one": (
        lambda: scalar(
            aten("one", "zeros.default", (1,)),
            aten("many", "expand.default", ref("one"), (100_000_000,)),
            aten("parts", "unbind.int", ref("many"), 0),
            Node("n", "getitem", (ref("parts"), 0)),
        ),
        BAD,
        "bad_alloc|crashed on trial, or took too long or too much memory",
    ),
    "sizes that depend on the batch, and explode in evaluation": (
        lambda: hostile_model(
            *HONEST,
            evaluation=(
                *HONEST,
                aten("size", "sym_size.int", X, 0),
                Node("missing", "sub", (1000, ref("size"))),
                Node("much", "mul", (ref("missing"), 1 << 30)),
                aten("n", "zeros.default", (ref("much"),)),
            ),
        ),
        LARGE,
        "the model needs|does not fit",
    ),
    "scratch memory that no trial sees": (
        lambda: scalar(
            aten("image", "zeros.default", (1, 1, 1500, 1500), dtype=DType("F64")),
            aten("kernel", "zeros.default", (1, 1, 40, 40), dtype=DType("F64")),
            aten("n", "conv2d.default", ref("image"), ref("kernel")),
        ),
        BAD,
        "memory",
    ),
    "a loss that is none": (
        lambda: hostile_model(*HONEST[:3], aten("loss", "neg.default", ref("output"))),
        BAD,
        "does not return a scalar loss",
    ),
    "a loss that nothing can be learnt by": (
        lambda: hostile_model(*HONEST[:3], aten("loss", "mean.default", ref("floats"))),
        BAD,
        "does not depend on any parameter",
    ),
    "examples in a view of a buffer": (
        lambda: hostile_model(
            *with_loss(
                aten("view", "view.default", StateRef("table"), (BATCH, 64)),
                aten("n", "add_.Tensor", ref("view"), ref("floats")),
                of="n",
            ),
            buffers=(TABLE,),
        ),
        BAD,
        "writes to what it was given",
    ),
    "windows of a max pool that begin in the padding, and go on behind the values": (
        lambda: scalar(
            aten("image", "ones.default", (1, 1, 8, 64)),
            aten("n", "max_pool2d.default", ref("image"), (2, 1), (1, 1), (1, 0), (9, 1)),
        ),
        BAD,
        r"node n \(aten.max_pool2d.default\): has a dilation of 9, which is more than 8 values",
    ),
}
"""These pass every check that needs no run."""
for kind, states in (("lstm", (ref("state"), ref("state"))), ("gru", ref("state"))):
    TRIED[f"weights of a {kind} that torch broadcasts, and overruns in training"] = (
        partial(
            scalar,
            aten("step", "ones.default", (1, 1, 1)),
            aten("state", "zeros.default", (1, 1, 64)),
            aten("w_ih", "ones.default", (4, 1)),
            aten("w_hh", "ones.default", (4, 64)),
            aten(
                *("layer", f"{kind}.input", ref("step"), states, (ref("w_ih"), ref("w_hh"))),
                *(False, 1, 0.0, True, False, False),
            ),
            Node("n", "getitem", (ref("layer"), 0)),
        ),
        BAD,
        rf"node layer \(aten.{kind}.input\): has the shape \(4, 1\), expected",
    )


@pytest.mark.parametrize("case", UNRUN)
async def test_a_graph_is_refused_unrun(alice: DaemonProcess, link: RawLink, case: str) -> None:
    make, code, reason = UNRUN[case]
    await assert_refused(alice, link, await prepare(link, make()), code, reason)


@pytest.mark.parametrize("case", TRIED)
async def test_a_graph_is_refused_after_its_trial(
    alice: DaemonProcess, link: RawLink, case: str
) -> None:
    make, code, reason = TRIED[case]
    await assert_refused(alice, link, await prepare(link, make()), code, reason)


async def test_after_all_of_them_a_good_model_trains(link: RawLink) -> None:
    await train_well(link)


async def test_a_million_nodes_do_not_even_arrive(link: RawLink) -> None:
    model = flood(1_000_000)
    assert len(model.graphs) > MAX_GRAPHS_BYTES
    with pytest.raises(ConnectionClosed) as closed:
        await prepare(link, model)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4400
    assert "at most 16777216 allowed" in closed.value.rcvd.reason


async def test_neither_the_daemon_nor_its_trainer_took_more_memory_than_they_may(
    alice: DaemonProcess, link: RawLink
) -> None:
    """Last: after all of the above."""
    assert isinstance(await prepare(link, hostile_model(*HONEST)), Prepared)
    assert_memory_is_bounded(alice)
