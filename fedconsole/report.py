"""What is told of runs outside of the console: Markdown, CSV and SVG of one, a comparison of several.

Pure. What goes into Markdown and SVG is made harmless; CSV holds the values as they are.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fedconsole.coordinator.plan import Plan
from pi_daemon.protocol.text import clean

if TYPE_CHECKING:
    from fedconsole.history import RoundSummary, RunSummary
    from fedconsole.tui.widgets.curves import Curve

Line = Mapping[str, Any]
Row = dict[str, Any]

LINE_TYPES: Final = ("round.started", "worker.update", "worker.rejected", "eval")
"""All that `make_record` looks at."""
OUTCOME_COLUMNS: Final = (
    *("run", "state", "task", "started", "seconds", "rounds", "workers"),
    *("loss", "accuracy", "macro_f1"),
)
CLASS_COLUMNS: Final = ("class", "examples", "recall", "precision", "f1")
CSV_COLUMNS: Final = (
    *("round", "seconds", "updates", "training_loss", "loss", "accuracy"),
    *("bytes_sent", "bytes_received", "model_id", "macro_f1"),
)
"""The fields of a `RoundSummary`."""
_WORKER_COLUMNS: Final = ("worker", "delivered", "rejected", "absent", "examples", "loss")
_ROUND_COLUMNS: Final = (
    *("round", "seconds", "updates", "training_loss", "loss", "accuracy", "macro_f1"),
)
_MOST = 10_000
"""Characters of a cell: a hundred names of workers have room."""
MOST_COMPARED: Final = 4
_MAX_NAMED: Final = 8
"""Curves that can be told apart; more become a band."""


class Part(StrEnum):
    """What a worker of a round's cohort did in it."""

    DELIVERED = "delivered"
    REJECTED = "rejected"
    ABSENT = "absent"


@dataclass(slots=True)
class WorkerRecord:
    """One worker through a run."""

    parts: dict[int, Part] = field(default_factory=dict)
    """By round; a round in whose cohort it was not is missing."""
    losses: dict[int, float | None] = field(default_factory=dict)
    """Means of its training, of the rounds that it delivered."""
    num_examples: int = 0

    def count(self, part: Part) -> int:
        return sum(one is part for one in self.parts.values())


@dataclass(frozen=True, slots=True)
class RunRecord:
    """All that a report tells of a run."""

    summary: RunSummary
    rounds: Sequence[RoundSummary]
    workers: Mapping[str, WorkerRecord]
    """In the order of their first cohort."""
    confusion: Mapping[str, Sequence[int]]
    """Of the last evaluation; empty without classes."""


def make_record(
    summary: RunSummary, rounds: Sequence[RoundSummary], lines: Iterable[Line]
) -> RunRecord:
    """Gather what the journal's lines say; types other than `LINE_TYPES` are passed over."""
    workers: dict[str, WorkerRecord] = {}
    confusion: Mapping[str, Sequence[int]] = {}
    for line in lines:
        match line["type"]:
            case "round.started":
                for name in line["cohort"]:
                    worker = workers.setdefault(name, WorkerRecord())
                    worker.parts.setdefault(line["round"], Part.ABSENT)
            case "worker.update":
                worker = workers.setdefault(line["worker"], WorkerRecord())
                worker.parts[line["round"]] = Part.DELIVERED
                worker.losses[line["round"]] = line["loss"]
                worker.num_examples += line["num_examples"]
            case "worker.rejected":
                worker = workers.setdefault(line["worker"], WorkerRecord())
                # A copy of what was counted says nothing against it.
                if worker.parts.get(line["round"]) is not Part.DELIVERED:
                    worker.parts[line["round"]] = Part.REJECTED
            case "eval" if line.get("worker") is None:
                confusion = line.get("confusion") or {}
    return RunRecord(summary, rounds, workers, confusion)


# Plans and outcomes


@cache
def _defaults() -> Row:
    plan: Row = msgspec.to_builtins(Plan(virtual=1))
    return plan | {"virtual": 0, "workers": []}


def changed(plan: Mapping[str, Any]) -> Row:
    """The part of a plan that is not the default."""
    defaults = _defaults()
    return {
        name: value
        for name, value in plan.items()
        if value is not None and value != defaults.get(name)
    }


def outcome(summary: RunSummary) -> Row:
    """How a run ended; `OUTCOME_COLUMNS` and what is too long for a table."""
    row = asdict(summary) | {
        "started": summary.started.isoformat(timespec="seconds"),
        "state": summary.state.value,
        "workers": num_workers(summary),
    }
    del row["plan"]
    return row


def num_workers(summary: RunSummary) -> int:
    """How many the plan wants."""
    return len(summary.plan.get("workers") or ()) + (summary.plan.get("virtual") or 0)


def differing(plans: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The keys in which plans differ, each with the plans' values in order."""
    defaults = _defaults()
    # A key that a plan lacks is younger than it: what it did then is the default now.
    filled = [defaults | dict(plan) for plan in plans]
    names = dict.fromkeys(name for plan in filled for name in plan)
    values = {name: [plan.get(name) for plan in filled] for name in names}
    return {name: found for name, found in values.items() if any(v != found[0] for v in found)}


def class_rows(confusion: Mapping[str, Sequence[int]]) -> list[Row]:
    """`CLASS_COLUMNS` of each class."""
    from fedconsole.learning.metrics import class_metrics

    metrics = class_metrics(list(confusion.values()))
    if metrics is None:
        return []
    numbers = zip(metrics.recall, metrics.precision, metrics.f1, strict=True)
    return [
        dict(zip(CLASS_COLUMNS, (name, sum(row), *values), strict=True))
        for (name, row), values in zip(confusion.items(), numbers, strict=True)
    ]


# Files


def no_formula(text: str) -> str:
    """A cell of CSV: a spreadsheet calculates what begins like a formula, and devices name themselves."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def csv_text(rounds: Sequence[RoundSummary]) -> str:
    """The table of rounds, with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        asdict(row)
        | {
            "updates": no_formula(clean(" ".join(row.updates), _MOST)),
            "model_id": clean(row.model_id),
        }
        for row in rounds
    )
    return text.getvalue()


def markdown(record: RunRecord) -> str:
    """A report for people."""
    summary = record.summary
    facts = {name.replace("_", " "): value for name, value in outcome(summary).items()}
    sections = [
        f"# Run {_escaped(summary.run)}: {_escaped(summary.task)}\n",
        _table(("", ""), ((name, value) for name, value in facts.items() if value is not None)),
        "## Plan\n",
        "What is not the default.\n",
        _table(("option", "value"), changed(summary.plan).items()),
    ]
    for title, columns, rows in (
        ("Workers", _WORKER_COLUMNS, worker_rows(record.workers)),
        ("Rounds", _ROUND_COLUMNS, [asdict(row) for row in record.rounds]),
        ("Classes", CLASS_COLUMNS, class_rows(record.confusion)),
    ):
        if rows:
            names = [name.replace("_", " ") for name in columns]
            cells = ([row[name] for name in columns] for row in rows)
            sections += [f"## {title}\n", _table(names, cells)]
    return "\n".join(sections)


def worker_rows(workers: Mapping[str, WorkerRecord]) -> list[Row]:
    """How often each worker delivered, how much it trained, and its last loss."""
    return [
        {
            "worker": name,
            **{part.value: worker.count(part) for part in Part},
            "examples": worker.num_examples,
            "loss": next(reversed(worker.losses.values()), None),
        }
        for name, worker in workers.items()
    ]


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *([_cell(value) for value in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(value: Any) -> str:
    return _escaped(shown(value))


def shown(value: Any) -> str:
    """A value as a cell of a table; harmless."""
    match value:
        case None | "" | [] | ():
            return "-"
        case float():
            return f"{value:.4g}"
        case list() | tuple():
            return clean(", ".join(map(str, value)))
        case _:
            return clean(str(value))


_MARKDOWN: Final = re.compile(r"([\\`*_{}\[\]<>#|!&~$])")


def _escaped(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", clean(text))


def svg(record: RunRecord) -> str:
    """The losses by round: each worker's training, and the evaluation."""
    from fedconsole.tui.widgets.curves import to_svg

    title = clean(f"Run {record.summary.run}: {record.summary.task}")
    return to_svg([*_training(record), *_evaluation(record)], (), title, "round", "loss")


def _training(record: RunRecord) -> Iterator[Curve]:
    from fedconsole.tui.theme import SERIES
    from fedconsole.tui.widgets.curves import Curve, band

    curves = [
        Curve(
            clean(name),
            chr(ord("A") + index % 26),
            SERIES[index % len(SERIES)],
            *_points(worker.losses),
        )
        for index, (name, worker) in enumerate(record.workers.items())
    ]
    yield from curves if len(curves) <= _MAX_NAMED else band(curves)


def _evaluation(record: RunRecord) -> Iterator[Curve]:
    from fedconsole.tui.widgets.curves import Curve

    xs, ys = _points({row.round: row.loss for row in record.rounds})
    if xs:
        yield Curve("test", "T", "#222222", xs, ys, thick=True)


def _points(values: Mapping[int, float | None]) -> tuple[list[float], list[float]]:
    known = {float(x): y for x, y in values.items() if y is not None}
    return list(known), list(known.values())
