"""Whatever bytes come: a message as it was sent, or `ProtocolError` and nothing else."""

from __future__ import annotations

import contextlib
import hashlib
from typing import Any

import msgspec
import numpy as np
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from pi_daemon.protocol.codec import (
    IncomingTransfers,
    chunk_frames,
    decode_from_console,
    decode_from_daemon,
    encode,
)
from pi_daemon.protocol.errors import ProtocolError
from pi_daemon.protocol.messages import (
    Batches,
    Blob,
    Cursor,
    Evaluated,
    RefusalCode,
    Refused,
    StartRound,
    TakeLease,
    Update,
)
from pi_daemon.protocol.tensors import model_id, read_table

names = st.text(min_size=1, max_size=128).filter(lambda text: text.isprintable())
counts = st.integers(0, 2**53 - 1)
positives = st.integers(1, 2**53 - 1)
digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
losses = st.none() | st.floats(allow_nan=False, allow_infinity=False)
blobs = st.builds(Blob, st.integers(0, 2**32 - 1), st.integers(1, 4 << 30), digests)
cursors = st.builds(Cursor, counts, counts)
seconds = st.floats(0, 1e9)

from_console = st.one_of(
    st.builds(TakeLease, cmd_id=names, run=names, fence=counts, take_over=st.booleans()),
    st.builds(
        StartRound,
        cmd_id=names,
        run=names,
        fence=counts,
        round=positives,
        attempt=positives,
        model_id=digests,
        model=st.none() | blobs,
        cursor=cursors,
        num_batches=positives,
        torch_seed=st.integers(0, 10**19 - 1).map(str),
    ),
)
from_daemon = st.one_of(
    st.builds(Refused, names, st.sampled_from(RefusalCode), st.text(max_size=100)),
    st.builds(
        Batches,
        names,
        positives,
        positives,
        counts,
        positives,
        st.lists(losses, min_size=1, max_size=20).map(tuple),
    ),
    st.builds(
        Update,
        run=names,
        round=positives,
        attempt=positives,
        model_id=digests,
        num_examples=positives,
        num_batches=positives,
        loss=losses,
        seconds=seconds,
        cursor=cursors,
        parameters=blobs,
    ),
    st.builds(
        Evaluated,
        names,
        counts,
        counts,
        losses,
        st.none() | st.lists(st.lists(counts, max_size=3).map(tuple), max_size=3).map(tuple),
    ),
)


@given(from_console)
def test_a_consoles_message_survives_the_wire(message: Any) -> None:
    assert decode_from_console(encode(message)) == message


@given(from_daemon)
def test_a_daemons_message_survives_the_wire(message: Any) -> None:
    assert decode_from_daemon(encode(message)) == message


@given(st.one_of(from_console, from_daemon), st.data())
def test_a_damaged_frame_is_a_message_or_a_protocol_error(
    message: Any, data: st.DataObject
) -> None:
    frame = bytearray(msgspec.json.encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    del frame[data.draw(st.integers(0, len(frame))) :]
    for decode in (decode_from_console, decode_from_daemon):
        with contextlib.suppress(ProtocolError):
            decode(bytes(frame))


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_any_frame_is_a_message_or_a_protocol_error(frame: bytes | str) -> None:
    for decode in (decode_from_console, decode_from_daemon):
        with contextlib.suppress(ProtocolError):
            decode(frame)


@given(st.binary(min_size=1, max_size=1000), st.data())
def test_a_damaged_chunk_never_completes_a_blob(content: bytes, data: st.DataObject) -> None:
    [frame] = chunk_frames(1, content)
    damaged = bytearray(frame)
    index = data.draw(st.integers(0, len(frame) - 1))
    damaged[index] ^= data.draw(st.integers(1, 255))
    transfers = IncomingTransfers()
    incoming = transfers.announce(
        Blob(1, len(content), hashlib.sha256(content).hexdigest()), limit_bytes=1000
    )
    with contextlib.suppress(ProtocolError):
        transfers.feed(bytes(damaged))
        raise AssertionError("the damage went unnoticed")
    assert transfers.feed(frame)[0] is incoming if incoming.received == 0 else True


@given(st.data())
def test_a_damaged_tensor_file_is_read_or_a_protocol_error(data: st.DataObject) -> None:
    content = bytearray(
        safetensors.numpy.save(
            {"weight": np.zeros((2, 3), np.float32), "count": np.array(1, np.int64)}
        )
    )
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(0, len(content))) :]
    with contextlib.suppress(ProtocolError):
        model_id(bytes(content), read_table(bytes(content)))
