from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pi_daemon.protocol import schema
from pi_daemon.protocol.batching import batches_per_epoch
from pi_daemon.protocol.codec import (
    CHUNK_HEADER,
    IncomingTransfers,
    Unknown,
    chunk_frames,
    common_version,
    decode_from_console,
    decode_from_daemon,
    encode,
    no_common_version,
)
from pi_daemon.protocol.errors import FrameError, TransferError
from pi_daemon.protocol.limits import CHUNK_BYTES, MAX_FRAME_BYTES
from pi_daemon.protocol.messages import Blob, Hello, Ok, Prepared, RenewLease, Telemetry, Update
from pi_daemon.protocol.seeds import derive_seed


def blob_of(content: bytes, transfer: int = 1) -> Blob:
    return Blob(transfer, len(content), hashlib.sha256(content).hexdigest())


def hello(proto: int, min_proto: int) -> Hello:
    return Hello(proto, min_proto, "id", "name", "boot", "build")


def test_a_message_is_one_json_object_with_its_type() -> None:
    renew = RenewLease(cmd_id="1", run="run-1", fence=3)
    assert encode(renew) == '{"type":"lease.renew","cmd_id":"1","run":"run-1","fence":3}'
    assert decode_from_console(encode(renew)) == renew


def test_a_message_of_the_other_direction_is_unknown() -> None:
    assert decode_from_console(encode(Ok("1"))) == Unknown("ok")


@pytest.mark.parametrize(
    "message",
    [
        Prepared("1", num_examples=1, num_holdout=0, batch_seconds=1e308, memory_bytes=0),
        Telemetry(1e308, 0, 1, 2, 3, 0.5),
        Telemetry(20.0, 0, 1, 2, 3, -1e308),
    ],
)
def test_a_measure_that_no_device_can_have_is_refused(message: Prepared | Telemetry) -> None:
    with pytest.raises(FrameError, match="Expected `float`"):
        decode_from_daemon(encode(message))


def test_an_unknown_type_is_no_error() -> None:
    assert decode_from_daemon('{"type":"later","x":1}') == Unknown("later")


def test_an_unknown_field_is_ignored() -> None:
    assert decode_from_daemon('{"type":"ok","cmd_id":"1","later":true}') == Ok("1")


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "nothing",
        "[]",
        "null",
        "{}",
        '{"type":1}',
        '{"type":"lease.renew","cmd_id":"1","run":"run-1"}',
        '{"type":"lease.renew","cmd_id":"1","run":"run-1","fence":-1}',
        '{"type":"lease.renew","cmd_id":"1","run":"run-1","fence":1e400}',
        '{"type":"lease.renew","cmd_id":"1","run":"run-1","fence":NaN}',
        '{"type":"lease.renew","cmd_id":"","run":"run-1","fence":1}',
        "[" * 100_000,
        '{"type":"ok","cmd_id":' + "[" * 100_000,
        '{"type":"lease.renew","cmd_id":"1","run":"run-1","fence":' + "9" * 1_000_000 + "}",
        " " * (MAX_FRAME_BYTES + 1),
        b'{"type":"\xff"}',
    ],
    ids=range(16),
)
def test_what_is_no_message_is_refused(frame: str | bytes) -> None:
    with pytest.raises(FrameError):
        decode_from_console(frame)


@pytest.mark.parametrize("num_examples", ["0", "-1", "9223372036854775808", "1.5", "null", '"8"'])
def test_an_update_of_an_impossible_number_of_examples_is_refused(num_examples: str) -> None:
    frame = (
        '{"type":"round.update","run":"r","round":1,"attempt":1,"model_id":"%s","num_examples":%s,'
        '"num_batches":1,"loss":0.5,"seconds":1.0,"cursor":{"epoch":0,"batch":1},'
        '"parameters":{"transfer":1,"size":8,"sha256":"%s"}}'
    )
    digest = "0" * 64
    assert isinstance(decode_from_daemon(frame % (digest, "8", digest)), Update)
    with pytest.raises(FrameError, match="num_examples"):
        decode_from_daemon(frame % (digest, num_examples, digest))


def test_both_sides_speak_the_highest_version_they_have() -> None:
    assert common_version(hello(3, 1), hello(2, 2)) == 2
    assert common_version(hello(3, 3), hello(2, 1)) is None


def test_the_sentence_about_versions_fits_a_close_frame() -> None:
    assert no_common_version(hello(9, 9)) == (
        "no common protocol version: 1-1 here, 9-9 there; update this side"
    )
    assert len(no_common_version(hello(2**53 - 1, 2**53 - 1))) <= 123


def test_a_blob_arrives_as_it_was_sent() -> None:
    content = bytes(range(256)) * 3_000
    transfers = IncomingTransfers()
    incoming = transfers.announce(blob_of(content), limit_bytes=len(content))
    received = b"".join(bytes(transfers.feed(frame)[1]) for frame in chunk_frames(1, content))
    assert incoming.is_complete
    assert received == content


def test_the_hash_may_be_left_to_whoever_keeps_the_bytes() -> None:
    transfers = IncomingTransfers(are_hashed=False)
    transfers.announce(blob_of(b"abcd"), limit_bytes=4)
    incoming, _ = transfers.feed(CHUNK_HEADER.pack(1, 0) + b"abcX")
    assert incoming.is_complete


def test_two_blobs_may_arrive_by_turns() -> None:
    contents = {1: b"a" * 2 * CHUNK_BYTES, 2: b"b" * 2 * CHUNK_BYTES}
    transfers = IncomingTransfers()
    for transfer, content in contents.items():
        transfers.announce(blob_of(content, transfer), limit_bytes=1 << 20)
    frames = [list(chunk_frames(transfer, content)) for transfer, content in contents.items()]
    complete = [
        transfers.feed(frame)[0].is_complete for pair in zip(*frames, strict=True) for frame in pair
    ]
    assert complete == [False, False, True, True]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (CHUNK_HEADER.pack(2, 0) + b"ab", "chunk of transfer 2, which was not announced"),
        (CHUNK_HEADER.pack(1, 1) + b"ab", "chunk at byte 1, expected 0"),
        (CHUNK_HEADER.pack(1, 0) + b"abcde", "more than the 4 bytes that were announced"),
        (
            CHUNK_HEADER.pack(1, 0) + b"abcX",
            "the SHA-256 of the bytes is not the one that was announced",
        ),
    ],
)
def test_a_chunk_that_does_not_fit_is_refused(frame: bytes, reason: str) -> None:
    transfers = IncomingTransfers()
    transfers.announce(blob_of(b"abcd"), limit_bytes=4)
    with pytest.raises(TransferError, match=reason):
        transfers.feed(frame)


@pytest.mark.parametrize(
    "frame", [b"", b"short", CHUNK_HEADER.pack(1, 0), bytes(12 + CHUNK_BYTES + 1)], ids=range(4)
)
def test_a_binary_frame_without_a_proper_payload_is_refused(frame: bytes) -> None:
    with pytest.raises(FrameError):
        IncomingTransfers().feed(frame)


def test_blobs_are_limited_in_size_and_number() -> None:
    transfers = IncomingTransfers()
    with pytest.raises(TransferError, match="blob of 4 bytes, at most 3 allowed"):
        transfers.announce(blob_of(b"abcd"), limit_bytes=3)
    for number in range(4):
        transfers.announce(blob_of(b"abcd", number), limit_bytes=4)
    with pytest.raises(TransferError, match="transfer 3 is under way already"):
        transfers.announce(blob_of(b"abcd", 3), limit_bytes=4)
    with pytest.raises(TransferError, match="more than 4 transfers at once"):
        transfers.announce(blob_of(b"abcd", 4), limit_bytes=4)


def test_the_schema_in_the_docs_is_up_to_date() -> None:
    path = Path(__file__).parents[2] / "docs" / "protocol.schema.json"
    assert path.read_text(encoding="utf-8") == schema.text()


def test_seeds_depend_on_each_part_and_stay_what_they_are() -> None:
    assert derive_seed("order", 1, 0) != derive_seed("order", 10)
    assert derive_seed("order", 7, 0) == 8755613093327261087


@pytest.mark.parametrize(
    ("num_examples", "batch_size", "expected"),
    [(0, 4, 0), (1, 4, 0), (2, 4, 1), (8, 4, 2), (9, 4, 2), (10, 4, 3), (3, 1, 3)],
)
def test_a_last_batch_of_one_example_is_dropped(
    num_examples: int, batch_size: int, expected: int
) -> None:
    assert batches_per_epoch(num_examples, batch_size) == expected
