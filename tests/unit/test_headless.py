from __future__ import annotations

import json
import sys
from typing import Any
from unicodedata import category

import pytest

from fedconsole.headless import (
    JsonScreen,
    RunProgress,
    TextScreen,
    WorkerProgress,
    advance,
    json_line,
    last_words,
    status,
    talk,
)
from fedconsole.sentences import seed_line, sentence


def line(kind: str, **fields: Any) -> dict[str, Any]:
    head = {"v": 1, "seq": 1, "time": "2026-11-22T12:00:00.000Z", "type": kind, "run": "r1"}
    return head | fields


CREATED = line("run.created", task="digits", plan={"rounds": 2})
STARTED = line("round.started", round=1, attempt=1, cohort=["alice", "bob"], epoch=1)
BATCHES = line(
    "worker.batches", worker="alice", round=1, first=20, batches=50, losses=[2.5, None, 2.204359]
)
FINISHED = line(
    "round.finished",
    round=1,
    updates=["alice", "bob"],
    loss=0.41212,
    seconds=2.13,
    model_id="ab" * 32,
    bytes_sent=1,
    bytes_received=1,
)
TEST = line("eval", round=1, loss=0.3, accuracy=0.912, num_examples=360)
END = line(
    "run.finished",
    outcome="completed",
    rounds=2,
    seconds=14.21,
    model_id="cd" * 32,
    model_path="/runs/r1/model.safetensors",
    reason="",
    exit_code=0,
)


def play(*lines: dict[str, Any]) -> RunProgress:
    progress = RunProgress()
    for each in lines:
        progress = advance(progress, each)
    return progress


def test_a_run_that_stops_counts_up_to_its_open_round() -> None:
    assert play(CREATED, STARTED, line("run.stopping", round=1)).num_rounds == 1


def test_progress_follows_rounds_workers_and_evaluations() -> None:
    update = line("worker.update", worker="bob", round=1, num_examples=9, loss=0.5, seconds=1.0)
    assert play(CREATED, STARTED, BATCHES, update, FINISHED, TEST) == RunProgress(
        run="r1",
        num_rounds=2,
        round_number=1,
        rounds_finished=1,
        workers={
            "alice": WorkerProgress("", 23, 50, 2.204359),
            "bob": WorkerProgress("done", 0, None, 0.5),
        },
        test=TEST,
    )


def test_a_new_round_sets_its_workers_back() -> None:
    again = line("round.started", round=2, attempt=1, cohort=["alice"])
    assert play(STARTED, BATCHES, again).workers == {
        "alice": WorkerProgress(),
        "bob": WorkerProgress(),
    }


def test_a_worker_s_own_evaluation_is_not_the_test() -> None:
    assert play(TEST, line("eval", round=1, worker="bob", loss=9.0)).test == TEST


def test_the_seed_s_line_is_kept() -> None:
    assert seed_line(BATCHES) == "Train Worker alice: [23/50 (46%)]\tLoss: 2.204359"


def test_a_loss_that_is_not_finite_is_shown_as_nan() -> None:
    assert seed_line(BATCHES | {"losses": [None]}).endswith("[21/50 (42%)]\tLoss: nan")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (CREATED, "Run r1 of task digits: making the workers ready."),
        (STARTED, "Round 1 starts with alice, bob (epoch 1)."),
        (FINISHED, "Round 1: 2 updates, training loss 0.4121, 2.1 s."),
        (TEST, "Test after round 1: accuracy 91.2 %, test loss 0.3000."),
        (line("run.started", round=0, waiting_for=[]), "Run started."),
        (line("run.pausing", round=1, waiting_for=["bob"]), "Run pausing, waiting for bob."),
        (
            line("run.quorum", have=1, need=2, seconds_left=30.0),
            "1 of 2 needed workers here; waiting 30 s for the others.",
        ),
        (
            line(
                "run.quorum",
                have=1,
                need=2,
                of="updates",
                phase="waiting",
                then="fail",
                seconds_left=30.0,
            ),
            "1 of 2 needed updates here; waiting 30 s for the others, then the run fails.",
        ),
        (
            line("run.quorum", have=2, need=2, of="workers", seconds_left=600.0, phase="training"),
            "2 of 2 needed workers here again; the round has 600 s.",
        ),
        (line("run.restarted", round=0), "A new engine goes on with the run."),
        # The open one, which was not lost.
        (line("run.restarted", round=1), "A new engine goes on with the run at round 1."),
        (line("run.fewer", round=3, have=1, need=2), "Round 3 goes on with 1 of 2 needed."),
        (END, "Run r1 completed."),
        (
            line("worker.joined", worker="bob", address="10.0.0.2:10002", reason=None),
            "bob (10.0.0.2:10002) joined.",
        ),
        (
            line("worker.lost", worker="bob", address="10.0.0.2:10002", reason="no answer"),
            "bob (10.0.0.2:10002) lost: no answer.",
        ),
        (
            line("worker.straggler", worker="bob", round=3),
            "bob is a straggler: round 3 has reached its deadline.",
        ),
        (
            line("worker.rejected", worker="bob", round=3, reason="holds NaN"),
            "The update of bob in round 3 was discarded: holds NaN.",
        ),
        (
            line("worker.update", worker="bob", round=3, num_examples=1, loss=None, seconds=1.0),
            "bob delivered round 3: 1 example, loss nan.",
        ),
        (
            line("worker.phase", worker="bob", round=3, phase="sending"),
            "bob is sending in round 3.",
        ),
        (
            line("worker.telemetry", worker="bob", celsius=61.2, memory_bytes=2**30, load=None),
            "bob: 1024 MiB in use, 61 °C.",
        ),
        (line("warning", text="disk is low", worker=None), "Warning: disk is low"),
        (line("log", text="hello", worker="bob"), "Log from bob: hello"),
        (line("heartbeat"), "The engine is alive."),
        (line("later.addition"), "Later: "),
    ],
)
def test_each_event_is_a_sentence(said: dict[str, Any], expected: str) -> None:
    assert sentence(said) == expected


def test_a_worker_cannot_move_the_cursor() -> None:
    hostile = line("log", text="\x1b[2J\x9b2J\u202egone\r\nagain", worker="[red]bob")
    assert sentence(hostile) == "Log from [red]bob: [2J2Jgone  again"
    assert "\x1b" not in seed_line(BATCHES | {"worker": "\x1b[2Jalice"})


UNSEEN = "".join(
    char
    for char in map(chr, range(sys.maxunicode + 1))
    if category(char) in {"Cc", "Cf", "Zl", "Zp"}
)


def test_json_lines_hold_nothing_raw_that_is_not_seen_and_stay_the_same_value() -> None:
    hostile = line("log", text=f"\x1b[2J\x7f\u202e앨리스 🙂{UNSEEN}", worker="bob")
    written = json_line(hostile)
    assert set(written) & set(UNSEEN) == set()
    assert "앨리스 🙂" in written
    assert json.loads(written) == hostile


@pytest.mark.parametrize(
    ("verbosity", "is_plain", "kinds"),
    [
        (-1, False, []),
        (0, False, ["round.finished"]),
        (0, True, ["round.started", "round.finished", "eval", "log"]),
        (1, False, ["round.started", "worker.batches", "round.finished", "eval", "log"]),
        (
            2,
            False,
            ["round.started", "worker.batches", "heartbeat", "round.finished", "eval", "log"],
        ),
    ],
)
def test_verbosity_chooses_what_is_said(verbosity: int, is_plain: bool, kinds: list[str]) -> None:
    told = [STARTED, BATCHES, line("heartbeat"), FINISHED, TEST, line("log", text="x"), END]
    spoken = [
        each["type"]
        for each in told
        if list(talk(each, RunProgress(), verbosity, is_plain=is_plain))
    ]
    assert spoken == kinds


def test_a_round_is_one_line_with_its_test() -> None:
    (text,) = talk(FINISHED, play(TEST, FINISHED), 0)
    assert text == (
        "Round 1: 2 updates, training loss 0.4121, 2.1 s, accuracy 91.2 %, test loss 0.3000."
    )


def test_the_last_words_name_outcome_model_and_what_to_do_next() -> None:
    assert last_words(play(CREATED, TEST, END)) == [
        "completed: 2 rounds in 14.2 s, accuracy 91.2 %, test loss 0.3000",
        "model cdcdcdcdcdcd in /runs/r1/model.safetensors",
        "next: fedconsole runs show latest",
    ]


def test_a_run_that_never_began_ends_with_its_reason_alone() -> None:
    end = line("run.finished", outcome="failed", reason="alice has no dataset", exit_code=3)
    assert last_words(play(end)) == ["fedconsole: alice has no dataset"]


def test_json_goes_to_stdout_and_nothing_else_does(capsys: pytest.CaptureFixture[str]) -> None:
    screen = JsonScreen()
    for each in (CREATED, END):
        screen.show(each)
    screen.close()
    out, err = capsys.readouterr()
    assert [json.loads(text) for text in out.splitlines()] == [CREATED, END]
    assert err == ""


def test_text_goes_to_stderr_only(capsys: pytest.CaptureFixture[str]) -> None:
    screen = TextScreen()
    for each in (CREATED, FINISHED, END):
        screen.show(each)
    screen.close()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [sentence(CREATED), sentence(FINISHED), *last_words(play(END))]


def test_the_status_is_one_line_of_rounds_workers_and_the_last_test() -> None:
    progress = RunProgress()
    assert status(progress) == "run ?: no round has begun"
    lost = line("worker.lost", worker="bob", address="b:1", reason="gone")
    for one in (CREATED, STARTED, TEST, BATCHES, lost):
        progress = advance(progress, one)
    assert status(progress) == (
        "run r1: round 1 of 2, alice 23/50, bob lost, accuracy 91.2 %, test loss 0.3000"
    )
