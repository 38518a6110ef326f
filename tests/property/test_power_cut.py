"""A power cut at any moment of a run: what was acknowledged is there, and another engine goes on.

The real engine session carries a short run, on devices that are made up, while a model of power cuts
(tests/support/power_cut) records its folder. POWER_CUT_IMAGES=1500 draws more crash images of it.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest

from fedconsole.coordinator import events as e
from fedconsole.coordinator import machine
from fedconsole.coordinator.state import RunState
from fedconsole.engine.store import Line, RunStore
from fedconsole.errors import ExitCode
from fedconsole.learning.aggregation import require_fit
from fedconsole.learning.contents import read_model
from fedconsole.learning.model_files import ModelFile
from pi_daemon.protocol.errors import ProtocolError, TensorError
from tests.support.power_cut.changes import Sync
from tests.support.recorded_runs import (
    LOCAL,
    RUN,
    Known,
    Recorded,
    carry,
    decode,
    made_up_devices,
    record,
)

NUM_IMAGES = int(os.environ.get("POWER_CUT_IMAGES", "150"))
SEED = int(os.environ.get("POWER_CUT_SEED", "1"))

# More images take more time.
pytestmark = pytest.mark.timeout(120 + NUM_IMAGES)


class LossError(AssertionError):
    """Something that was acknowledged is not on the disk."""


class CorruptionError(AssertionError):
    """Something is there and cannot be used."""


@pytest.fixture(scope="module", autouse=True)
def devices() -> Iterator[None]:
    with made_up_devices():
        yield


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return record(tmp_path_factory.mktemp("undisturbed"))


# What an image must hold


def check(folder: Path, run: Recorded, known: Known) -> RunState | None:
    """Check that nothing was lost of a folder of this run, and give its state.

    Raises:
        LossError, CorruptionError: as it says.
    """
    events, lines = read_store(folder)
    if list(run.events[: len(events)]) != events or list(run.lines[: len(lines)]) != lines:
        raise CorruptionError("the store holds other rows than were written")
    found = Known(len(events), len(lines))
    if found.num_events < known.num_events or found.num_lines < known.num_lines:
        raise LossError(f"{found} of {known}")
    if found not in {commit for _, commit in run.recording.marks}:
        raise CorruptionError(f"{found}: half of a transaction")
    if not events:
        return None
    state = machine.replay(decode(events))
    require_graphs(folder, run)
    require_checkpoint(folder, state, decode(events))
    require_updates(folder, state)
    return state


def read_store(folder: Path) -> tuple[list[bytes], list[Line]]:
    try:
        store = RunStore(folder)
        events, lines = list(store.events()), store.lines(1, 1_000_000)
        with closing(sqlite3.connect(folder / "run.db")) as reader:
            answer = reader.execute("PRAGMA integrity_check").fetchall()
        store.close()
    except Exception as error:  # rows of a corrupt table may be anything
        raise CorruptionError(repr(error)) from error
    if answer != [("ok",)]:
        raise CorruptionError(str(answer))
    return events, lines


def require_graphs(folder: Path, run: Recorded) -> None:
    path = folder / "graphs.json"
    if not path.exists():
        raise LossError("there is no graphs.json")
    if path.read_bytes() != run.graphs:
        raise CorruptionError("graphs.json is not what was written")


def require_checkpoint(folder: Path, state: RunState, events: Collection[e.Event]) -> None:
    """The model of the last complete round, or the initial one."""
    saved = {event.round: event for event in events if isinstance(event, e.RoundSaved)}
    path = checkpoint(folder, state.num_rounds)
    try:
        found = read_model(path)
    except (OSError, TensorError) as error:
        raise LossError(f"{path.name}: {error}") from error
    expected = saved[state.num_rounds].sha256 if state.num_rounds else found.sha256
    if (found.model_id, found.sha256) != (state.model_id, expected):
        raise CorruptionError(f"{path.name} holds another model")


def checkpoint(folder: Path, round_number: int) -> Path:
    return folder / "checkpoints" / f"round-{round_number:06d}.safetensors"


def require_updates(folder: Path, state: RunState) -> None:
    """What has been delivered of a round that is not complete, if it came over a link."""
    if state.round is None or state.round.number <= state.num_rounds:
        return
    # Every tensor of this model is trained.
    specs = ModelFile.open(checkpoint(folder, state.num_rounds)).table.specs
    for worker, update in state.round.delivered.items():
        try:
            require_fit(folder / "updates" / update.file, specs, update.sha256)
        except (OSError, ProtocolError) as error:
            if worker != LOCAL:
                raise LossError(f"the update of {worker}: {error}") from error


@dataclass(frozen=True)
class Image:
    """What one power cut left."""

    runs: Path
    moment: int
    known: Known
    """What was acknowledged before."""

    @property
    def folder(self) -> Path:
        return self.runs / RUN


def images(
    run: Recorded, room: Path, num_images: int, seed: int = SEED, ignored: Collection[Sync] = ()
) -> Iterator[Image]:
    """Crash images at random moments, one after the other at the same place."""
    random = Random(seed)
    recording = run.recording
    moments = sorted(random.randint(0, recording.num_moments) for _ in range(num_images))
    runs = room / f"image-{seed}"
    for moment in moments:
        recording.write_image(moment, random, runs, ignored)
        yield Image(runs, moment, recording.known_at(moment))
        shutil.rmtree(runs)


def kinds_of_damage(run: Recorded, room: Path, ignored: Collection[Sync] = ()) -> set[str]:
    found = set()
    for image in images(run, room, NUM_IMAGES // 3, ignored=ignored):
        try:
            check(image.folder, run, image.known)
        except (LossError, CorruptionError) as error:
            found.add(type(error).__name__)
    return found


@contextmanager
def kept(image: Image, tmp_path: Path) -> Iterator[None]:
    """Leave a copy of the image, as it was, where an error is found in it."""
    copy = shutil.copytree(image.runs, tmp_path / f"moment-{image.moment}")
    try:
        yield
    except Exception as error:
        error.add_note(f"POWER_CUT_SEED={SEED}, moment {image.moment}: {copy}")
        raise
    shutil.rmtree(copy)


@pytest.fixture
def room() -> Iterator[Path]:
    """For images. In memory where that can be: to look at one takes several syncs."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


# Tests


def test_a_recording_misses_nothing_that_happened_in_the_folder(
    recorded: Recorded, room: Path
) -> None:
    recorded.recording.write_everything(room / "copy")
    assert contents(room / "copy" / RUN) == contents(recorded.folder)


def contents(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def test_a_power_cut_loses_nothing_that_was_acknowledged(
    recorded: Recorded, room: Path, tmp_path: Path
) -> None:
    for image in images(recorded, room, NUM_IMAGES):
        with kept(image, tmp_path):
            check(image.folder, recorded, image.known)


def test_a_run_is_taken_up_after_a_power_cut_and_ends_with_the_same_model(
    recorded: Recorded, room: Path, tmp_path: Path
) -> None:
    for image in images(recorded, room, NUM_IMAGES // 5, SEED + 1):
        with kept(image, tmp_path):
            require_same_end(image.folder, recorded)


def require_same_end(folder: Path, run: Recorded) -> None:
    """Take a run up and carry it to its end: each round was complete once, with every update."""
    exit_code, events, lines = carry(folder)
    complete = [(n["round"], n["updates"]) for n in lines if n["type"] == "round.finished"]
    assert exit_code is ExitCode.COMPLETED
    assert complete == [(number, ["alice", "bob", "charlie"]) for number in (1, 2, 3, 4)]
    assert machine.replay(decode(events)).model_id == run.model_id


def test_a_second_power_cut_while_the_run_is_taken_up_loses_nothing_either(
    recorded: Recorded, room: Path, tmp_path: Path
) -> None:
    for first in images(recorded, room, max(1, NUM_IMAGES // 50), SEED + 2):
        second = record(first.runs)
        for image in images(second, room, 10, SEED + 3):
            with kept(image, tmp_path):
                check(image.folder, second, image.known)
                require_same_end(image.folder, recorded)


@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        (Sync.DATABASE, {"LossError", "CorruptionError"}),
        (Sync.FILE, {"LossError", "CorruptionError"}),
        (Sync.FOLDER, {"LossError"}),
    ],
)
def test_the_model_sees_what_each_kind_of_sync_is_for(
    recorded: Recorded, room: Path, kind: Sync, damage: set[str]
) -> None:
    assert kinds_of_damage(recorded, room, ignored={kind}) >= damage


def test_the_published_model_is_that_of_the_last_complete_round(
    recorded: Recorded, room: Path, tmp_path: Path
) -> None:
    for image in images(recorded, room, NUM_IMAGES):
        with kept(image, tmp_path):
            state = check(image.folder, recorded, image.known)
            require_published(image.folder, recorded, state)


def require_published(folder: Path, run: Recorded, state: RunState | None) -> None:
    if state is None or state.num_rounds == 0:
        return
    models = {n.round: n.model_id for n in decode(run.events) if isinstance(n, e.ModelAggregated)}
    # The next round's is there before that round counts as complete.
    allowed = {models[state.num_rounds], models.get(state.num_rounds + 1)}
    try:
        found = read_model(folder / "model.safetensors").model_id
    except (OSError, TensorError) as error:
        raise LossError(f"model.safetensors: {error}") from error
    if found not in allowed:
        raise LossError(f"model.safetensors is older than round {state.num_rounds}")


def test_a_new_folder_of_a_run_outlives_a_power_cut(room: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    run = record(tmp_path / "runs", is_folder_recorded=True)
    for image in images(run, room, NUM_IMAGES // 3):
        with kept(image, tmp_path):
            check(image.folder, run, image.known)
