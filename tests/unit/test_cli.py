from __future__ import annotations

import asyncio
import csv
import io
import json
import resource
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from websockets.asyncio.server import serve

from fedconsole import history, paths
from fedconsole.cli import doctor
from fedconsole.cli.console import is_plain
from fedconsole.cli.follow import crash
from fedconsole.cli.main import carry_out
from fedconsole.cli.output import Output, print_rows
from fedconsole.cli.run import pick
from fedconsole.engine.control import ControlServer
from fedconsole.engine.store import RunStore
from fedconsole.errors import RefusedError, UsageError
from fedconsole.fleet.device import Device, Source
from fedconsole.trust import known_devices
from fedconsole.trust.known_devices import KnownDevice
from pi_daemon.protocol.pairing import ConsoleRole
from pi_daemon.protocol.tensors import model_id, read_table
from pi_daemon.trust.keys import ID_LENGTH
from tests.support.places import redirect, write_journal
from tests.unit.test_history import CREATED, END, ROUND, TEST

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return redirect(tmp_path, monkeypatch)


def test_without_arguments_it_helps_on_stderr_and_means_a_usage_error(capsys: Capture) -> None:
    assert carry_out([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Usage: fedconsole" in err


@pytest.mark.parametrize("arguments", [["--version"], ["version"]])
def test_the_version_is_data(arguments: list[str], capsys: Capture) -> None:
    assert carry_out(arguments) == 0
    out, err = capsys.readouterr()
    assert out.startswith("fedconsole 0.")
    assert err == ""


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["run", "--nope"], 2, "No such option: --nope; see fedconsole run --help"),
        (["runs"], 2, "Missing command; see fedconsole runs --help"),
        (["run", "--lr", "fast"], 2, "Invalid value for '--lr'"),
        (["run", "--virtual", "2", "--lr", "0"], 2, "lr is 0.0: expected a finite learning rate"),
        (["run", "--worker", "a b"], 2, "'a b' is no address"),
        (["run", "--virtual", "1", "--stop-at", "accuracy"], 2, "stop_at is 'accuracy'"),
        (["run", "--virtual", "1", "--detach", "--dry-run"], 2, "exclude each other"),
        (["run", "--config", "none.toml"], 3, "cannot read none.toml"),
        (["runs", "show"], 2, "there are no runs"),
        (["runs", "export"], 2, "export what? give one of"),
        (["abort", "all"], 2, "no run to abort; none is running"),
        (["resume", "all"], 2, "no run to resume; none is running, and no engine is gone"),
        (["quorum", "all", "fewer"], 2, "no run to go on with fewer; none is running"),
        (["quorum", "all", "perhaps"], 2, "Invalid value for 'answer'"),
        (["devices", "show", "kitchen"], 3, "no device 'kitchen'; known: none"),
        (["completion", "tcsh"], 2, "no completion for 'tcsh'"),
    ],
)
def test_every_refusal_is_one_line_with_its_exit_code(
    arguments: list[str], exit_code: int, message: str, capsys: Capture
) -> None:
    assert carry_out(arguments) == exit_code
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("fedconsole: ")
    assert message in line


def test_a_bug_is_one_line_and_its_traceback_is_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(doctor, "_checks", fail)
    assert carry_out(["doctor"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    kept = paths.state_dir() / "last-error.txt"
    assert line == (
        f"fedconsole: ZeroDivisionError: planted; this is a bug, please report it with {kept}"
    )
    assert "in fail" in kept.read_text()


def test_a_run_without_any_device_ends_with_a_way_out(capsys: Capture) -> None:
    assert carry_out(["run"]) == 5
    err = capsys.readouterr().err
    assert "fedconsole: no workers; no device answered" in err
    assert "--virtual 3" in err


def test_devices_are_picked_by_number() -> None:
    devices = [Device(name, f"{name}:1", Source.LOCAL) for name in ("a", "b", "c")]
    assert pick(devices, "all") == devices
    assert pick(devices, "3,1 1") == [devices[0], devices[2]]
    for wrong in ("", "0", "4", "a", "-1"):
        with pytest.raises(UsageError, match="numbers from 1 to 3"):
            pick(devices, wrong)


def test_runs_are_listed_as_table_json_and_names(capsys: Capture) -> None:
    write_journal("20261122-aaaa", [CREATED, TEST, ROUND, END])
    assert carry_out(["runs", "list"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == [
        *("RUN", "STATE", "TASK", "STARTED", "ROUNDS", "SECONDS", "ACCURACY", "LOSS", "REASON"),
    ]
    cells = row.split()
    assert cells[:3] + cells[4:] == [
        "20261122-aaaa",
        "completed",
        "digits",
        "1",
        "3.5",
        "0.9",
        "0.4",
        "-",
    ]
    carry_out(["runs", "list", "-o", "json"])
    (run,) = json.loads(capsys.readouterr().out)
    assert (run["run"], run["plan"], run["accuracy"]) == ("20261122-aaaa", {"virtual": 2}, 0.9)
    carry_out(["runs", "list", "-o", "name"])
    assert capsys.readouterr().out == "20261122-aaaa\n"


def test_a_run_is_exported_as_json_csv_and_model(capsys: Capture) -> None:
    write_journal("20261122-aaaa", [CREATED, TEST, ROUND, END])
    carry_out(["runs", "export", "2026", "--json"])
    printed = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert printed == list(history.lines("20261122-aaaa"))
    carry_out(["runs", "export", "--csv"])
    assert capsys.readouterr().out.splitlines() == [
        "round,seconds,updates,training_loss,loss,accuracy,bytes_sent,bytes_received,model_id,macro_f1",
        "1,2.0,alice bob,0.5,0.4,0.9,10,20,aa,0.8",
    ]
    assert carry_out(["runs", "export", "--model", "out.safetensors"]) == 8


def write_run_with_model(num_values: int) -> bytes:
    """Returns the content of its model file."""
    content = safetensors.numpy.save({"w": np.ones(num_values, np.float32)})
    found = model_id(content, read_table(content))
    write_journal("20261122-aaaa", [CREATED, TEST, ROUND | {"model_id": found}, END])
    (history.folder_of("20261122-aaaa") / "model.safetensors").write_bytes(content)
    return content


def test_the_model_of_a_run_is_exported_and_overwrites_nothing() -> None:
    content = write_run_with_model(3)
    assert carry_out(["runs", "export", "--model", "out.safetensors"]) == 0
    assert Path("out.safetensors").read_bytes() == content
    assert carry_out(["runs", "export", "--model", "out.safetensors"]) == 3


def test_an_export_for_which_there_is_no_room_leaves_nothing(
    tmp_path: Path, capsys: Capture
) -> None:
    content = write_run_with_model(100_000)
    target = tmp_path / "to" / "out.safetensors"
    target.parent.mkdir()
    _, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(content) // 2, hard))
    try:
        assert carry_out(["runs", "export", "--model", str(target)]) == 8
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert capsys.readouterr().err == f"fedconsole: cannot write {target}: File too large\n"
    assert list(target.parent.iterdir()) == []


def test_one_run_is_shown_with_its_rounds(capsys: Capture) -> None:
    write_journal("20261122-aaaa", [CREATED, TEST, ROUND, END])
    carry_out(["runs", "show"])
    out = capsys.readouterr().out
    assert "plan        virtual=2" in out
    assert [line.split() for line in out.splitlines()[-9:]] == [
        ["1", "2", "alice,", "bob", "0.5", "0.4", "0.9", "0.8"],
        [],
        ["CLASS", "EXAMPLES", "RECALL", "PRECISION", "F1"],
        ["N", "4", "0.75", "1", "0.8571"],
        ["V", "4", "1", "0.8", "0.8889"],
        [],
        ["TRUE", "CLASS", "N", "V"],
        ["N", "3", "1"],
        ["V", "0", "4"],
    ]


def test_one_run_as_json_has_its_last_test_class_by_class(capsys: Capture) -> None:
    write_journal("20261122-aaaa", [CREATED, TEST, ROUND, END])
    carry_out(["runs", "show", "-o", "json"])
    (run,) = json.loads(capsys.readouterr().out)
    assert run["macro_f1"] == 0.8
    assert run["confusion"] == {"N": [3, 1], "V": [0, 4]}
    assert run["class_table"][1] == {
        "class": "V",
        "examples": 4,
        "recall": 1.0,
        "precision": 0.8,
        "f1": 8 / 9,
    }


def test_removing_asks_and_without_a_terminal_wants_to_be_told(capsys: Capture) -> None:
    write_journal("20261122-aaaa", [CREATED, END])
    assert carry_out(["runs", "rm", "all"]) == 2
    assert "add --yes" in capsys.readouterr().err
    assert carry_out(["runs", "rm", "all", "--yes"]) == 0
    assert history.run_ids() == []


def test_the_log_keeps_the_seed_s_lines(capsys: Capture) -> None:
    batches = {
        "type": "worker.batches",
        "worker": "alice",
        "round": 1,
        "first": 0,
        "batches": 50,
        "losses": [2.5] * 25,
    }
    write_journal("20261122-aaaa", [CREATED, batches])
    carry_out(["logs"])
    lines = [text[10:] for text in capsys.readouterr().out.splitlines()]
    assert lines == [
        "Run 20261122-aaaa of task digits: making the workers ready.",
        "Train Worker alice: [25/50 (50%)]\tLoss: 2.500000",
    ]


def test_the_log_as_json_is_the_journal(capsys: Capture) -> None:
    write_journal("20261122-aaaa", [CREATED, TEST, ROUND, END])
    assert carry_out(["logs", "--json"]) == 0
    printed = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert printed == list(history.lines("20261122-aaaa"))


def test_a_finished_run_cannot_be_attached_paused_or_aborted(capsys: Capture) -> None:
    write_journal("20261122-aaaa", [CREATED, END])
    for command in ("attach", "pause", "resume", "abort"):
        assert carry_out([command, "latest"]) == 3
        assert "is not running" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["attach", "pause", "abort", "quorum"])
def test_whoever_asks_a_run_without_an_engine_is_told_how_to_resume_it(
    command: str, capsys: Capture
) -> None:
    write_journal("20261122-aaaa", [CREATED])
    answer = ["wait"] if command == "quorum" else []
    assert carry_out([command, "latest", *answer]) == 3
    assert capsys.readouterr().err.splitlines() == [
        "fedconsole: run 20261122-aaaa is not running: its engine is gone; take it up: "
        "fedconsole resume 20261122-aaaa"
    ]


async def test_what_is_asked_of_all_runs_reaches_those_behind_one_that_refuses(
    capsys: Capture,
) -> None:
    asked: list[str] = []

    def refuse(_request: str) -> None:
        raise RefusedError("not now")

    async with AsyncExitStack() as stack:
        for run, answer in (("20261122-aaaa", refuse), ("20261123-bbbb", asked.append)):
            store = RunStore(paths.runs_dir() / run)
            stack.callback(store.close)
            control = ControlServer(store, answer)
            await control.start()
            stack.push_async_callback(control.close, grace_s=0.1)
        assert await asyncio.to_thread(carry_out, ["pause", "all"]) == 3
    assert asked == ["pause"]
    assert capsys.readouterr().err.splitlines() == [
        "run 20261122-aaaa: not now",
        "run 20261123-bbbb was asked to pause",
        "fedconsole: 1 of 2 runs were not asked to pause",
    ]


def test_a_limit_on_open_files_that_is_too_low_is_told_with_its_mend() -> None:
    command = (
        f"ulimit -n 10; exec {sys.executable} -m fedconsole.cli.entry run --virtual 1 --headless"
    )
    ended = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (
        1,
        "fedconsole: too many open files: a process may have 10 here; allow more: ulimit -n 1024\n",
    )


def test_tables_align_by_cells_not_characters(capsys: Capture) -> None:
    rows: list[dict[str, Any]] = [{"name": "앨리스", "n": 1}, {"name": "bob", "n": None}]
    print_rows(rows, ("name", "n"), Output.TABLE)
    assert capsys.readouterr().out.splitlines() == ["NAME    N", "앨리스  1", "bob     -"]


def test_csv_is_quoted_cleaned_and_has_all_digits(capsys: Capture) -> None:
    rows = [
        {"name": 'a "b", c', "loss": 1 / 3, "datasets": ["x", "y"], "run": None},
        {"name": "e\x1b[2J\nf", "loss": 2.0, "datasets": [], "run": "r"},
    ]
    print_rows(rows, ("name", "loss", "datasets", "run"), Output.CSV)
    out = capsys.readouterr().out
    assert out.count("\n") == 3
    assert list(csv.reader(io.StringIO(out))) == [
        ["name", "loss", "datasets", "run"],
        ['a "b", c', "0.3333333333333333", "x, y", ""],
        ["e[2J f", "2.0", "", "r"],
    ]


def test_no_text_in_csv_is_a_formula_to_a_spreadsheet(capsys: Capture) -> None:
    rows = [{"name": f"{sign}1+cmd", "n": -0.5, "datasets": [f"{sign}x"]} for sign in "=+-@"]
    print_rows(rows, ("name", "n", "datasets"), Output.CSV)
    _, *lines = capsys.readouterr().out.splitlines()
    assert lines == [f"'{sign}1+cmd,-0.5,'{sign}x" for sign in "=+-@"]


def test_runs_are_listed_shown_and_compared_as_csv(capsys: Capture) -> None:
    for run, seed in (("20261122-aaaa", 1), ("20261123-bbbb", 2)):
        created = CREATED | {"plan": {"virtual": 2, "seed": seed}}
        write_journal(run, [created, TEST, ROUND, END])

    def table(*arguments: str) -> list[list[str]]:
        assert carry_out([*arguments, "-o", "csv"]) == 0
        return list(csv.reader(io.StringIO(capsys.readouterr().out)))

    header, *runs = table("runs", "list")
    assert (header[0], [row[0] for row in runs]) == ("run", ["20261122-aaaa", "20261123-bbbb"])
    header, shown = table("runs", "show")
    assert dict(zip(header, shown, strict=True))["updates"] == "alice, bob"
    header, *compared = table("runs", "compare", "20261122", "20261123")
    assert [dict(zip(header, row, strict=True))["plan.seed"] for row in compared] == ["1", "2"]


def test_the_names_of_the_system_of_2020_still_work(capsys: Capture) -> None:
    seed = "--batch_size 0 --test_batch_size 0 --federate_after_n_batches 0 --epochs 0 --lr 0"
    flags = "--use_virtual --save_model --cuda --verbose --seed 1 --cohort_size 4"
    assert carry_out(["run", *seed.split(), *flags.split()]) == 2
    problems = capsys.readouterr().err
    for problem in (
        "batch_size is 0",
        "test_batch_size is 0",
        "federate_after_n_batches is 0",
        "epochs is 0",
        "lr is 0.0",
        "cohort_size is 4: expected 1 to 3, the number of workers",
    ):
        assert problem in problems


def test_the_hidden_names_are_not_in_the_help(capsys: Capture) -> None:
    assert carry_out(["run", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--use-virtual" not in out
    assert "_model" not in out
    assert "--save-model" in out


def completed(words: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> list[str]:
    """What bash is offered for the last of the words."""
    monkeypatch.setenv("_FEDCONSOLE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    with pytest.raises(SystemExit):
        carry_out([])
    return capsys.readouterr().out.split()


def test_completion_knows_the_runs(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    write_journal("20261122-aaaa", [CREATED, END])
    assert completed("fedconsole runs show 2026", monkeypatch, capsys) == ["20261122-aaaa"]


def test_completion_knows_the_devices_of_this_console(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    known_devices.remember(
        KnownDevice(
            id="A" * ID_LENGTH,
            name="kitchen",
            role=ConsoleRole.OPERATOR,
            paired_at="2026-11-27T09:00:00Z",
            certificate="",
            addresses=("192.0.2.1:10002",),
        )
    )
    Path("fedconsole.toml").write_text("[[devices]]\nhost = '192.0.2.2'\nname = 'kiosk'\n")
    for command in ("show", "ping", "forget"):
        assert completed(f"fedconsole devices {command} ki", monkeypatch, capsys) == [
            *("kiosk", "kitchen"),
        ]
    Path("fedconsole.toml").write_text("[[devices")
    assert completed("fedconsole devices show ki", monkeypatch, capsys) == []


async def test_a_device_that_hangs_up_is_listed_as_offline(capsys: Capture) -> None:
    async def hang_up(link: object) -> None:
        pass

    async with serve(hang_up, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        Path("fedconsole.toml").write_text(f"[[devices]]\nhost = '127.0.0.1'\nport = {port}\n")
        await asyncio.to_thread(carry_out, ["devices", "-o", "json"])
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["address"], row["state"]) == (f"127.0.0.1:{port}", "offline")
    assert row["reason"]


def test_sentences_are_wanted_by_an_option_or_by_a_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert [is_plain(None), is_plain(True)] == [False, True]
    monkeypatch.setenv("FEDCONSOLE_PLAIN", "true")
    assert is_plain(None)


def test_a_run_that_never_began_is_named_with_its_reason(capsys: Capture) -> None:
    write_journal("20261122-aaaa", [CREATED, END])
    folder = history.folder_of("20261122-bbbb")
    folder.mkdir()
    (folder / "engine.log").write_text("Traceback\nMemoryError\n")
    why = f"MemoryError ({folder / 'engine.log'})"
    assert carry_out(["runs", "list", "-o", "json"]) == 0
    rows = {row["run"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows.keys() == {"20261122-aaaa", "20261122-bbbb"}
    assert (rows["20261122-bbbb"]["state"], rows["20261122-bbbb"]["reason"]) == ("no journal", why)
    assert carry_out(["runs", "show", "20261122-bbbb"]) == 0
    assert why in capsys.readouterr().out
    assert str(crash("20261122-bbbb")).startswith("run 20261122-bbbb never began; its engine's log")
