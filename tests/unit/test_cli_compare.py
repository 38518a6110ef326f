from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from fedconsole import history, paths, run_names
from fedconsole.cli.main import carry_out
from tests.support.places import redirect, write_journal
from tests.unit.test_history import CREATED, END, ROUND, TEST

Capture = pytest.CaptureFixture[str]
UPDATE = {
    "type": "worker.update",
    "worker": "alice",
    "round": 1,
    "num_examples": 64,
    "loss": 0.5,
    "seconds": 1.0,
}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return redirect(tmp_path, monkeypatch)


@pytest.fixture
def three_runs() -> None:
    for name, lr in (("aaaa", 0.01), ("bbbb", 0.5), ("cccc", 0.01)):
        created = CREATED | {"plan": {"virtual": 2, "lr": lr, "workers": []}}
        write_journal(f"20261122-{name}", [created, UPDATE, TEST, ROUND, END])


@pytest.mark.usefixtures("three_runs")
def test_two_runs_are_compared_by_outcome_and_differing_options(capsys: Capture) -> None:
    assert carry_out(["runs", "compare", "20261122-a", "20261122-b"]) == 0
    out = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[:3] + row[4:] for row in out[:3]] == [
        ["RUN", "STATE", "TASK", "SECONDS", "ROUNDS", "WORKERS", "LOSS", "ACCURACY", "MACRO", "F1"],
        ["20261122-aaaa", "completed", "digits", "3.5", "1", "2", "0.4", "0.9", "0.8"],
        ["20261122-bbbb", "completed", "digits", "3.5", "1", "2", "0.4", "0.9", "0.8"],
    ]
    assert out[3:] == [[], ["OPTION", "20261122-aaaa", "20261122-bbbb"], ["lr", "0.01", "0.5"]]


@pytest.mark.usefixtures("three_runs")
def test_runs_with_equal_plans_have_no_table_of_options(capsys: Capture) -> None:
    assert carry_out(["runs", "compare", "20261122-a", "20261122-c"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.usefixtures("three_runs")
def test_a_comparison_as_json_has_only_the_differing_options(capsys: Capture) -> None:
    runs = ["20261122-a", "20261122-b", "20261122-c"]
    assert carry_out(["runs", "compare", *runs, "-o", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["run"], row["loss"], row["plan"]) for row in rows] == [
        ("20261122-aaaa", 0.4, {"lr": 0.01}),
        ("20261122-bbbb", 0.4, {"lr": 0.5}),
        ("20261122-cccc", 0.4, {"lr": 0.01}),
    ]


@pytest.mark.usefixtures("three_runs")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["2026"], "fits 20261122-aaaa, 20261122-bbbb, 20261122-cccc"),
        (["latest"], "1 runs to compare; name 2 to 4"),
        (["20261122-a", "20261122-aaaa"], "a run is named twice"),
        (["20261122-a", "all"], "'all' means 3 runs"),
        (["20261122-a", "x"], "no run begins with 'x'"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    arguments: list[str], message: str, capsys: Capture
) -> None:
    assert carry_out(["runs", "compare", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_more_than_four_runs_are_refused(capsys: Capture) -> None:
    names = [f"20261122-{n}" for n in range(5)]
    for name in names:
        write_journal(name, [CREATED, END])
    assert carry_out(["runs", "compare", *names]) == 2
    assert "5 runs to compare; name 2 to 4" in capsys.readouterr().err
    assert carry_out(["runs", "compare", *names[:4]]) == 0


@pytest.mark.usefixtures("three_runs")
def test_a_run_is_exported_as_markdown_and_svg(capsys: Capture) -> None:
    assert carry_out(["runs", "export", "20261122-b", "--markdown"]) == 0
    report = capsys.readouterr().out
    assert report.startswith("# Run 20261122-bbbb: digits\n")
    assert "| lr | 0.5 |" in report
    assert "| alice | 1 | 0 | 0 | 64 | 0.5 |" in report
    assert "| N | 4 | 0.75 | 1 | 0.8571 |" in report
    assert carry_out(["runs", "export", "20261122-b", "--svg"]) == 0
    picture = capsys.readouterr().out
    assert ElementTree.fromstring(picture).tag.endswith("svg")
    assert "alice" in picture


@pytest.mark.usefixtures("three_runs")
def test_one_form_of_export_is_given(capsys: Capture) -> None:
    assert carry_out(["runs", "export", "20261122-a", "--markdown", "--svg"]) == 2
    assert "give one of --json, --csv, --markdown, --svg and --model FILE" in (
        capsys.readouterr().err
    )


@pytest.mark.usefixtures("three_runs")
def test_a_run_that_cannot_be_read_is_named_and_the_others_are_listed(capsys: Capture) -> None:
    (history.folder_of("20261122-bbbb") / "run.db").write_bytes(b"not a database" * 100)
    assert carry_out(["runs", "list", "-o", "name"]) == 0
    assert set(capsys.readouterr().out.split()) == {
        *("20261122-aaaa", "20261122-bbbb", "20261122-cccc"),
    }
    carry_out(["runs", "list", "-o", "json"])
    rows = {row["run"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["20261122-aaaa"]["state"] == "completed"
    assert rows["20261122-bbbb"].keys() == rows["20261122-aaaa"].keys()
    assert rows["20261122-bbbb"]["state"] == "unreadable"
    assert rows["20261122-bbbb"]["reason"].startswith("cannot read the journal")


@pytest.mark.usefixtures("three_runs")
def test_a_folder_without_a_journal_is_listed_shown_and_removed(capsys: Capture) -> None:
    (history.folder_of("20261122-bbbb") / "run.db").unlink()
    (history.folder_of("20261122-bbbb").parent / "notes.txt").touch()
    carry_out(["runs", "list", "-o", "json"])
    states = {row["run"]: row["state"] for row in json.loads(capsys.readouterr().out)}
    assert states == {
        "20261122-aaaa": "completed",
        "20261122-bbbb": "no journal",
        "20261122-cccc": "completed",
    }
    assert carry_out(["runs", "show", "20261122-b"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "run         20261122-bbbb",
        "state       no journal",
        f"folder      {history.folder_of('20261122-bbbb')}",
        "reason      its folder holds checkpoints, engine.lock, engine.log, updates",
    ]
    assert carry_out(["runs", "rm", "20261122-b", "--yes"]) == 0
    assert history.run_ids() == ["20261122-aaaa", "20261122-cccc"]


@pytest.mark.usefixtures("three_runs")
def test_the_latest_run_is_one_with_a_journal() -> None:
    paths.runs_dir().joinpath("20991231-ffff").mkdir()
    assert "20991231-ffff" not in run_names.resolve("latest")


@pytest.mark.usefixtures("three_runs")
@pytest.mark.parametrize("name", ["run.db", "run.db-wal", "run.db-shm"])
def test_a_journal_that_is_no_file_is_listed_and_stops_nothing(name: str, capsys: Capture) -> None:
    # In a process of its own: what waits in the system's open cannot be interrupted here.
    path = history.folder_of("20261122-bbbb") / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    listed = subprocess.run(
        [sys.executable, "-m", "fedconsole.cli.entry", "runs", "list", "-o", "json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    rows = {row["run"]: row for row in json.loads(listed.stdout)}
    assert rows["20261122-aaaa"]["state"] == "completed"
    assert rows["20261122-bbbb"]["state"] == "unreadable"
    assert rows["20261122-bbbb"]["reason"].endswith(f"{name} is no regular file")


@pytest.mark.usefixtures("three_runs")
def test_a_replay_needs_a_terminal_and_a_run(capsys: Capture) -> None:
    assert carry_out(["runs", "replay", "20261122-a"]) == 2
    assert "for the text: fedconsole logs 20261122-aaaa" in capsys.readouterr().err
    assert carry_out(["runs", "replay", "x"]) == 2
