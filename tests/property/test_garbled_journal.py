"""A journal whose bytes a failing disk has changed: the same model in the end, or a sentence that says no.

GARBLED_IMAGES=200 draws more of them; `pytest -rP` shows how many came out how.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from fedconsole import history
from fedconsole.engine.store import Line
from fedconsole.errors import ExitCode, FedconsoleError, StorageError
from tests.support.recorded_runs import RUN, Recorded, carry, made_up_devices, record

NUM_IMAGES = int(os.environ.get("GARBLED_IMAGES", "25"))
SEED = int(os.environ.get("GARBLED_SEED", "1"))
SECTOR_BYTES = 512

pytestmark = pytest.mark.timeout(120 + 5 * NUM_IMAGES)


@pytest.fixture(scope="module", autouse=True)
def devices() -> Iterator[None]:
    with made_up_devices():
        yield


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return record(tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where fedconsole looks for runs; not there yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "fedconsole").mkdir()
    return tmp_path / "fedconsole" / "runs"


def garble(files: Sequence[Path], random: Random) -> str:
    """Change some bytes of one of the files; says what was done."""
    path = random.choice(files)
    content = bytearray(path.read_bytes())
    if random.random() < 0.2:
        begin = random.randrange(0, len(content), SECTOR_BYTES)
        places = list(range(begin, min(begin + SECTOR_BYTES, len(content))))
    else:
        places = random.choices(range(len(content)), k=random.choice((1, 1, 3, 30)))
    for place in places:
        content[place] ^= random.randint(1, 255)
    path.write_bytes(content)
    return f"{len(places)} bytes of {path.name}, of {len(content)}"


def take_up(run: Recorded, runs: Path, before: Sequence[Line]) -> str:
    """Do what `fedconsole resume` does; says what came of it.

    Args:
        before: the journal's lines before it was garbled.

    Raises:
        AssertionError: another model, or a refusal or a loss without a word.
    """
    refusal: BaseException | None = None
    try:
        if history.summarize(RUN) is None:
            return "refused"  # as one that never began
        exit_code, _, lines = carry(runs / RUN)
    except* FedconsoleError as errors:
        refusal = errors
    if refusal is not None:
        while isinstance(refusal, BaseExceptionGroup):
            refusal = refusal.exceptions[0]
        assert str(refusal)
        return "refused"
    assert exit_code is ExitCode.COMPLETED
    assert rounds_of(lines) == rounds_of(run.lines)
    if lines[: len(before)] == before:
        return "the same model"
    assert any(line["type"] == "warning" for line in lines), "lines are lost without a word"
    return "the same model, a loss told"


def rounds_of(lines: Sequence[Line]) -> list[tuple[int, list[str], str]]:
    return [
        (line["round"], line["updates"], line["model_id"])
        for line in lines
        if line["type"] == "round.finished"
    ]


def test_no_garbled_journal_leads_to_another_model(recorded: Recorded, runs: Path) -> None:
    random = Random(SEED)
    outcomes: Counter[str] = Counter()
    while outcomes.total() < NUM_IMAGES:
        moment = random.randint(1, recorded.recording.num_moments)
        recorded.recording.write_killed(moment, runs)
        journal = sorted((runs / RUN).glob("run.db*"))
        before: list[Line] = []
        with suppress(StorageError):  # it has no tables yet
            before += history.lines(RUN)
        if files := [path for path in journal if path.stat().st_size]:
            damage = garble(files, random)
            try:
                outcome = take_up(recorded, runs, before)
            except BaseException as error:
                error.add_note(f"GARBLED_SEED={SEED}, moment {moment}: {damage}")
                raise
            outcomes[outcome.partition(":")[0]] += 1
        shutil.rmtree(runs)
    print(dict(outcomes))
    assert outcomes.keys() - {"the same model, a loss told"} == {"the same model", "refused"}
