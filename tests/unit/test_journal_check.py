"""The checker of journals finds each violation that is planted in one that is right."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.support.journal_check import (
    Line,
    check_lines,
    check_run,
    file_model_id,
    read_journal,
    read_json_lines,
)

COHORT = ["alice", "bob"]


def started(number: int, attempt: int = 1, cohort: list[str] = COHORT) -> Line:
    return {"type": "round.started", "round": number, "attempt": attempt, "cohort": cohort}


def update(number: int, worker: str) -> Line:
    return {"type": "worker.update", "round": number, "worker": worker}


def losses(number: int, worker: str, first: int, num: int) -> Line:
    tells = {"round": number, "worker": worker, "first": first, "losses": [0.5] * num}
    return {"type": "worker.batches"} | tells


def finished(number: int, updates: list[str] = COHORT) -> Line:
    model_id = f"model-{number}"
    return {"type": "round.finished", "round": number, "updates": updates, "model_id": model_id}


def ended(rounds: int = 2, model_id: str = "model-2") -> Line:
    return {"type": "run.finished", "rounds": rounds, "model_id": model_id}


def numbered(*lines: Line) -> list[Line]:
    return [{"seq": seq} | line for seq, line in enumerate(lines, start=1)]


def a_run() -> list[Line]:
    """Two rounds, the second of which two engines carried: the second one lost bob's update."""
    return [
        {"type": "run.created"},
        started(1),
        update(1, "bob"),
        update(1, "alice"),
        finished(1),
        started(2),
        update(2, "alice"),
        update(2, "bob"),
        {"type": "run.restarted", "round": 2},
        started(2, attempt=2),
        update(2, "bob"),
        finished(2),
        ended(),
    ]


def test_a_journal_that_is_right_has_no_violation() -> None:
    assert check_lines(numbered(*a_run())) == []


PLANTED: dict[str, tuple[Callable[[list[Line]], object], list[str]]] = {
    "nothing": (
        lambda run: run.clear(),
        ["there is no line at all"],
    ),
    "another beginning": (
        lambda run: run.pop(0),
        ["the first line is round.started, expected run.created"],
    ),
    "a second beginning": (
        lambda run: run.insert(1, {"type": "run.created"}),
        ["run.created a second time (seq 2)"],
    ),
    "no end": (
        lambda run: run.pop(),
        ["the last line is round.finished, expected run.finished"],
    ),
    "a line after the end": (
        lambda run: run.append({"type": "heartbeat"}),
        ["heartbeat (seq 14) follows run.finished (seq 13)"],
    ),
    "a second end": (
        lambda run: run.append(ended()),
        ["run.finished (seq 14) follows run.finished (seq 13)"],
    ),
    "a round finished twice": (
        lambda run: run.insert(5, finished(1)),
        [
            "round 1 was finished after 1 finished rounds",
            "round 1 was finished, but not started",
        ],
    ),
    "a round left out": (
        lambda run: run.__delitem__(slice(1, 5)),
        [
            "round 2 was started after 0 finished rounds",
            "round 2 was started after 0 finished rounds",
            "round 2 was finished after 0 finished rounds",
        ],
    ),
    "a finished round started again": (
        lambda run: run.insert(5, started(1, attempt=2)),
        [
            "round 1 was started after 1 finished rounds",
            "round 1 was first started as attempt 2",
        ],
    ),
    "an attempt left out": (
        lambda run: run.__setitem__(9, started(2, attempt=3)),
        ["attempt 3 of round 2 follows attempt 1"],
    ),
    "another cohort": (
        lambda run: run.__setitem__(9, started(2, 2, ["alice", "bob", "carol"])),
        ["the cohort of round 2 was alice, bob and is alice, bob, carol in attempt 2"],
    ),
    "a cohort with a worker twice": (
        lambda run: run.__setitem__(1, started(1, 1, ["alice", "bob", "bob"])),
        ["the cohort of round 1 names a worker twice: alice, bob, bob"],
    ),
    "an update counted twice": (
        lambda run: run.__setitem__(4, finished(1, ["alice", "alice", "bob"])),
        ["round 1 counts the update of alice 2 times"],
    ),
    "an update accepted twice": (
        lambda run: run.insert(4, update(1, "bob")),
        ["two updates of bob were accepted in round 1"],
    ),
    "an update that never came": (
        lambda run: run.pop(3),
        ["round 1 counts alice, whose update was not accepted before"],
    ),
    "an update that came too late": (
        lambda run: run.insert(4, run.pop(3)),
        [
            "round 1 counts alice, whose update was not accepted before",
            "an update of alice was accepted for round 1, which was not open",
        ],
    ),
    "an update of another round": (
        lambda run: run.__setitem__(3, update(2, "alice")),
        [
            "an update of alice was accepted for round 2, which was not open",
            "round 1 counts alice, whose update was not accepted before",
        ],
    ),
    "an accepted update left out": (
        lambda run: run.__setitem__(4, finished(1, ["bob"])),
        ["round 1 leaves out alice, whose update was accepted"],
    ),
    "a stranger": (
        lambda run: run.__setitem__(slice(4, 5), [update(1, "eve"), finished(1, [*COHORT, "eve"])]),
        [
            "an update of eve was accepted, which is not in round 1's cohort",
            "round 1 counts eve, which is not in its cohort",
        ],
    ),
    "another number of rounds": (
        lambda run: run.__setitem__(12, ended(rounds=3)),
        ["run.finished tells of 3 rounds, finished were 2"],
    ),
    "another model": (
        lambda run: run.__setitem__(12, ended(model_id="model-1")),
        ["run.finished names model model-1, the last round model-2"],
    ),
}


@pytest.mark.parametrize(("plant", "violations"), PLANTED.values(), ids=PLANTED)
def test_each_planted_violation_is_found(
    plant: Callable[[list[Line]], object], violations: list[str]
) -> None:
    run = a_run()
    plant(run)
    assert check_lines(numbered(*run)) == violations


TOLD = [losses(1, "bob", 0, 4), losses(1, "bob", 4, 2)]


@pytest.mark.parametrize(
    ("lines", "violations"),
    [
        ([losses(2, "bob", 0, 4)], []),
        ([losses(1, "alice", 0, 4)], []),
        # Some were too many in too short a time.
        ([losses(1, "bob", 9, 4)], []),
        ([{"type": "worker.rejoined", "worker": "bob"}, losses(1, "bob", 0, 1)], []),
        ([{"type": "run.restarted", "round": 1}, losses(1, "bob", 0, 6)], []),
        ([losses(1, "bob", 5, 2)], [5]),
        ([losses(1, "bob", 0, 6)], [0]),
        ([{"type": "worker.rejoined", "worker": "alice"}, losses(1, "bob", 0, 1)], [0]),
        ([{"type": "worker.rejoined", "worker": "bob"}, losses(1, "bob", 3, 9)], [3]),
    ],
)
def test_a_loss_is_told_twice_only_by_a_worker_that_may_have_trained_anew(
    lines: list[Line], violations: list[int]
) -> None:
    run = [{"type": "run.created"}, started(1), *TOLD, *lines]
    assert check_lines(numbered(*run), must_be_finished=False) == [
        f"bob tells the loss of batch {first} of round 1 a second time" for first in violations
    ]


def test_an_update_that_was_accepted_by_an_earlier_engine_may_be_lost_and_left_out() -> None:
    run = a_run()
    run.pop(10)
    run[10] = finished(2, ["alice"])
    assert check_lines(numbered(*run)) == []


def test_a_gap_and_a_repetition_in_the_numbers_are_found() -> None:
    lines = numbered(*a_run())
    lines[6]["seq"], lines[8]["seq"] = 6, 90
    assert check_lines(lines) == ["line 7 has seq 6", "line 9 has seq 90"]


def test_a_run_that_is_not_over_may_lack_its_last_line() -> None:
    assert check_lines(numbered(*a_run()[:7]), must_be_finished=False) == []


# The folder


def write_run(folder: Path, last_model_id: str) -> None:
    run = a_run()
    run[11]["model_id"] = run[12]["model_id"] = last_model_id
    (folder / "checkpoints").mkdir()
    tensors = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor(7)}
    save_file(tensors, folder / "checkpoints" / "round-000002.safetensors", {"format": "pt"})
    with closing(sqlite3.connect(folder / "run.db")) as database:
        database.execute("CREATE TABLE journal(seq INTEGER PRIMARY KEY, time_ms, type, line)")
        rows = [(line.pop("seq"), 0, line.pop("type"), json.dumps(line)) for line in numbered(*run)]
        database.executemany("INSERT INTO journal VALUES (?,?,?,?)", rows)
        database.commit()


def id_of_written_model() -> str:
    """Byte for byte as docs/protocol.md has it."""
    floats = b"".join(
        bytes.fromhex(value)
        for value in ("00000000", "0000803f", "00000040", "00004040", "00008040", "0000a040")
    )
    content = b"a\0I64\0[]\0" + (7).to_bytes(8, "little") + b"\0b\0F32\0[2,3]\0" + floats + b"\0"
    return hashlib.sha256(content).hexdigest()


def test_a_folder_whose_last_model_is_what_the_journal_says_has_no_violation(
    tmp_path: Path,
) -> None:
    write_run(tmp_path, id_of_written_model())
    assert check_run(tmp_path) == []


def test_another_model_on_disk_is_found(tmp_path: Path) -> None:
    write_run(tmp_path, "0" * 64)
    assert check_run(tmp_path) == [
        f"round-000002.safetensors holds model {id_of_written_model()[:12]}, "
        "the journal says 000000000000"
    ]


def test_a_model_that_is_cut_off_or_gone_is_found(tmp_path: Path) -> None:
    write_run(tmp_path, id_of_written_model())
    path = tmp_path / "checkpoints" / "round-000002.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert check_run(tmp_path) == [
        "the model of round 2 cannot be read: round-000002.safetensors ends within tensor 'b'"
    ]
    path.unlink()
    assert [text.partition(":")[0] for text in check_run(tmp_path)] == [
        "the model of round 2 cannot be read"
    ]


def test_a_folder_without_a_journal_is_found(tmp_path: Path) -> None:
    assert check_run(tmp_path) == ["there is no line at all"]


def test_the_journal_and_the_printed_lines_are_read_alike(tmp_path: Path) -> None:
    write_run(tmp_path, "model-2")
    printed = tmp_path / "run.jsonl"
    printed.write_text("".join(json.dumps(line) + "\n" for line in numbered(*a_run())))
    assert read_json_lines(printed) == read_journal(tmp_path)


def test_metadata_is_no_part_of_a_models_name(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "plain")
    save_file({"a": torch.ones(2)}, tmp_path / "told", {"format": "pt"})
    assert file_model_id(tmp_path / "plain") == file_model_id(tmp_path / "told")
