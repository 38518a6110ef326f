"""Every input in the corpus, through its target: what was found once stays mended."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.guard import measured
from tests.fuzz.targets import CORPUS, TARGETS, Target
from tests.support.places import redirect

MAX_CORPUS_BYTES = 200_000


@pytest.fixture
def target(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Target:
    redirect(tmp_path, monkeypatch)
    if request.param == "wfdb_header":
        pytest.importorskip("wfdb", reason="needs the extra ecg")
    folder = tmp_path / "files"
    folder.mkdir()
    return TARGETS[request.param](folder)


@pytest.mark.parametrize("target", TARGETS, indirect=True)
def test_an_input_is_read_or_refused_within_its_memory(target: Target) -> None:
    # The first one loads libraries, which are no input's memory.
    target(target.seeds()[0])
    for path in sorted((CORPUS / target.name).iterdir()):
        try:
            measured(target, path.read_bytes())
        except Exception as error:
            error.add_note(f"input: {path}")
            raise


def test_every_corpus_has_a_target_and_all_are_small() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
    assert sum(path.stat().st_size for path in CORPUS.glob("*/*")) < MAX_CORPUS_BYTES
