from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pi_daemon.ecg.records import RecordError, joined, read_beats, record_names
from tests.support.records import NUM_BEATS, write_record

pytest.importorskip("wfdb", reason="needs the extra ecg")

DATA = Path(os.environ.get("FEDCONSOLE_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.mark.parametrize("name", ["100", "106", "119", "201", "208", "232"])
def test_an_imported_record_equals_the_reference_beats(name: str) -> None:
    reference = DATA / "mitbih_beats.npz"
    if not reference.exists():
        pytest.skip("needs mitdb and mitbih_beats.npz in FEDCONSOLE_DATA")
    found = joined([read_beats(DATA / "mitdb", name)])
    with np.load(reference) as beats:
        of_record = beats["record"] == int(name)
        for array in ("x", "y", "record", "sample"):
            assert np.array_equal(found[array], beats[array][of_record]), array


def test_each_beat_is_taken_with_its_class_and_its_r_peak(tmp_path: Path) -> None:
    write_record(tmp_path, "7")
    beats = read_beats(tmp_path, "7")
    assert beats.y.tolist() == [0, 1, 2, 3, 4] * 4
    assert beats.sample.tolist() == [100 + 200 * i for i in range(NUM_BEATS)]
    assert (beats.x.shape, beats.x.dtype) == ((NUM_BEATS, 187), np.uint8)
    assert beats.left == Counter({"beats outside the signal": 1, "non-beat annotations": 1})


def test_annotations_may_have_a_rate_of_their_own(tmp_path: Path) -> None:
    write_record(tmp_path, "7")
    at_250_hz = read_beats(tmp_path, "7")
    write_record(tmp_path, "7", annotations_hz=500)
    at_500_hz = read_beats(tmp_path, "7")
    assert np.array_equal(at_500_hz.sample, at_250_hz.sample)
    assert np.array_equal(at_500_hz.x, at_250_hz.x)


def test_a_note_about_the_annotation_file_is_no_annotation(tmp_path: Path) -> None:
    write_record(tmp_path, "7")
    in_annotations("## whatever")(tmp_path)
    beats = read_beats(tmp_path, "7")
    assert (len(beats.x), beats.left) == (0, Counter())


def test_annotations_out_of_order_are_put_in_order(tmp_path: Path) -> None:
    write_record(tmp_path, "7")
    normal, ventricular, skip = 1 << 10, 5 << 10, 59 << 10
    minus_700 = (0xFFFF, 0x10000 - 700)
    words = (normal | 1000, skip, *minus_700, ventricular, normal | 200, 0)
    (tmp_path / "7.atr").write_bytes(np.array(words, "<u2").tobytes())
    beats = read_beats(tmp_path, "7")
    assert (beats.sample.tolist(), beats.y.tolist()) == ([300, 500, 1000], [2, 0, 0])


def test_rr_intervals_are_joined_to_the_beats_if_asked_for(tmp_path: Path) -> None:
    write_record(tmp_path, "7")
    beats = read_beats(tmp_path, "7", with_rr=True)
    assert np.array_equal(beats.x[:, :187], read_beats(tmp_path, "7").x)
    assert beats.x[:, 187:].tolist() == [[80, 80, 80]] * NUM_BEATS


def test_the_lead_is_mlii_unless_another_is_named(tmp_path: Path) -> None:
    write_record(tmp_path, "7")
    unnamed, named = read_beats(tmp_path, "7"), read_beats(tmp_path, "7", lead="MLII")
    assert np.array_equal(unnamed.x, named.x)
    assert not np.array_equal(read_beats(tmp_path, "7", lead="V1").x, named.x)
    with pytest.raises(RecordError, match="it has no lead II: it has V1, MLII"):
        read_beats(tmp_path, "7", lead="II")


def test_beats_on_invalid_samples_are_left_out(tmp_path: Path) -> None:
    write_record(tmp_path, "7")
    whole = read_beats(tmp_path, "7", with_rr=True)
    write_record(tmp_path, "7", nan_at=slice(1000, 1010))
    beats = read_beats(tmp_path, "7", with_rr=True)
    kept = [i for i in range(NUM_BEATS) if i != 4]
    assert beats.left["beats on invalid samples"] == 1
    assert beats.sample.tolist() == whole.sample[kept].tolist()
    # Also of the neighbours of a beat that is left out.
    assert np.array_equal(beats.x[:, 187:], whole.x[kept, 187:])


def test_names_are_sorted_as_numbers_and_can_be_chosen(tmp_path: Path) -> None:
    for name in ("100", "20", "a1"):
        (tmp_path / f"{name}.hea").touch()
    assert record_names(tmp_path) == ["20", "100", "a1"]
    assert record_names(tmp_path, ("100", "20")) == ["20", "100"]
    with pytest.raises(RecordError, match="has no record 21: it has 20, 100, a1"):
        record_names(tmp_path, ("20", "21"))


def test_records_keep_their_names_where_not_all_are_numbers(tmp_path: Path) -> None:
    for name in ("100", "sel7"):
        write_record(tmp_path, name)
    both = joined([read_beats(tmp_path, name) for name in ("100", "sel7")])
    assert both["record"].tolist() == ["100"] * NUM_BEATS + ["sel7"] * NUM_BEATS
    assert joined([read_beats(tmp_path, "100")])["record"].dtype == np.int32


def test_a_folder_without_records_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"holds no WFDB records: expected files such as 100.hea"):
        record_names(tmp_path)


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wfdb", None)
    with pytest.raises(
        RecordError, match=r"the extra ecg \(.*wfdb.*\): pip install 'fedconsole\[ecg\]'"
    ):
        record_names(tmp_path)


def in_header(old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "7.hea"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return change


def in_annotations(note: str) -> Callable[[Path], None]:
    """Replace them by a note at the start."""
    words = np.array([22 << 10, 63 << 10 | len(note)], "<u2").tobytes()
    text = note.encode() + bytes(len(note) % 2)

    def change(folder: Path) -> None:
        (folder / "7.atr").write_bytes(words + text + b"\0\0")

    return change


def cut_off(name: str, num_bytes: int) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / name, num_bytes)


def removed(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def linked_outside(folder: Path) -> None:
    shutil.move(folder / "7.dat", folder.parent / "outside.dat")
    (folder / "7.dat").symlink_to(folder.parent / "outside.dat")


def split_into_segments(folder: Path) -> None:
    (folder / "7.hea").write_text("7/2 2 250 4250\n7_1 2000\n7_2 2250\n")


def without_a_valid_sample(folder: Path) -> None:
    write_record(folder, "7", nan_at=slice(None))


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (cut_off("7.dat", 1000), "7.dat is cut off: it has 1000 bytes, expected 17000"),
        (cut_off("7.atr", 20), "7.atr is cut off: expected two zero bytes at its end"),
        (cut_off("7.atr", 0), "7.atr is cut off"),
        (cut_off("7.hea", 93), "7.hea is cut off: expected a line end at its end"),
        (cut_off("7.hea", 54), "its header announces 2 leads and describes 1"),
        (cut_off("7.hea", 13), "its header announces 2 leads and describes 0"),
        (cut_off("7.hea", 0), "7.hea is cut off"),
        (in_header("7 2 ", "7 two "), "it is no WFDB record that can be read ("),
        (removed("7.dat"), "7.dat is missing"),
        (removed("7.atr"), "7.atr is missing"),
        (removed("7.hea"), "7.hea is missing"),
        (linked_outside, "7.dat is a link that leads out of"),
        (in_header("7.dat", "../outside.dat"), "it is no WFDB record that can be read"),
        (in_header("7.dat", "/etc/passwd"), "it is no WFDB record that can be read"),
        (in_header("7.dat", "~"), "it names the file ~: expected one in the same folder"),
        (split_into_segments, "it is split into segments: join them first"),
        (in_header(" 16 ", " 516 "), "it is stored in format 516, expected one of 8, 16"),
        (in_header(" 4250", " 999999999999"), "7.dat is cut off: it has 17000 bytes, expected"),
        (in_header(" 16 ", " 16:99999 "), "its leads are skewed by more than 1 s"),
        (in_header(" 250 ", " 1e300 "), "its signal has 1 samples/s, expected 50 to 10000"),
        (in_annotations("## time resolution: 0.01"), "its annotation file has 0.01 samples/s"),
        (without_a_valid_sample, "its lead MLII has no valid sample"),
    ],
)  # fmt: skip
def test_a_bad_record_is_refused_with_its_reason(
    tmp_path: Path, harm: Callable[[Path], None], reason: str
) -> None:
    folder = tmp_path / "records"
    folder.mkdir()
    write_record(folder, "7")
    harm(folder)
    with pytest.raises(RecordError) as found:
        read_beats(folder, "7")
    assert reason in str(found.value)
    assert "\n" not in str(found.value)


def test_a_record_whose_name_means_something_to_a_library_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "zip::7.hea").touch()
    assert record_names(tmp_path) == ["zip::7"]
    with pytest.raises(
        RecordError, match=r"it names the file zip::7.hea: expected one in the same"
    ):
        read_beats(tmp_path, "zip::7")


def test_whatever_the_bytes_are_only_a_record_error_is_raised(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    write_record(tmp_path, "7")
    good = {suffix: (tmp_path / f"7.{suffix}").read_bytes() for suffix in ("hea", "atr")}
    outcomes = Counter[bool]()
    for _ in range(150):
        suffix = generator.choice(["hea", "atr"])
        content = np.frombuffer(good[suffix], np.uint8).copy()
        content[generator.integers(0, len(content), 3)] = generator.integers(0, 256, 3)
        (tmp_path / f"7.{suffix}").write_bytes(content.tobytes())
        try:
            read_beats(tmp_path, "7")
            outcomes[True] += 1
        except RecordError:
            outcomes[False] += 1
        (tmp_path / f"7.{suffix}").write_bytes(good[suffix])
    assert min(outcomes[True], outcomes[False]) > 5
