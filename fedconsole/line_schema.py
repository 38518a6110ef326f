"""Writes the JSON Schema of a run's JSON lines: `python -m fedconsole.line_schema FILE`.

What the machine announces is taken from its facts; what only the engine knows is described here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from fedconsole.coordinator import facts
from fedconsole.coordinator.state import Metric


class RunStalled(Struct, tag="run.stalled"):
    """The journal cannot be written; the line is not in it."""

    reason: str


class WorkerPhase(Struct, tag="worker.phase"):
    worker: str
    round: int | None
    phase: Literal["receiving", "training", "sending", "waiting", "paused"]


class WorkerBatches(Struct, tag="worker.batches"):
    worker: str
    round: int
    first: int
    batches: int
    losses: tuple[Metric, ...]


class WorkerTelemetry(Struct, tag="worker.telemetry"):
    worker: str
    celsius: float | None
    throttled: int | None
    memory_bytes: int | None
    load: float | None
    disk_free_bytes: int | None = None


class Log(Struct, tag="log"):
    text: str
    worker: str | UnsetType = UNSET
    level: str | UnsetType = UNSET
    dropped: int | UnsetType = UNSET


class Heartbeat(Struct, tag="heartbeat"):
    text: str


class Preflight(Struct, tag="preflight"):
    """Of one worker in a dry run."""

    worker: str
    address: str
    ok: bool
    reason: str | None
    num_examples: int | UnsetType = UNSET
    num_holdout: int | UnsetType = UNSET
    batch_seconds: float | UnsetType = UNSET
    memory_bytes: int | UnsetType | None = UNSET
    torch: str | UnsetType | None = UNSET
    machine: str | UnsetType | None = UNSET
    dataset: str | UnsetType = UNSET
    worries: tuple[str, ...] | UnsetType = UNSET


LINES: Final = (
    *facts.Fact.__args__,
    *(RunStalled, WorkerPhase, WorkerBatches, WorkerTelemetry, Log, Heartbeat, Preflight),
)

_NUMBER: Final = {"type": "number"}
_BYTES: Final = {"bytes_sent": {"type": "integer"}, "bytes_received": {"type": "integer"}}
_METRIC: Final = {"type": ["number", "null"]}
_ADDED: Final[dict[str, dict[str, Any]]] = {
    "RunCreated": {"folder": {"type": "string"}},
    "RunQuorum": {"seconds_left": _NUMBER},
    "RunFinished": {"seconds": _NUMBER},
    "RoundFinished": {"seconds": _NUMBER, **_BYTES},
    "WorkerUpdate": _BYTES,
    "Eval": {"loss": _METRIC},
}
"""By class: what the engine adds to a fact."""
_METRICS: Final = "^(holdout_)?(loss|accuracy|macro_f1|(recall|precision|f1)_.+)$"
_ALWAYS: Final = {
    "RunFinished": ["outcome", "reason", "exit_code"],
    "RoundStarted": ["round", "attempt", "cohort"],
    "Eval": ["round", "num_examples"],
}
"""Less than the class requires: a metric is no field, and an engine that cannot write its journal knows
less of the end. Journals from before 0.1.0 have no `epoch`."""


def schema() -> dict[str, Any]:
    """Of one line (JSON Schema 2020-12). Types and fields that it does not name are allowed."""
    _, parts = msgspec.json.schema_components(LINES, ref_template="#/$defs/{name}")
    for name, added in _ADDED.items():
        parts[name]["properties"] |= added
    for name, required in _ALWAYS.items():
        parts[name]["required"] = ["type", *required]
    del parts["Eval"]["properties"]["metrics"]
    parts["Eval"]["patternProperties"] = {_METRICS: _METRIC}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A JSON line of a run of fedconsole",
        "type": "object",
        "properties": {
            "v": {"const": 1},
            "seq": {"type": "integer", "minimum": 0},
            "time": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"},
            "type": {"type": "string"},
            "run": {"type": "string"},
        },
        "required": ["v", "seq", "time", "type", "run"],
        "allOf": [
            {
                "if": {"properties": {"type": {"const": line.__struct_config__.tag}}},
                "then": {"$ref": f"#/$defs/{line.__name__}"},
            }
            for line in LINES
        ],
        "$defs": parts,
    }


def text() -> str:
    """What the file holds."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(text(), encoding="utf-8")
