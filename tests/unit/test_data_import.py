"""`pi-daemon data import`, as its user meets it."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pi_daemon.cli.main import carry_out
from pi_daemon.ecg.records import joined, read_beats
from pi_daemon.learning.datasets import load
from tests.support.records import NUM_BEATS, write_record

pytest.importorskip("wfdb", reason="needs the extra ecg")

BEAT = ",".join(["0.5"] * 187 + ["1.0"])


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def records(tmp_path: Path) -> Path:
    folder = tmp_path / "records"
    folder.mkdir()
    for name in ("106", "119"):
        write_record(folder, name)
    return folder


def import_wfdb(*arguments: object) -> int:
    return carry_out(["data", "import", "wfdb", *map(str, arguments)])


def files() -> list[str]:
    return sorted(path.name for path in Path().iterdir() if path.is_file())


def test_records_become_one_dataset_and_a_report(
    records: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert import_wfdb(records) == 0
    expected = joined([read_beats(records, name) for name in ("106", "119")])
    with np.load("ecg.npz") as found:
        assert set(found) == {"x", "y", "record", "sample"}
        assert all(np.array_equal(found[name], expected[name]) for name in expected)
    num_bytes = Path("ecg.npz").stat().st_size
    left = "beats outside the signal: 1, non-beat annotations: 1"
    assert capsys.readouterr() == (
        "record   beats      N      S      V      F      Q   left out\n"
        f"106         20      4      4      4      4      4   {left}\n"
        f"119         20      4      4      4      4      4   {left}\n"
        "40 beats (N 8, S 8, V 8, F 8, Q 8) of 2 records are in ecg.npz, "
        f"{num_bytes:,} bytes\n",
        "",
    )
    assert files() == ["ecg.npz"]


def test_records_lead_rr_intervals_and_target_can_be_chosen(records: Path) -> None:
    assert import_wfdb(records, "--records", "119", "--rr") == 0
    assert import_wfdb(records, "--records", " 119", "--lead", "V1", "--to", "v1.npz") == 0
    found = load("ecg-rr.npz")
    assert (found.x.shape, found.x.dtype) == ((NUM_BEATS, 190), np.uint8)
    assert np.array_equal(load("v1.npz").x, read_beats(records, "119", lead="V1").x)


def test_a_bad_record_is_left_out_and_named_and_the_others_are_imported(
    records: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.truncate(records / "106.dat", 1000)
    assert import_wfdb(records) == 0
    assert np.array_equal(load("ecg.npz").x, read_beats(records, "119").x)
    out, err = capsys.readouterr()
    assert out.splitlines()[1] == (
        "106          -      -      -      -      -      -   all: "
        "106.dat is cut off: it has 1000 bytes, expected 17000"
    )
    assert err == "pi-daemon: left out of 2 records: 106\n"


def test_without_a_single_beat_nothing_is_written(
    records: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert import_wfdb(records, "--lead", "V9") == 3
    reason = "record 106: it has no lead V9: it has V1, MLII"
    assert capsys.readouterr().err == f"pi-daemon: no beats were imported: {reason}\n"
    assert import_wfdb(records, "--records", "107") == 3
    assert capsys.readouterr().err == (
        "pi-daemon: records has no record 107: it has 106, 119\n".replace(
            "records", str(records), 1
        )
    )
    empty = records / "empty"
    empty.mkdir()
    assert import_wfdb(empty) == 3
    assert capsys.readouterr().err == (
        f"pi-daemon: {empty} holds no WFDB records: expected files such as 100.hea\n"
    )
    assert import_wfdb(records / "nowhere") == 3
    assert capsys.readouterr().err == (
        f"pi-daemon: {records / 'nowhere'} is no folder: name the one that holds the records\n"
    )
    assert files() == []


def test_a_file_is_only_overwritten_by_force(
    records: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("ecg.npz").write_bytes(b"before")
    assert import_wfdb(records) == 3
    assert capsys.readouterr().err == (
        "pi-daemon: --to ecg.npz: it is there already: add --force to overwrite it\n"
    )
    assert Path("ecg.npz").read_bytes() == b"before"
    assert import_wfdb(records, "--force") == 0
    assert len(load("ecg.npz").x) == 2 * NUM_BEATS


@pytest.mark.parametrize(
    ("to", "reason"),
    [
        ("ecg.txt", "--to ecg.txt: expected a name that ends in .npz"),
        ("gone/ecg.npz", "--to gone/ecg.npz: there is no folder gone"),
        ("pipe.npz", "--to pipe.npz: it is there and no regular file"),
    ],
)
def test_a_target_that_cannot_be_is_refused_at_once(
    records: Path, to: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo("pipe.npz")
    assert import_wfdb(records, "--to", to, "--force") == 3
    assert capsys.readouterr() == ("", f"pi-daemon: {reason}\n")


def run_program(*arguments: object, max_file_bytes: int) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))

    command = [sys.executable, "-m", "pi_daemon.cli.main", "data", "import", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, preexec_fn=limit, timeout=60
    )


def test_a_file_that_may_not_grow_leaves_what_was_there(records: Path) -> None:
    Path("ecg.npz").write_bytes(b"before")
    done = run_program("wfdb", records, "--force", max_file_bytes=1000)
    assert done.returncode == 3
    assert done.stderr == (
        "pi-daemon: ecg.npz cannot be written: File too large; nothing was changed\n"
    )
    assert Path("ecg.npz").read_bytes() == b"before"
    assert files() == ["ecg.npz"]


def test_a_full_disk_leaves_what_was_there(records: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a small disk")
    try:
        (disk / "ecg.npz").write_bytes(b"before")
        (disk / "rest").write_bytes(bytes(4096))
        done = run_program(
            "wfdb", records, "--to", disk / "ecg.npz", "--force", max_file_bytes=2**40
        )
        assert (done.returncode, done.stderr) == (
            3,
            f"pi-daemon: {disk}/ecg.npz cannot be written: No space left on device; "
            "nothing was changed\n",
        )
        assert (disk / "ecg.npz").read_bytes() == b"before"
        assert sorted(path.name for path in disk.iterdir()) == ["ecg.npz", "rest"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_heartbeat_csv_files_become_one_dataset_and_a_bad_one_is_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("a.csv").write_text(f"{BEAT}\n{BEAT}\n")
    Path("b.csv").write_text(f"{BEAT}\nheart{BEAT}\n")
    Path("c.csv").write_text(BEAT.replace("1.0", "4"))
    assert carry_out(["data", "import", "csv", "a.csv", "b.csv", "c.csv"]) == 0
    with np.load("ecg.npz") as found:
        assert found["x"].tolist() == [[128] * 187] * 3
        assert found["y"].tolist() == [1, 1, 4]
    num_bytes = Path("ecg.npz").stat().st_size
    assert capsys.readouterr() == (
        "file    beats      N      S      V      F      Q   left out\n"
        "a.csv       2      0      2      0      0      0   nothing\n"
        "b.csv       -      -      -      -      -      -   all: "
        "line 2 has 'heart0.5' in column 1, expected a number from 0 to 1\n"
        "c.csv       1      0      0      0      0      1   nothing\n"
        f"3 beats (N 0, S 2, V 0, F 0, Q 1) of 2 files are in ecg.npz, {num_bytes} bytes\n",
        "pi-daemon: left out of 3 files: b.csv\n",
    )


def test_a_csv_file_that_is_bad_alone_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("b.csv").write_text("time,lead\n")
    assert carry_out(["data", "import", "csv", "b.csv"]) == 3
    assert carry_out(["data", "import", "csv", "gone.csv"]) == 3
    assert capsys.readouterr().err.splitlines() == [
        "pi-daemon: no beats were imported: file b.csv: "
        "line 1 has 2 values, expected 187 and a class",
        "pi-daemon: no beats were imported: file gone.csv: No such file or directory: gone.csv",
    ]
    assert files() == ["b.csv"]


@pytest.mark.parametrize("command", [["data"], ["data", "import"], ["data", "import", "wfdb"]])
def test_help_loads_no_slow_library(command: list[str]) -> None:
    probe = (
        "import sys; from pi_daemon.cli.main import carry_out; carry_out(sys.argv[1:]); "
        "print('loaded:', *{'numpy', 'wfdb', 'scipy', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, *command, "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "loaded:"
