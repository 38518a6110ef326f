"""The folder of dealt data. Each `store` reads the file in a process of its own, as the daemon does."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from pi_daemon.device.receiving import Room
from pi_daemon.protocol.messages import DatasetCard, OfferData, RefusalCode
from pi_daemon.server.data_store import KEEP_PART_S, DataStore, DataStoreError, open_data_store

X = np.arange(24, dtype=np.uint8).reshape(6, 2, 2)
GOOD = save({"x": X, "y": np.array([0, 1, 2, 0, 1, 2])})


def offer_of(content: bytes, name: str = "tiny", **changes: Any) -> OfferData:
    digest = hashlib.sha256(content).hexdigest()
    fields: dict[str, Any] = {"name": name, "size": len(content), "sha256": digest}
    return OfferData(cmd_id="1", run="run", fence=1, **(fields | changes))


def bring(store: DataStore, content: bytes) -> OfferData:
    offer = offer_of(content)
    store.part_of(offer.sha256).write_bytes(content)
    return offer


@pytest.fixture
def store(tmp_path: Path) -> DataStore:
    return DataStore(tmp_path, shares_labels=True)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_good_file_gets_its_name_and_a_card(store: DataStore, tmp_path: Path) -> None:
    card = store.store(bring(store, GOOD))
    assert isinstance(card, DatasetCard)
    assert (card.name, card.sample_shape, card.num_examples) == ("tiny", (2, 2), 6)
    assert card.label_counts == (2, 2, 2)
    assert names(tmp_path) == ["tiny.safetensors"]
    assert store.cards() == (card,)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff" * 64, "dataset tiny: "),
        (GOOD[:-1], "dataset tiny: "),
        (save({"x": X}), "tensor y is missing"),
        (save({"x": X, "y": np.array([0, 1])}), "expected as many of each"),
        (save({"x": X, "y": np.full(6, -1)}), "expected class numbers from 0"),
        (b"\xff\xff\xff\xff\xff\xff\xff\x7f{}", "dataset tiny: "),
    ],
    ids=["noise", "cut", "no targets", "too few targets", "labels", "huge header"],
)
def test_what_is_no_dataset_is_deleted_and_what_was_there_stays(
    store: DataStore, tmp_path: Path, content: bytes, said: str
) -> None:
    store.store(bring(store, GOOD))
    refused = store.store(bring(store, content))
    assert isinstance(refused, tuple)
    code, reason = refused
    assert code is RefusalCode.BAD_DATA
    assert said in reason
    assert "\n" not in reason
    assert str(tmp_path) not in reason
    assert store.path_of("tiny").read_bytes() == GOOD
    assert names(tmp_path) == ["tiny.safetensors"]


def test_bytes_that_were_not_offered_are_deleted(store: DataStore, tmp_path: Path) -> None:
    offer = bring(store, GOOD)
    store.part_of(offer.sha256).write_bytes(GOOD[:-1] + b"\x07")
    assert store.store(offer) == (
        RefusalCode.BAD_DATA,
        "not the bytes that were offered: deal it again",
    )
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((6, *[1] * 13), "x has 14 and y 1 dimensions, at most 13 are allowed"),
        ((6, 0), "its 6 examples hold no values"),
    ],
)
def test_samples_that_no_card_can_tell_of_are_refused(
    store: DataStore, tmp_path: Path, shape: tuple[int, ...], reason: str
) -> None:
    content = save({"x": np.zeros(shape, np.uint8), "y": np.zeros(6, np.int64)})
    code, told = store.store(bring(store, content))  # type: ignore[misc]
    assert code is RefusalCode.BAD_DATA
    assert reason in told
    assert names(tmp_path) == []


def test_the_folder_is_looked_at_anew_for_each_offer(store: DataStore, tmp_path: Path) -> None:
    store.store(bring(store, GOOD))
    other = bytes(100)
    store.part_of(offer_of(other).sha256).write_bytes(other[:40])
    (tmp_path / "notes.txt").write_bytes(bytes(1_000))

    def found(offer: OfferData) -> tuple[bool, bool, int, int]:
        room = store.find_room(offer)
        assert isinstance(room, Room)
        return room.is_name_taken, room.is_here, room.part_bytes, room.used_bytes

    assert found(offer_of(GOOD)) == (True, True, 0, len(GOOD) + 40)
    assert found(offer_of(other)) == (True, False, 40, len(GOOD))
    assert found(offer_of(other, "other")) == (False, False, 40, len(GOOD))


def test_a_part_of_yesterday_is_forgotten_and_a_dataset_is_not(
    store: DataStore, tmp_path: Path
) -> None:
    old, new = store.part_of("a" * 64), store.part_of("b" * 64)
    for path in (old, new, store.path_of("tiny")):
        path.write_bytes(GOOD)
    for path in (old, store.path_of("tiny")):
        os.utime(path, (0, path.stat().st_mtime - KEEP_PART_S - 1))
    with open_data_store(tmp_path, shares_labels=False):
        assert names(tmp_path) == [new.name, "tiny.safetensors"]


def test_a_folder_that_is_gone_is_a_refusal_and_no_crash(store: DataStore, tmp_path: Path) -> None:
    offer = bring(store, GOOD)
    shutil.rmtree(tmp_path)
    gone = (RefusalCode.NO_ROOM, "the device cannot store this: No such file or directory")
    assert (store.find_room(offer), store.store(offer)) == (gone, gone)


def test_two_daemons_do_not_share_a_folder(tmp_path: Path) -> None:
    with (
        open_data_store(tmp_path / "data", shares_labels=False),
        pytest.raises(DataStoreError, match="another pi-daemon takes data into "),
        open_data_store(tmp_path / "data", shares_labels=False),
    ):
        pass
    with open_data_store(tmp_path / "data", shares_labels=False):
        pass


def test_a_file_in_the_way_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with (
        pytest.raises(DataStoreError, match=r"data cannot be used \(File exists\)"),
        open_data_store(tmp_path / "data", shares_labels=False),
    ):
        pass


@pytest.mark.parametrize("name", ["a=b", "heart beats", "ü"])
def test_a_file_that_the_owner_named_oddly_is_named(store: DataStore, name: str) -> None:
    store.path_of(name).write_bytes(GOOD)
    with pytest.raises(DataStoreError, match=r"rename it$"):
        store.cards()


def test_a_broken_file_that_the_owner_put_there_is_named(store: DataStore) -> None:
    store.path_of("tiny").write_bytes(b"nothing")
    with pytest.raises(DataStoreError, match=r"tiny\.safetensors: .*; mend it or move it away$"):
        store.cards()
