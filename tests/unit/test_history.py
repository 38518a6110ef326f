from __future__ import annotations

import fcntl
import os
import shutil
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedconsole import history, paths, run_names
from fedconsole.engine.control import socket_path
from fedconsole.engine.store import Line, Row, RunStore
from fedconsole.errors import RefusedError, StorageError, UsageError
from fedconsole.history import RoundSummary, RunState, RunSummary
from tests.support.places import redirect, write_journal

CREATED: Line = {"type": "run.created", "task": "digits", "plan": {"virtual": 2}}
ROUND: Line = {
    "type": "round.finished",
    "round": 1,
    "updates": ["alice", "bob"],
    "loss": 0.5,
    "seconds": 2.0,
    "model_id": "aa",
    "bytes_sent": 10,
    "bytes_received": 20,
}
TEST: Line = {
    "type": "eval",
    "round": 1,
    "loss": 0.4,
    "accuracy": 0.9,
    "macro_f1": 0.8,
    "worker": None,
    "confusion": {"N": [3, 1], "V": [0, 4]},
}
HOLDOUT: Line = TEST | {"loss": 9.0, "accuracy": 0.1, "worker": "bob", "confusion": {"N": [1]}}
END: Line = {
    "type": "run.finished",
    "outcome": "completed",
    "rounds": 1,
    "seconds": 3.5,
    "model_id": "bb",
    "model_path": "/m",
    "reason": "",
    "exit_code": 0,
}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return redirect(tmp_path, monkeypatch)


def test_there_is_no_history_before_the_first_run() -> None:
    assert history.run_ids() == []
    assert run_names.resolve("all") == []
    with pytest.raises(UsageError, match="there are no runs"):
        run_names.resolve("latest")


def test_a_finished_run_is_summarized() -> None:
    write_journal("20261122-aaaa", [CREATED, ROUND, TEST, HOLDOUT, END])
    summary = history.summarize("20261122-aaaa")
    assert summary is not None
    assert abs((datetime.now(tz=UTC) - summary.started).total_seconds()) < 60
    assert summary == RunSummary(
        run="20261122-aaaa",
        state=RunState.COMPLETED,
        task="digits",
        started=summary.started,
        seconds=3.5,
        rounds=1,
        loss=0.4,
        accuracy=0.9,
        macro_f1=0.8,
        model_id="bb",
        model_path="/m",
        reason="",
        plan={"virtual": 2},
    )


def test_the_rounds_carry_the_test_of_the_desktop_not_of_a_worker() -> None:
    second = ROUND | {"round": 2, "updates": ["bob"]}
    write_journal("20261122-aaaa", [CREATED, HOLDOUT, TEST, ROUND, HOLDOUT, second])
    assert history.rounds("20261122-aaaa") == [
        RoundSummary(1, 2.0, ("alice", "bob"), 0.5, 0.4, 0.9, 10, 20, "aa", 0.8),
        RoundSummary(2, 2.0, ("bob",), 0.5, None, None, 10, 20, "aa", None),
    ]


def test_the_confusion_is_that_of_the_last_test_on_the_desktop() -> None:
    later = TEST | {"round": 2, "confusion": {"N": [4, 0], "V": [1, 3]}}
    write_journal("20261122-aaaa", [CREATED, TEST, ROUND, HOLDOUT, later, HOLDOUT])
    assert history.confusion("20261122-aaaa") == {"N": [4, 0], "V": [1, 3]}


def test_a_run_without_a_test_by_class_has_no_confusion() -> None:
    write_journal("20261122-aaaa", [CREATED, ROUND])
    write_journal("20261122-bbbb", [CREATED, TEST | {"confusion": None}])
    assert [history.confusion(run) for run in ("20261122-aaaa", "20261122-bbbb")] == [{}, {}]


def test_a_run_without_engine_and_without_last_line_has_crashed() -> None:
    write_journal("20261122-aaaa", [CREATED, ROUND])
    summary = history.summarize("20261122-aaaa")
    assert summary is not None
    assert (summary.state, summary.rounds, summary.seconds) == (RunState.CRASHED, 1, None)


def test_a_run_with_a_listening_engine_is_running_and_cannot_be_removed() -> None:
    write_journal("20261122-aaaa", [CREATED])
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(socket_path("20261122-aaaa")))
        engine.listen()
        summary = history.summarize("20261122-aaaa")
        assert summary is not None
        assert summary.state is RunState.RUNNING
        with pytest.raises(RefusedError, match="abort it first"):
            history.remove("20261122-aaaa")


def test_a_run_whose_engine_does_not_listen_now_is_running_and_cannot_be_removed() -> None:
    write_journal("20261122-aaaa", [CREATED])
    with (history.folder_of("20261122-aaaa") / "engine.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        summary = history.summarize("20261122-aaaa")
        assert summary is not None
        assert summary.state is RunState.RUNNING
        with pytest.raises(RefusedError, match="abort it first"):
            history.remove("20261122-aaaa")
        with pytest.raises(RefusedError, match="does not listen now: try again"):
            history.require_running("20261122-aaaa")
    assert history.folder_of("20261122-aaaa").is_dir()


@pytest.mark.timeout(60)
def test_what_is_no_file_in_a_folder_without_journal_holds_no_list_up() -> None:
    write_journal("20261122-aaaa", [CREATED])
    folder = history.folder_of("20261122-bbbb")
    folder.mkdir()
    os.mkfifo(folder / "engine.lock")
    (folder / "engine.log").symlink_to("/dev/zero")
    assert set(history.by_start()) == {"20261122-aaaa", "20261122-bbbb"}
    assert not history.is_carried("20261122-bbbb")
    assert history.last_words("20261122-bbbb") == "its folder holds engine.lock, engine.log"


PAUSING, PAUSED = {"type": "run.pausing", "round": 1}, {"type": "run.paused", "round": 1}
OPENED: Line = {"type": "round.started", "round": 2, "attempt": 1, "cohort": ["bob"], "epoch": 1}


@pytest.mark.parametrize(
    ("lines", "state"),
    [
        ([ROUND, PAUSING], RunState.PAUSING),
        # The round that is closing is finished first.
        ([PAUSING, ROUND, TEST], RunState.PAUSING),
        ([PAUSING, PAUSED, HOLDOUT], RunState.PAUSED),
        ([PAUSING, PAUSED, {"type": "run.resumed", "round": 1}], RunState.RUNNING),
        ([PAUSING, PAUSED, {"type": "run.aborting", "round": 1}], RunState.RUNNING),
        ([PAUSED, {"type": "run.restarted", "round": 1}], RunState.RUNNING),
        ([PAUSED, OPENED, ROUND], RunState.RUNNING),
    ],
)
def test_a_run_with_an_engine_is_paused_when_its_journal_says_so(
    lines: list[Line], state: RunState
) -> None:
    write_journal("20261122-aaaa", [CREATED, *lines])
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(socket_path("20261122-aaaa")))
        engine.listen()
        summary = history.summarize("20261122-aaaa")
    assert summary is not None
    assert (summary.state, summary.state.is_going, summary.seconds) == (state, True, None)


def test_a_run_whose_engine_died_before_its_first_line_is_known_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patched:
        # The times of folders are some milliseconds coarse.
        patched.setattr("time.time_ns", lambda: 0)
        write_journal("20261122-aaaa", [CREATED])
    folder = history.folder_of("20261122-bbbb")
    folder.mkdir()
    (folder / "engine.log").write_text("Traceback\nMemoryError\n")
    assert history.by_start() == ["20261122-aaaa", "20261122-bbbb"]
    assert history.summarize("20261122-bbbb") is None
    assert history.last_words("20261122-bbbb") == f"MemoryError ({folder / 'engine.log'})"
    with (folder / "engine.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert history.by_start() == ["20261122-aaaa"]


def test_a_socket_that_a_dead_engine_left_is_no_running_run() -> None:
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(socket_path("20261122-aaaa")))
    assert not history.is_running("20261122-aaaa")


def test_lines_are_what_the_run_printed() -> None:
    write_journal("20261122-aaaa", [CREATED, ROUND])
    first, second = history.lines("20261122-aaaa")
    assert first == {
        "v": 1,
        "seq": 1,
        "time": first["time"],
        "run": "20261122-aaaa",
        "type": "run.created",
        "task": "digits",
        "plan": {"virtual": 2},
    }
    assert list(history.lines("20261122-aaaa", first_seq=2)) == [second]


def test_lines_of_some_types_may_be_asked_for() -> None:
    write_journal("20261122-aaaa", [CREATED, ROUND, TEST, ROUND, END])
    found = history.lines("20261122-aaaa", types=("round.finished", "eval"))
    assert [line["seq"] for line in found] == [2, 3, 4]
    assert list(history.lines("20261122-aaaa", first_seq=5, types=("eval",))) == []


def test_threads_may_take_turns_in_reading_a_journal() -> None:
    write_journal("20261122-aaaa", [CREATED, ROUND, TEST])
    found = history.lines("20261122-aaaa")
    turns = [ThreadPoolExecutor(1) for _ in range(3)]
    assert [pool.submit(next, found).result()["seq"] for pool in turns] == [1, 2, 3]
    for pool in turns:
        pool.shutdown()


def test_a_run_is_named_by_a_unique_prefix_latest_or_all(monkeypatch: pytest.MonkeyPatch) -> None:
    # The clock decides which is the latest, not the random end of an id.
    for second, run in enumerate(("20261122-cccc", "20261122-abcd", "20261122-aaaa")):
        with monkeypatch.context() as patched:
            patched.setattr("time.time_ns", lambda second=second: second * 1_000_000_000)
            write_journal(run, [CREATED])
    assert run_names.resolve("latest") == ["20261122-aaaa"]
    assert run_names.resolve("all") == ["20261122-aaaa", "20261122-abcd", "20261122-cccc"]
    assert run_names.resolve("20261122-c") == ["20261122-cccc"]
    with pytest.raises(UsageError, match="fits 20261122-aaaa, 20261122-abcd"):
        run_names.resolve("20261122-a")
    with pytest.raises(UsageError, match="no run begins with 'x'"):
        run_names.resolve("x")
    with pytest.raises(UsageError, match="'all' means 3 runs"):
        run_names.resolve_one("all")


def test_reading_changes_no_byte_of_the_journal() -> None:
    write_journal("20261122-aaaa", [CREATED, ROUND, END])
    journal = history.folder_of("20261122-aaaa") / "run.db"
    before = journal.read_bytes()
    history.summarize("20261122-aaaa")
    history.rounds("20261122-aaaa")
    assert journal.read_bytes() == before


def test_a_removed_run_is_gone() -> None:
    write_journal("20261122-aaaa", [CREATED, END])
    history.remove("20261122-aaaa")
    assert list(paths.runs_dir().iterdir()) == []


def test_a_broken_journal_is_named() -> None:
    write_journal("20261122-aaaa", [CREATED])
    (history.folder_of("20261122-aaaa") / "run.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StorageError, match=r"cannot read the journal .*run\.db"):
        history.summarize("20261122-aaaa")


def test_a_look_at_an_empty_journal_leaves_the_log_beside_it_as_it_is() -> None:
    store = RunStore(paths.runs_dir() / "20261122-aaaa")
    store.commit(Row("run.created", CREATED))
    folder = Path(shutil.copytree(store.folder, paths.runs_dir() / "20261122-bbbb"))
    store.close()
    (folder / "run.db").write_bytes(b"")
    before = {path: path.read_bytes() for path in folder.glob("run.db*")}
    assert before[folder / "run.db-wal"] != b""
    with pytest.raises(
        StorageError,
        match=rf"^cannot read the journal {folder / 'run.db'}: it is empty, but its run\.db-wal is not: "
        "bring it back from a copy$",
    ):
        history.summarize(folder.name)
    assert {path: path.read_bytes() for path in folder.glob("run.db*")} == before


def test_a_journal_without_its_table_is_none_yet() -> None:
    write_journal("20261122-aaaa", [CREATED])
    folder = history.folder_of("20261122-bbbb")
    folder.mkdir()
    (folder / "run.db").touch()
    assert history.summarize("20261122-bbbb") is None
    assert run_names.resolve("latest") == ["20261122-aaaa"]


def test_the_latest_run_is_none_that_a_wrong_clock_put_into_the_future(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_ns = time.time_ns()
    for days, run in ((400, "20271227-aaaa"), (-1, "20261121-bbbb"), (-2, "20261120-cccc")):
        with monkeypatch.context() as patched:
            there_ns = now_ns + days * 86_400 * 10**9
            patched.setattr("time.time_ns", lambda there_ns=there_ns: there_ns)
            write_journal(run, [CREATED])
    assert run_names.resolve("latest") == ["20261121-bbbb"]
    history.remove("20261121-bbbb")
    history.remove("20261120-cccc")
    assert run_names.resolve("latest") == ["20271227-aaaa"]


def test_a_broken_journal_hides_no_other_run() -> None:
    write_journal("20261122-aaaa", [CREATED])
    write_journal("20261122-bbbb", [CREATED])
    (history.folder_of("20261122-aaaa") / "run.db").write_bytes(b"not a database" * 100)
    assert sorted(history.by_start()) == ["20261122-aaaa", "20261122-bbbb"]
