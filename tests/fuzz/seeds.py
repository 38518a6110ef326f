"""Writes the first inputs of the corpus anew: `python -m tests.fuzz.seeds`.

What was found by fuzzing lies beside them, and stays.
"""

from __future__ import annotations

import gzip
import io
import re
import struct
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import safetensors.numpy

from fedconsole.learning.capture import capture
from pi_daemon.device.actions import Fence
from pi_daemon.discovery import RegisteredDaemon
from pi_daemon.protocol.codec import chunk_frames
from pi_daemon.protocol.graphs import encode_graphs
from pi_daemon.protocol.messages import Cursor, RefusalCode
from pi_daemon.trainer.pipe import (
    BatchLosses,
    Failed,
    FromTrainer,
    ModelEvaluated,
    RoundTrained,
    Started,
    WorkerReady,
    frame,
)
from tests.fuzz.targets import CORPUS
from tests.support.models import REGRESSION, WEIGHTED
from tests.support.rounds import tiny_model

PROTOCOL = Path(__file__).parents[2] / "docs" / "protocol.md"

CONFIG = b"""\
[run]
task = "ecg"
rounds = 3
batch_size = 32
lr = 0.01
optimizer = "adam"
stop_at = "accuracy=0.95"
eval_every = "epoch"
workers = ["kitchen.local:10002", "[fe80::1]:10003"]
init-from = "model.safetensors"

[console]
lang = "ko"
theme = "fed-light"
timeout = 3600.5
mouse = false

[[devices]]
host = "192.168.0.52"
port = 10002
name = "kitchen"
id = "LOEWQ3QVZ5YVM6JFJFA"
"""
OWNERS_CONFIG = b"""\
port = 10003
id = "kitchen"
share_labels = true

[datasets]
digits = "sample"

[limits]
max_memory = "512M"
max_batch_seconds = 60
max_run_rounds = 100

[share]
digits = {roles = ["operator"], min_examples = 50}
"""
JOIN = f"fp1:192.168.0.52:10002:{'LOEWQ3QV' * 6}JFJA:4KAJWKBR5RGYOW7J"
HEADER = b"100 2 360 2000\n100.dat 16 200 11 1024 995 -22131 0 MLII\n100.dat 16 200 11 1024 1011 20052 0 V5\n"


def arrays(num_examples: int = 4, **more: Any) -> dict[str, Any]:
    x = np.arange(6 * num_examples, dtype=np.uint8).reshape(num_examples, 2, 3)
    return {"x": x, "y": np.arange(num_examples) % 3, **more}


def saved(*, compressed: bool = False, **found: Any) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **found)
    return file.getvalue()


def idx(code: int, array: np.ndarray[Any, Any]) -> bytes:
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, code, array.ndim]) + sizes + array.tobytes()


def from_trainer() -> list[FromTrainer]:
    return [
        Started(1234),
        BatchLosses(1, 0, (1.5, None, 0.25)),
        Failed(2, RefusalCode.BAD_GRAPH, "node n (aten.mm.default): no such shape"),
        WorkerReady(3, 100, 20, 0.01, 1 << 20),
        RoundTrained(4, 100, 10, 0.5, 1.25, Cursor(1, 2), 1000, "0" * 64),
        ModelEvaluated(5, 20, 0.5, ((9, 1), (0, 10))),
    ]


def corpus() -> dict[str, list[bytes]]:
    frames = re.findall(r"^```json\n(.+)\n```$", PROTOCOL.read_text(), flags=re.MULTILINE)
    beat = b",".join(b"%.3f" % (i / 186) for i in range(187))
    counted: dict[str, Any] = {
        "weight": np.ones((2, 3), np.float32),
        "count": np.array(1, np.int64),
    }
    return {
        "codec": [*(text.encode() for text in frames), *chunk_frames(7, b"content")],
        "tensors": [
            safetensors.numpy.save(counted),
            safetensors.numpy.save({"a": np.zeros((0, 3), np.float16)}, {"made": "here"}),
        ],
        "graphs": [
            tiny_model().graphs,
            *(encode_graphs(capture(task, 4).graphs) for task in (REGRESSION, WEIGHTED)),
        ],
        "pipe": [frame(message)[4:] for message in from_trainer()],
        "config": [CONFIG, CONFIG[: CONFIG.index(b"[console]")]],
        "daemon_config": [OWNERS_CONFIG],
        "join": [JOIN.encode(), JOIN.replace("192.168.0.52", "[fe80::1]").encode()],
        "values": [b"\x01accuracy=0.95", b"\x02[fe80::1]:10002", b"\x03 1_000.5", b"\x04epoch"],
        "state": [
            msgspec.json.encode(Fence(7, "run-1", "KEY")),
            msgspec.json.encode(RegisteredDaemon("ID", "alice", "127.0.0.1", 10002, 1)),
            b'{"time":"2026-11-27T03:00:00Z","what":"link opened","console":"desk-1"}\n',
        ],
        "texts": ["e\u0301 \u202e\x1b[2J👩\u200d🚀\u200d\tab".encode() * 3, b"\xed\xa0\x80"],
        "safetensors_data": [
            safetensors.numpy.save(arrays()),
            safetensors.numpy.save(arrays(record=np.array([100, 100, 106, 106]))),
            safetensors.numpy.save({"x": np.ones((3, 2), np.float32), "y": np.ones((3, 1))}),
        ],
        "npz": [
            saved(**arrays()),
            saved(**arrays(record=np.array(["a", "b", "b", "c"])), compressed=True),
        ],
        "heartbeats": [beat + b",0\n" + beat + b",4\r\n"],
        "idx": [
            idx(0x08, np.arange(12, dtype=np.uint8).reshape(1, 3, 4)),
            gzip.compress(idx(0x0D, np.arange(4, dtype=">f4")), mtime=0),
        ],
        "wfdb_annotations": [
            bytes.fromhex("0a040517 0900ec 0a04".replace(" ", "")) + b"\0\0\0",
            struct.pack("<2H", 22 << 10, 63 << 10 | 25)
            + b"## time resolution: 500.5\0"
            + b"\7\4\0\0",
        ],
        "wfdb_header": [HEADER, b"100 1 360\n100.dat 16\n"],
    }


def main() -> None:
    for target, inputs in corpus().items():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for number, content in enumerate(inputs, 1):
            (folder / f"seed-{number:02}").write_bytes(content)


if __name__ == "__main__":
    main()
