from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pi_daemon.ecg.annotations import AnnotationError, read_annotations

N, V, RHYTHM, NOTE = 1 << 10, 5 << 10, 28 << 10, 22 << 10
SKIP, NUM, SUB, CHAN, AUX = (code << 10 for code in (59, 60, 61, 62, 63))


def write(path: Path, *parts: int | bytes) -> Path:
    """Numbers are words, bytes are texts."""
    content = b"".join(p if isinstance(p, bytes) else p.to_bytes(2, "little") for p in parts)
    path.write_bytes(content)
    return path


def read(tmp_path: Path, *parts: int | bytes) -> tuple[list[int], list[int], float | None]:
    found = read_annotations(write(tmp_path / "7.atr", *parts))
    return found.samples.tolist(), found.labels.tolist(), found.hz


def test_places_add_up_and_beats_have_their_class(tmp_path: Path) -> None:
    assert read(tmp_path, N | 10, V | 1023, RHYTHM | 5, 0) == ([10, 1033, 1038], [0, 2, -1], None)
    assert read(tmp_path, 0) == ([], [], None)


def test_long_intervals_have_32_bits_and_a_sign(tmp_path: Path) -> None:
    parts = (SKIP, 1, 2, N | 3, SKIP, 0xFFFF, 0xFFFF, V | 0, 0)
    assert read(tmp_path, *parts) == ([65541, 65540], [0, 2], None)


def test_what_belongs_to_an_annotation_is_passed_over(tmp_path: Path) -> None:
    parts = (RHYTHM | 9, NUM | 1, SUB | 2, CHAN | 1, AUX | 3, b"(AF\0", N | 1, AUX | 2, b"hi", 0)
    assert read(tmp_path, *parts) == ([9, 10], [-1, 0], None)


def test_a_file_may_tell_the_rate_of_its_places(tmp_path: Path) -> None:
    note = b"## time resolution: 500.5\0"
    definitions = (NOTE, AUX | 25, note, SKIP, 0xFFFF, 0xFFFF, 1)
    assert read(tmp_path, *definitions, N | 7, 0) == ([7], [0], 500.5)
    assert read(tmp_path, NOTE, AUX | 7, b"## else\0", N | 7, 0) == ([7], [0], None)


def test_every_beat_symbol_has_its_class(tmp_path: Path) -> None:
    codes = range(1, 50)
    _, labels, _ = read(tmp_path, *((code << 10) | 1 for code in codes), 0)
    beats = {code: label for code, label in zip(codes, labels, strict=True) if label >= 0}
    assert beats == {
        **dict.fromkeys((1, 2, 3, 11, 25, 34, 35), 0),
        **dict.fromkeys((4, 7, 8, 9), 1),
        **dict.fromkeys((5, 10, 41), 2),
        6: 3,
        **dict.fromkeys((12, 13, 30, 38), 4),
    }


@pytest.mark.parametrize(
    "parts", [(), (b"x",), (N | 1,), (N | 1, b"\0"), (SKIP,), (SKIP, 0), (RHYTHM | 1, AUX | 200, 7)]
)
def test_a_file_that_ends_before_its_end_mark_is_refused(
    tmp_path: Path, parts: tuple[int | bytes, ...]
) -> None:
    with pytest.raises(AnnotationError, match=r"7\.atr is cut off: expected two zero bytes at its"):
        read(tmp_path, *parts)


def test_whatever_the_bytes_are_reading_ends(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    for _ in range(200):
        content = generator.bytes(400) + bytes(4)
        try:
            found = read_annotations(write(tmp_path / "7.atr", content))
        except AnnotationError:
            continue
        assert found.samples.shape == found.labels.shape
