from __future__ import annotations

import subprocess
import sys
from dataclasses import fields, replace
from datetime import UTC, datetime
from xml.etree import ElementTree

import pytest

from fedconsole.history import RoundSummary, RunState, RunSummary
from fedconsole.report import (
    CSV_COLUMNS,
    Line,
    Part,
    Row,
    WorkerRecord,
    changed,
    class_rows,
    csv_text,
    differing,
    make_record,
    markdown,
    num_workers,
    svg,
    worker_rows,
)

RUN = RunSummary(
    run="20261123-aaaa",
    state=RunState.COMPLETED,
    task="digits",
    started=datetime(2026, 11, 23, 12, 0, tzinfo=UTC),
    seconds=17.125,
    rounds=2,
    loss=0.4,
    accuracy=0.9,
    macro_f1=None,
    model_id="bb",
    model_path="/m",
    reason="all rounds complete: 2",
    plan={"task": "digits", "workers": ["pi:1", "pj:1"], "virtual": 1, "rounds": 2, "epochs": None},
)
ROUNDS = [
    RoundSummary(1, 2.0, ("alice", "bob"), 0.5, 0.6, 0.8, 10, 20, "aa", None),
    RoundSummary(2, 3.0, ("alice",), 0.3, 0.4, 0.9, 10, 20, "bb", None),
]
LINES: list[Line] = [
    {"type": "run.created"},
    {"type": "round.started", "round": 1, "cohort": ["alice", "bob", "charlie"]},
    {"type": "worker.update", "round": 1, "worker": "bob", "num_examples": 100, "loss": 0.6},
    {"type": "worker.update", "round": 1, "worker": "alice", "num_examples": 60, "loss": 0.5},
    {"type": "worker.batches", "round": 1, "worker": "charlie", "losses": [1.0]},
    {"type": "eval", "round": 1, "worker": "bob", "confusion": {"N": [9]}},
    {"type": "eval", "round": 1, "worker": None, "confusion": {"N": [3, 1], "V": [0, 4]}},
    {"type": "round.started", "round": 2, "attempt": 1, "cohort": ["alice", "bob"]},
    {"type": "worker.update", "round": 2, "worker": "alice", "num_examples": 60, "loss": 0.25},
    {"type": "worker.rejected", "round": 2, "worker": "bob", "reason": "NaN"},
    {"type": "worker.rejected", "round": 1, "worker": "bob", "reason": "too late"},
    {"type": "round.started", "round": 2, "attempt": 2, "cohort": ["alice", "bob"]},
]
HOSTILE = "a|b\x1b[2J_[x](javascript:1)<b>"


def test_the_record_tells_what_each_worker_did_in_each_round() -> None:
    assert make_record(RUN, ROUNDS, LINES).workers == {
        "alice": WorkerRecord({1: Part.DELIVERED, 2: Part.DELIVERED}, {1: 0.5, 2: 0.25}, 120),
        "bob": WorkerRecord({1: Part.DELIVERED, 2: Part.REJECTED}, {1: 0.6}, 100),
        "charlie": WorkerRecord({1: Part.ABSENT}, {}, 0),
    }


def test_a_report_in_markdown() -> None:
    assert markdown(make_record(RUN, ROUNDS, LINES)) == (
        """\
# Run 20261123-aaaa: digits

|  |  |
| --- | --- |
| run | 20261123-aaaa |
| state | completed |
| task | digits |
| started | 2026-11-23T12:00:00+00:00 |
| seconds | 17.12 |
| rounds | 2 |
| loss | 0.4 |
| accuracy | 0.9 |
| model id | bb |
| model path | /m |
| reason | all rounds complete: 2 |
| workers | 3 |

## Plan

What is not the default.

| option | value |
| --- | --- |
| workers | pi:1, pj:1 |
| virtual | 1 |
| rounds | 2 |

## Workers

| worker | delivered | rejected | absent | examples | loss |
| --- | --- | --- | --- | --- | --- |
| alice | 2 | 0 | 0 | 120 | 0.25 |
| bob | 1 | 1 | 0 | 100 | 0.6 |
| charlie | 0 | 0 | 1 | 0 | - |

## Rounds

| round | seconds | updates | training loss | loss | accuracy | macro f1 |
| --- | --- | --- | --- | --- | --- | --- |
| 1 | 2 | alice, bob | 0.5 | 0.6 | 0.8 | - |
| 2 | 3 | alice | 0.3 | 0.4 | 0.9 | - |

## Classes

| class | examples | recall | precision | f1 |
| --- | --- | --- | --- | --- |
| N | 4 | 0.75 | 1 | 0.8571 |
| V | 4 | 1 | 0.8 | 0.8889 |
"""
    )


def test_a_run_without_rounds_has_a_short_report() -> None:
    failed = replace(RUN, state=RunState.FAILED, rounds=0, plan={}, loss=None, seconds=None)
    text = markdown(make_record(failed, [], []))
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "# Run 20261123-aaaa: digits",
        "## Plan",
    ]


def test_texts_of_a_journal_cannot_steer_a_report_or_a_terminal() -> None:
    lines: list[Line] = [{"type": "round.started", "round": 1, "cohort": [HOSTILE]}]
    text = markdown(make_record(replace(RUN, task=HOSTILE, reason=HOSTILE), ROUNDS, lines))
    harmless = r"a\|b\[2J\_\[x\](javascript:1)\<b\>"
    assert text.splitlines()[0] == f"# Run 20261123-aaaa: {harmless}"
    assert f"| {harmless} | 0 | 0 | 1 | 0 | - |" in text
    assert "\x1b" not in text


def test_the_rounds_as_csv_keep_numbers_as_they_are_and_names_without_controls() -> None:
    odd = replace(ROUNDS[1], updates=("a,\x1bb", "c"), training_loss=None, seconds=0.1 + 0.2)
    assert csv_text([ROUNDS[0], odd]) == (
        "round,seconds,updates,training_loss,loss,accuracy,bytes_sent,bytes_received,model_id,macro_f1\n"
        "1,2.0,alice bob,0.5,0.6,0.8,10,20,aa,\n"
        '2,0.30000000000000004,"a,b c",,0.4,0.9,10,20,bb,\n'
    )
    assert tuple(field.name for field in fields(RoundSummary)) == CSV_COLUMNS
    formula = replace(ROUNDS[0], updates=("=1+1",), training_loss=-0.5)
    assert csv_text([formula]).splitlines()[1].startswith("1,2.0,'=1+1,-0.5,")


def test_the_picture_has_a_curve_for_each_worker_and_one_for_the_test() -> None:
    root = ElementTree.fromstring(svg(make_record(RUN, ROUNDS, LINES)))
    texts = [text for element in root.iter() if (text := (element.text or "").strip())]
    assert "Run 20261123-aaaa: digits" in texts
    shown = " ".join(texts)
    assert [name in shown for name in ("alice", "bob", "test")] == [True] * 3


@pytest.mark.parametrize(
    ("num_rounds", "ticks"),
    [(1, "1 2"), (2, "1 2"), (6, "1 2 3 4 5 6"), (40, "5 10 15 20 25 30 35 40")],
)
def test_the_ticks_of_the_picture_are_whole_rounds_and_round_losses(
    num_rounds: int, ticks: str
) -> None:
    rounds = [replace(ROUNDS[0], round=n, loss=2.9 / n) for n in range(1, num_rounds + 1)]
    root = ElementTree.fromstring(svg(make_record(RUN, rounds, [])))
    across, up = (
        " ".join(each.text or "" for each in root.iter() if each.get("text-anchor") == anchor)
        for anchor in ("middle", "end")
    )
    assert ticks in across
    assert "." not in across
    assert all(len(number) <= 4 for number in up.split())


def test_the_picture_of_many_workers_shows_a_band() -> None:
    lines: list[Line] = [
        {
            "type": "worker.update",
            "round": number,
            "worker": f"pi-{worker}",
            "num_examples": 1,
            "loss": 1 / number + worker,
        }
        for number in (1, 2)
        for worker in range(9)
    ]
    text = svg(make_record(RUN, ROUNDS, lines))
    ElementTree.fromstring(text)
    assert "pi-3" not in text
    assert "test" in text


def test_hostile_names_leave_the_picture_well_formed() -> None:
    lines: list[Line] = [
        {"type": "worker.update", "round": 1, "worker": HOSTILE, "num_examples": 1, "loss": 1.0},
        {"type": "worker.update", "round": 2, "worker": HOSTILE, "num_examples": 1, "loss": 2.0},
    ]
    text = svg(make_record(replace(RUN, task="</svg><script>"), ROUNDS, lines))
    tags = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(text).iter()}
    assert tags.isdisjoint({"script", "b"})
    assert "\x1b" not in text


def test_the_picture_of_a_run_without_rounds_is_empty_but_whole() -> None:
    ElementTree.fromstring(svg(make_record(RUN, [], [])))


def test_the_plan_is_told_as_its_difference_from_the_defaults() -> None:
    plan: Row = {
        "lr": 0.5,
        "seed": 1,
        "epochs": 2,
        "rounds": None,
        "workers": [],
        "virtual": 0,
        "x": 1,
    }
    assert changed(plan) == {"lr": 0.5, "x": 1}
    assert changed({"epochs": None, "rounds": 3}) == {"rounds": 3}


def test_only_the_differing_options_are_compared() -> None:
    plans: list[Row] = [
        {"lr": 0.1, "seed": 2, "task": "digits"},
        {"lr": 0.2, "seed": 2},
        {"seed": 2, "new": 1},
    ]
    assert differing(plans) == {"lr": [0.1, 0.2, 0.01], "new": [None, None, 1]}
    assert differing(plans[:1]) == {}


def test_workers_are_counted_from_the_plan() -> None:
    assert num_workers(RUN) == 3
    assert num_workers(replace(RUN, plan={})) == 0


def test_a_confusion_without_examples_has_no_classes() -> None:
    assert class_rows({}) == []
    assert class_rows({"N": [0]}) == []


def test_the_last_loss_of_a_worker_is_the_one_shown() -> None:
    (row,) = worker_rows({"alice": WorkerRecord({1: Part.DELIVERED}, {1: 2.0, 3: 1.5}, 7)})
    assert row == {
        "worker": "alice",
        "delivered": 1,
        "rejected": 0,
        "absent": 0,
        "examples": 7,
        "loss": 1.5,
    }


@pytest.mark.parametrize("module", ["torch", "sqlite3", "textual"])
def test_a_report_loads_no_library_that_the_screens_or_commands_must_do_without(
    module: str,
) -> None:
    probe = f"import sys, fedconsole.report; print({module!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
